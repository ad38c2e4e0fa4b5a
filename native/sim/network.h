// The virtual network: TCP-like streams between nodes. Bytes arrive in order, in random pieces,
// after random delays; a lost packet shows as delay. A cut holds bytes (one-way cuts hold one
// direction and the acknowledgements of the other) until it is healed; resets and half-open
// connections come from crashes and from the nemesis.
//
// Invariants: a connection has two ends; each end belongs to one loop until it dies; at most one
// receive and one send per end. Connections live until the world ends or both ends are dead and
// nothing is on the wire. Thread: the world's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "native/io/io.h"
#include "native/sim/world.h"

namespace curve::io {
struct StreamBackend {
  struct Segment {
    uint64_t arrival = 0;
    bool end = false;    // FIN
    bool reset = false;  // RST
    std::vector<std::byte> data;
  };
  Stream stream;
  sim::Network* network = nullptr;
  LoopBackend* loop = nullptr;  // null: dead (crashed or closed)
  uint32_t node = 0;
  uint64_t connection = 0;
  StreamBackend* other = nullptr;
  std::string peer_name;

  Op* receive_op = nullptr;
  std::span<std::byte> receive_into;
  bool receive_all = false;
  size_t received = 0;
  Op* send_op = nullptr;
  std::span<iovec> send_iov;
  size_t send_at = 0, send_offset = 0, sent = 0;

  std::deque<Segment> inbox;  // arrived, not yet received
  size_t inbox_bytes = 0, inbox_offset = 0;
  bool end_arrived = false;
  int error = 0;  // ECONNRESET, once the connection is broken

  std::deque<Segment> wire;  // on the way from this end to the other
  uint64_t last_arrival = 0;
  bool deliver_planned = false, held = false;
  uint64_t stalled_until = 0;  // nothing from this end arrives before
  size_t window = 0;           // bytes that may be on the way or unread
  size_t outstanding = 0;      // of the window
  size_t late_acks = 0;        // window that a one-way cut holds back
};
}  // namespace curve::io

namespace curve::sim {

using Endpoint = io::StreamBackend;

class Network {
 public:
  explicit Network(World& world);
  ~Network();
  void resize(size_t nodes);

  // One-way: bytes from `from` to `to` stand still.
  void cut(uint32_t from, uint32_t to);
  void heal(uint32_t from, uint32_t to);
  void heal_all();
  bool is_cut(uint32_t from, uint32_t to) const { return cut_[from * nodes_ + to]; }
  // Breaks every connection between two nodes; both ends see a reset (through cuts only after
  // healing).
  void reset_connections(uint32_t a, uint32_t b);
  // What `from` has sent and sends to `to` on the connections that they have now arrives at `until`
  // at the earliest. New connections are not touched.
  void stall_connections(uint32_t from, uint32_t to, uint64_t until_ns);
  // The ends at `at` see a reset at once; what they have sent still arrives, and a reset behind it.
  void break_connections_at(uint32_t at, uint32_t other);
  // TCP's keep-alive: whoever still holds a connection to a process that is gone, on a host that is
  // up, is told.
  void end_half_open();
  size_t connections() const { return connections_.size(); }

  // Of the implementation of io.h.
  void crash(Node& node, CrashKind kind);
  void abandon(io::LoopBackend* loop);
  Result<io::Address> listen(io::LoopBackend* loop, const io::Address& address,
                             io::Listener* listener);
  void close_listener(io::LoopBackend* loop, io::Listener* listener);
  void connect(io::LoopBackend* loop, io::ConnectOp* op, const io::Address& address);
  void cancel_connect(io::LoopBackend* loop, io::ConnectOp* op);
  void receive(Endpoint* end, io::Op* op, std::span<std::byte> into, bool all);
  void send(Endpoint* end, io::Op* op, std::span<iovec> iov);
  void close(Endpoint* end);

 private:
  struct Listening {
    io::LoopBackend* loop;
    io::Listener* listener;
  };
  struct Connection {
    Endpoint ends[2];
  };
  struct Connecting {
    io::LoopBackend* loop;
    io::ConnectOp* op;
    std::string address;
    uint32_t attempts = 0;
  };
  uint64_t delay();
  void try_connect(uint64_t id);
  void finish_connect(uint64_t id, int32_t result, io::Stream* stream);
  io::Stream* establish(io::LoopBackend* from, io::LoopBackend* to, io::Listener* listener,
                        const std::string& address);
  void pump(Endpoint* end);
  void push(Endpoint* end, io::StreamBackend::Segment segment);
  void plan_delivery(Endpoint* end);
  void deliver(uint64_t connection, int side);
  void deliver_segment(Endpoint* to, io::StreamBackend::Segment segment);
  void try_receive(Endpoint* end);
  void acknowledge(Endpoint* reader, size_t bytes);
  void break_end(Endpoint* end);
  void reset_from(Endpoint* end);
  void collect(uint64_t connection);
  void kill_end(Endpoint* end, bool silent);

  World& world_;
  NetworkOptions options_;
  Random random_;
  size_t nodes_ = 0;
  std::vector<bool> cut_;
  std::map<std::string, Listening> listeners_;
  std::map<uint64_t, std::unique_ptr<Connection>> connections_;
  std::map<uint64_t, Connecting> connecting_;
  std::vector<std::vector<std::byte>> spare_;  // memory of segments that were read
  uint64_t next_id_ = 1;
  uint32_t next_port_ = 20000;
};

}  // namespace curve::sim
