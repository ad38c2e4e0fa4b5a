// One NBD connection: receive buffer, negotiation, requests in the device, replies. Used by the
// server only. States: kClientFlags -> kOptions -> kTransmission -> kDraining (disconnected
// politely: what is in flight is answered)
// -> kClosed (waits until the device has given back every request, then goes). Thread: the loop's.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "native/base/types.h"
#include "native/export/nbd_protocol.h"
#include "native/export/nbd_server.h"
#include "native/wire/transmit_queue.h"

namespace curve::exports {

class NbdSession;
class NbdSessions;

inline constexpr uint32_t kRequestBytesMax = 32u << 20;
inline constexpr uint32_t kOptionBytesMax = 16 * 1024;
inline constexpr uint32_t kUnitBytes = 512;

struct NbdRequest : client::IoRequest {
  NbdSession* session = nullptr;
  uint64_t cookie = 0;
  uint16_t flags = 0;
  uint16_t command = 0;
  uint64_t asked_offset = 0;  // kBlockStatus is widened to sectors
  uint32_t asked_bytes = 0;
  uint64_t held_bytes = 0;
  std::vector<base::Buffer> data;  // of kIoBytesMax bytes each
  std::vector<iovec> parts;
};

// The flags of an export, as the protocol has them.
uint16_t transmission_flags(bool read_only);

// What a session needs from its owner.
class NbdSessions {
 public:
  virtual const NbdExport* find(std::string_view name) = 0;  // virtual: negotiation only
  virtual std::vector<const NbdExport*> all() = 0;
  virtual void ended(NbdSession* session) = 0;  // deletes it
  NbdStats stats;

 protected:
  ~NbdSessions() = default;
};

class NbdSession : public base::ListHook {
 public:
  // `negotiated`: requests come at once, for this export (a `device` that is null answers them all
  // with an error); null: the client chooses.
  NbdSession(io::Loop& loop, base::BufferPool& pool, const NbdOptions& options, io::Stream* stream,
             NbdSessions& sessions, const NbdExport* negotiated = nullptr);
  ~NbdSession();
  void close();                                      // ended() follows, from the loop
  uint64_t export_id() const { return export_.id; }  // 0 before one was chosen
  uint32_t inflight() const { return inflight_; }

 private:
  enum class Phase : uint8_t { kClientFlags, kOptions, kTransmission, kDraining, kClosed };

  // stream (nbd_session.cc)
  void begin_receive();
  void on_received();
  void on_sent();
  void flush();
  void parse();
  void consume(size_t bytes) { begin_ += bytes; }
  std::span<const std::byte> have() const { return {buffer_.data() + begin_, end_ - begin_}; }
  bool take_client_flags();
  void later();
  void end_if_idle();
  void fail(const char* problem);

  // options (nbd_negotiation.cc): false: more bytes are needed, or the connection is over
  bool take_option();
  void on_option(uint32_t option, std::span<const std::byte> data);
  void reply_option(uint32_t option, uint32_t type, std::span<const std::byte> data = {});
  void reply_option_error(uint32_t option, uint32_t type, std::string_view sentence);
  void option_export_name(std::span<const std::byte> data);
  void option_info(uint32_t option, std::span<const std::byte> data);
  void option_list(std::span<const std::byte> data);
  void option_meta_context(uint32_t option, std::span<const std::byte> data);
  void enter_transmission(const NbdExport& what);
  uint16_t flags_for(const NbdExport& what) const;

  // requests (nbd_transmission.cc)
  bool take_request();
  bool take_incoming();
  std::span<std::byte> incoming_window();
  uint32_t check(const NbdRequest& request) const;
  void start(NbdRequest* request);
  void submit(NbdRequest* request);
  void hold(NbdRequest* request, uint64_t bytes);
  static void on_done(client::IoRequest* request);
  void done(NbdRequest* request);
  void reply(NbdRequest* request, uint32_t error);
  void reply_read(NbdRequest* request);
  void reply_block_status(NbdRequest* request);
  void release(NbdRequest* request);
  bool full() const;

  io::Loop& loop_;
  base::BufferPool& pool_;
  const NbdOptions& options_;
  io::Stream* stream_;
  NbdSessions& sessions_;
  Phase phase_ = Phase::kClientFlags;
  io::Op receive_op_, send_op_;
  io::TurnHook turn_hook_;
  io::Timer later_timer_;    // parses again after a stall; ends a closed session
  io::Timer timeout_timer_;  // of the negotiation
  bool receiving_ = false, sending_ = false, parsing_ = false;

  base::Buffer buffer_;
  size_t begin_ = 0, end_ = 0;
  wire::TransmitQueue transmit_;
  std::vector<std::byte> scratch_;

  bool no_zeroes_ = false, structured_ = false;
  bool meta_allocation_ = false;  // base:allocation was chosen
  std::string meta_export_;       // for this name
  NbdExport export_;              // a copy; empty until chosen
  bool allocation_ = false;       // chosen for this export

  std::vector<std::unique_ptr<NbdRequest>> requests_;  // all there are
  std::vector<NbdRequest*> free_;
  uint32_t inflight_ = 0;
  uint64_t inflight_bytes_ = 0;
  NbdRequest* incoming_ = nullptr;  // its data is being received
  uint64_t incoming_at_ = 0;
  bool incoming_direct_ = false;  // the receive in flight goes into its data
  uint32_t incoming_error_ = 0;   // known already; the data is dropped
};

}  // namespace curve::exports
