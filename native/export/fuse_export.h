// One BlockDevice as the file of a FUSE file system of its own: our side of /dev/fuse, without
// libfuse. It knows the protocol and the BlockDevice, and nothing of what is behind it or of who
// uses the file (native/export/loop_device.h). A file system per volume: one that waits holds up no
// other.
//
// Invariants: a reply leaves only after the device has answered. An acknowledged write is durable,
// so a flush has nothing to do. At most kInflightMax requests and kInflightBytesMax (and one
// request more) are taken from the kernel; all memory for that is there after prepare(), so that
// pages can be written back when there is no other. A request that is not answered when the process
// dies is asked again of its successor: resume(), which continues a file system that an earlier
// process began.
//
// Thread: the loop's; never blocks.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "native/base/buffer.h"
#include "native/base/status.h"
#include "native/client/block_device.h"
#include "native/export/fuse_protocol.h"
#include "native/io/io.h"

namespace curve::exports {

struct FuseStats {
  uint64_t requests = 0, errors = 0, read_bytes = 0, written_bytes = 0, resent = 0, inflight = 0;
};

class FuseExport {
 public:
  static constexpr uint32_t kInflightMax = 256;
  static constexpr uint64_t kInflightBytesMax = 64u << 20;

  // `fd`: /dev/fuse, O_NONBLOCK, mounted or about to be; owned from now on. `resumed`: an earlier
  // process has negotiated it; what that one did not answer is asked for again. `device` outlives
  // close().
  // `file` is the file's name.
  FuseExport(io::Loop& loop, base::BufferPool& pool, int fd, std::string file,
             client::BlockDevice* device, bool read_only, bool resumed);
  // Fills the pool with what one export may hold.
  static void prepare(base::BufferPool& pool);
  ~FuseExport();  // after close() has ended (or Loop::abandon)
  int fd() const { return fd_; }
  // The kernel has ended it: nobody uses the file any more, or it was aborted.
  bool ended() const { return ended_; }
  bool negotiated() const { return negotiated_; }
  // This kernel can be asked to send unanswered requests again. Known once negotiated().
  bool can_resend() const { return can_resend_; }
  FuseStats stats() const { return stats_; }
  // Tells the kernel the file's size, after the device has grown.
  void grew();
  // Takes no further requests; `closed` runs when the device has given back all of them.
  void close(std::function<void()> closed);

 private:
  struct Request : client::IoRequest {
    FuseExport* self = nullptr;
    uint64_t unique = 0;
    uint32_t opcode = 0;
    uint64_t held_bytes = 0;
    base::Buffer data;  // of a read or write
    iovec part{};
    fuse_out_header out{};
    alignas(8) std::array<std::byte, sizeof(fuse_entry_out)> body{};
    size_t body_bytes = 0;
    bool with_data = false;  // the reply carries `data`
    // Zeroing: what is left of the range, and what `status_bits` say something of.
    uint64_t zero_at = 0, zero_end = 0, known_from = 0, known_to = 0;
  };

  // fuse_export.cc: messages in and out
  void wait();
  void receive();
  bool receive_one();  // false: nothing there, or over
  void take(size_t bytes);
  bool full() const;
  void hold(Request* request, size_t bytes);
  void end();
  void reply(Request* request, int error);
  template <class T>
  void reply_with(Request* request, const T& body, size_t bytes = sizeof(T)) {
    std::memcpy(request->body.data(), &body, sizeof(T));
    request->body_bytes = bytes;
    reply(request, 0);
  }
  bool send(Request* request);
  void send_again();
  void release(Request* request);
  void close_if_idle();
  void ask_again();

  // fuse_requests.cc: what is asked for
  void handle(Request* request, const fuse::Message& message, size_t data_bytes);
  void init(Request* request, const fuse::Message& message);
  void lookup(Request* request, const fuse::Message& message);
  void open(Request* request, const fuse::Message& message);
  void read(Request* request, const fuse::Message& message);
  void write(Request* request, const fuse::Message& message, size_t data_bytes);
  void allocate(Request* request, const fuse::Message& message);
  void zero_on(Request* request);
  void statfs(Request* request);
  fuse_attr attributes(uint64_t node) const;
  bool read_only() const { return read_only_ || device_->read_only(); }
  void submit(Request* request, client::IoType type, uint64_t offset_bytes, uint64_t bytes);
  void done(Request* request);

  io::Loop& loop_;
  base::BufferPool& pool_;
  int fd_;
  const std::string file_;
  client::BlockDevice* device_;
  bool read_only_;
  bool negotiated_ = false, can_resend_ = false;
  bool waiting_ = false, later_ = false, ended_ = false, closing_ = false;
  io::Op wait_op_;
  io::Timer later_timer_;  // parses again after a stall, sends what the kernel had no memory for
  std::array<std::byte, fuse::kHeadBytes> incoming_head_{};
  base::Buffer incoming_;                        // what comes after the head
  std::array<std::byte, 512> incoming_small_{};  // a message that is no write, in one piece
  std::vector<std::unique_ptr<Request>> requests_;
  std::vector<Request*> free_;
  base::List<client::IoRequest> unsent_;
  uint64_t inflight_bytes_ = 0;
  FuseStats stats_;
  std::function<void()> closed_;
};

}  // namespace curve::exports
