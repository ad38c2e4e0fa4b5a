// The stream side of an NBD connection. See nbd_session.h.
#include "native/export/nbd_session.h"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "native/base/log.h"

namespace curve::exports {
namespace {

constexpr size_t kBufferBytes = 64 * 1024;
constexpr uint16_t kClientFlagsKnown = nbd::kFixedNewstyle | nbd::kNoZeroes;

}  // namespace

NbdSession::NbdSession(io::Loop& loop, base::BufferPool& pool, const NbdOptions& options,
                       io::Stream* stream, NbdSessions& sessions, const NbdExport* negotiated)
    : loop_(loop),
      pool_(pool),
      options_(options),
      stream_(stream),
      sessions_(sessions),
      buffer_(pool.take(kBufferBytes)) {
  receive_op_.owner = send_op_.owner = turn_hook_.owner = later_timer_.owner =
      timeout_timer_.owner = this;
  receive_op_.done = [](io::Op* op) { static_cast<NbdSession*>(op->owner)->on_received(); };
  send_op_.done = [](io::Op* op) { static_cast<NbdSession*>(op->owner)->on_sent(); };
  turn_hook_.run = [](io::TurnHook* hook) { static_cast<NbdSession*>(hook->owner)->flush(); };
  later_timer_.fire = [](io::Timer* timer) { static_cast<NbdSession*>(timer->owner)->later(); };
  timeout_timer_.fire = [](io::Timer* timer) {
    static_cast<NbdSession*>(timer->owner)->fail("negotiation took too long");
  };
  loop_.add_turn_hook(&turn_hook_);
  if (negotiated) {
    enter_transmission(*negotiated);
  } else {
    loop_.arm(&timeout_timer_, loop_.now_ns() + options_.negotiation_timeout_ns);
    nbd::BigWriter(scratch_).u64(nbd::kMagic).u64(nbd::kOptionMagic).u16(kClientFlagsKnown);
    transmit_.append(scratch_);
  }
  begin_receive();
}

NbdSession::~NbdSession() {
  unlink();
  loop_.remove_turn_hook(&turn_hook_);
  loop_.disarm(&later_timer_);
  loop_.disarm(&timeout_timer_);
}

void NbdSession::close() {
  if (phase_ == Phase::kClosed) return;
  phase_ = Phase::kClosed;
  loop_.disarm(&timeout_timer_);
  stream_->close();
  stream_ = nullptr;
  transmit_.drop_unsent();
  if (incoming_) release(std::exchange(incoming_, nullptr));
  loop_.arm(&later_timer_, loop_.now_ns());
}

void NbdSession::fail(const char* problem) {
  if (phase_ == Phase::kClosed) return;
  base::log(
      base::LogLevel::kWarning, "nbd_connection_closed",
      {{"peer", stream_->peer()}, {"export", export_.name}, {"problem", std::string(problem)}});
  close();
}

void NbdSession::later() {
  if (phase_ == Phase::kClosed) return end_if_idle();
  parse();
}

// Last call; the session is gone afterwards.
void NbdSession::end_if_idle() {
  if (phase_ != Phase::kClosed || receiving_ || sending_ || inflight_ > 0 || later_timer_.armed())
    return;
  sessions_.ended(this);
}

// ---- receiving ----

void NbdSession::begin_receive() {
  if (receiving_ || phase_ == Phase::kClosed || phase_ == Phase::kDraining) return;
  receiving_ = true;
  incoming_direct_ = incoming_ && begin_ == end_;
  if (incoming_direct_) return stream_->receive(&receive_op_, incoming_window(), true);
  if (begin_ == end_) {
    begin_ = end_ = 0;
  } else if (kBufferBytes - end_ < kBufferBytes / 2) {
    std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  // Everything that must be whole in this buffer (an option at most) fits into half of it.
  stream_->receive(&receive_op_, {buffer_.data() + end_, kBufferBytes - end_}, false);
}

void NbdSession::on_received() {
  receiving_ = false;
  if (phase_ == Phase::kClosed) return end_if_idle();
  if (receive_op_.result <= 0) {
    if (phase_ != Phase::kDraining) close();
    return;
  }
  const auto bytes = static_cast<size_t>(receive_op_.result);
  if (incoming_direct_) {
    incoming_at_ += bytes;
  } else {
    end_ += bytes;
  }
  parse();
}

// Takes what is complete. Not re-entered: devices and replies may lead here again.
void NbdSession::parse() {
  if (parsing_ || receiving_) return;
  parsing_ = true;
  bool stalled = false;
  for (bool more = true; more;) {
    switch (phase_) {
      case Phase::kClientFlags:
        more = take_client_flags();
        break;
      case Phase::kOptions:
        more = take_option();
        break;
      case Phase::kTransmission:
        if (incoming_) {
          more = take_incoming();
        } else if (full()) {
          stalled = true;  // done() or on_sent() goes on
          more = false;
        } else {
          more = take_request();
        }
        break;
      default:
        more = false;
    }
  }
  parsing_ = false;
  if (!stalled) begin_receive();
}

bool NbdSession::take_client_flags() {
  if (have().size() < 4) return false;
  const uint32_t flags = nbd::BigReader(have()).u32();
  consume(4);
  if (flags & ~uint32_t{kClientFlagsKnown}) return fail("unknown client flags"), false;
  if (!(flags & nbd::kFixedNewstyle))
    return fail("the client does not speak fixed newstyle"), false;
  no_zeroes_ = flags & nbd::kNoZeroes;
  phase_ = Phase::kOptions;
  return true;
}

// ---- sending ----

void NbdSession::flush() {
  if (sending_ || phase_ == Phase::kClosed || transmit_.empty()) return;
  sending_ = true;
  stream_->send(&send_op_, transmit_.begin_send());
}

void NbdSession::on_sent() {
  sending_ = false;
  transmit_.sent();
  if (phase_ == Phase::kClosed) return end_if_idle();
  if (send_op_.result < 0) return close();
  if (phase_ == Phase::kDraining && inflight_ == 0 && transmit_.empty()) return close();
  if (phase_ == Phase::kTransmission) parse();
}

}  // namespace curve::exports
