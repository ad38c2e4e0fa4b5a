// Requests and replies of an NBD connection. See nbd_session.h.
#include <algorithm>
#include <cassert>
#include <cstring>

#include "native/export/nbd_session.h"

namespace curve::exports {
namespace {

constexpr uint64_t kStatusBytesMax = 1ull << 30;  // of the volume, looked at by one BLOCK_STATUS
constexpr uint32_t kExtentsMax = 4096;            // in one reply
constexpr uint32_t kAllocationId = 1;

uint32_t error_of(Code code) {
  switch (code) {
    case Code::kOk:
      return nbd::kOk;
    case Code::kNoSpace:
      return nbd::kEnospc;
    case Code::kInvalid:
      return nbd::kEinval;
    case Code::kReadOnly:
      return nbd::kEperm;
    case Code::kFenced:  // the volume is attached elsewhere: this export is over (R12)
    case Code::kShuttingDown:
      return nbd::kEshutdown;
    default:
      return nbd::kEio;
  }
}

}  // namespace

bool NbdSession::full() const {
  return inflight_ >= options_.inflight_requests_max ||
         inflight_bytes_ + transmit_.bytes() >= options_.inflight_bytes_max;
}

bool NbdSession::take_request() {
  if (have().size() < nbd::kRequestBytes) return false;
  nbd::BigReader reader(have());
  if (reader.u32() != nbd::kRequestMagic) return fail("no request begins here: wrong magic"), false;
  if (free_.empty()) {
    requests_.push_back(std::make_unique<NbdRequest>());
    free_.push_back(requests_.back().get());
  }
  NbdRequest* request = free_.back();
  request->flags = reader.u16();
  request->command = reader.u16();
  request->cookie = reader.u64();
  request->asked_offset = reader.u64();
  request->asked_bytes = reader.u32();
  if (request->command == nbd::kDisconnect) {
    phase_ = Phase::kDraining;
    if (inflight_ == 0 && transmit_.empty()) close();
    return false;
  }
  if (request->command == nbd::kWrite && request->asked_bytes > kRequestBytesMax) {
    return fail("a write of more than 32 MiB"),
           false;  // its data cannot be told from requests without reading it
  }
  consume(nbd::kRequestBytes);
  free_.pop_back();
  ++inflight_;
  ++sessions_.stats.requests;
  request->session = this;
  request->done = &NbdSession::on_done;
  request->held_bytes = 0;
  const uint32_t error = check(*request);
  if (request->command == nbd::kWrite && request->asked_bytes > 0) {
    incoming_ = request;
    incoming_at_ = 0;
    incoming_error_ = error;
    hold(request, request->asked_bytes);
    return true;
  }
  if (error) {
    reply(request, error);
  } else {
    start(request);
  }
  return phase_ == Phase::kTransmission;
}

uint32_t NbdSession::check(const NbdRequest& request) const {
  if (!export_.device) return nbd::kEshutdown;
  const uint64_t size = export_.device->size_bytes(), offset = request.asked_offset,
                 bytes = request.asked_bytes;
  const bool outside = offset > size || bytes > size - offset;
  const bool unaligned = offset % kUnitBytes || bytes % kUnitBytes;
  uint16_t known = nbd::kFua;  // allowed everywhere
  switch (request.command) {
    case nbd::kRead:
      known |= nbd::kDf;
      if (bytes > kRequestBytesMax)
        return request.flags & nbd::kDf ? nbd::kEoverflow : nbd::kEinval;
      if (outside) return nbd::kEinval;
      break;
    case nbd::kWriteZeroes:
      known |= nbd::kNoHole | nbd::kFastZero;
      [[fallthrough]];
    case nbd::kWrite:
    case nbd::kTrim:
      if (export_.read_only || export_.device->read_only()) return nbd::kEperm;
      if (outside) return request.command == nbd::kTrim ? nbd::kEinval : nbd::kEnospc;
      break;
    case nbd::kBlockStatus:
      known |= nbd::kReqOne;
      if (!allocation_ || bytes == 0 || outside) return nbd::kEinval;
      break;
    case nbd::kFlush:
      return request.flags & ~known ? nbd::kEinval : nbd::kOk;
    default:
      return nbd::kEinval;
  }
  if (request.flags & ~known || unaligned) return nbd::kEinval;
  // Blocks that must stay allocated are written, which is not fast.
  const uint16_t slow = nbd::kNoHole | nbd::kFastZero;
  if (request.command == nbd::kWriteZeroes && (request.flags & slow) == slow) return nbd::kEnotsup;
  return nbd::kOk;
}

// Memory for the data of a read or write.
void NbdSession::hold(NbdRequest* request, uint64_t bytes) {
  request->held_bytes = bytes;
  inflight_bytes_ += bytes;
  for (uint64_t at = 0; at < bytes; at += kIoBytesMax) {
    request->data.push_back(pool_.take(std::min<uint64_t>(kIoBytesMax, bytes - at)));
  }
}

// ---- the data of a write ----

std::span<std::byte> NbdSession::incoming_window() {
  return incoming_->data[incoming_at_ / kIoBytesMax].span().subspan(incoming_at_ % kIoBytesMax);
}

bool NbdSession::take_incoming() {
  while (incoming_at_ < incoming_->asked_bytes && begin_ < end_) {
    const auto window = incoming_window();
    const size_t n = std::min(window.size(), end_ - begin_);
    std::memcpy(window.data(), buffer_.data() + begin_, n);
    consume(n);
    incoming_at_ += n;
  }
  if (incoming_at_ < incoming_->asked_bytes) return false;
  NbdRequest* request = std::exchange(incoming_, nullptr);
  if (incoming_error_) {
    reply(request, incoming_error_);
  } else {
    start(request);
  }
  return phase_ == Phase::kTransmission;
}

// ---- to the device ----

void NbdSession::start(NbdRequest* request) {
  using client::IoType;
  request->offset_bytes = request->asked_offset;
  request->bytes = request->asked_bytes;
  request->no_unmap = false;
  request->iov = {};
  request->buffers = {};
  switch (request->command) {
    case nbd::kRead:
      request->type = IoType::kRead;
      hold(request, request->bytes);
      for (const base::Buffer& part : request->data)
        request->parts.push_back({part.data(), part.size()});
      request->iov = request->parts;
      break;
    case nbd::kWrite:
      request->type = IoType::kWrite;
      request->buffers = request->data;
      break;
    case nbd::kTrim:
      request->type = IoType::kDiscard;
      break;
    case nbd::kWriteZeroes:
      request->type = IoType::kWriteZeroes;
      request->no_unmap = request->flags & nbd::kNoHole;
      break;
    case nbd::kFlush:
      request->type = IoType::kFlush;
      request->offset_bytes = request->bytes = 0;
      break;
    default: {  // kBlockStatus: whole sectors, not too many
      request->type = IoType::kBlockStatus;
      const uint64_t first = request->asked_offset / kSectorBytes * kSectorBytes;
      const uint64_t end =
          request->asked_offset + std::min<uint64_t>(request->asked_bytes, kStatusBytesMax);
      request->offset_bytes = first;
      request->bytes = std::min((end + kSectorBytes - 1) / kSectorBytes * kSectorBytes,
                                export_.device->size_bytes()) -
                       first;
      request->data.push_back(pool_.take((request->bytes / kSectorBytes + 7) / 8));
      request->status_bits = reinterpret_cast<uint8_t*>(request->data[0].data());
    }
  }
  export_.device->submit(request);
}

void NbdSession::on_done(client::IoRequest* io) {
  auto* request = static_cast<NbdRequest*>(io);
  request->session->done(request);
}

void NbdSession::done(NbdRequest* request) {
  if (phase_ == Phase::kClosed) {
    release(request);
    return end_if_idle();
  }
  if (request->code != Code::kOk) {
    reply(request, error_of(request->code));
  } else if (request->command == nbd::kRead) {
    reply_read(request);
  } else if (request->command == nbd::kBlockStatus) {
    reply_block_status(request);
  } else {
    if (request->command == nbd::kWrite) sessions_.stats.written_bytes += request->bytes;
    reply(request, nbd::kOk);
  }
  if (phase_ == Phase::kTransmission) parse();  // it may have been full
}

void NbdSession::release(NbdRequest* request) {
  inflight_bytes_ -= request->held_bytes;
  request->data.clear();
  request->parts.clear();
  --inflight_;
  free_.push_back(request);
}

// ---- replies ----

// Errors of reads and block status, where structured replies were negotiated, have a form of their
// own.
void NbdSession::reply(NbdRequest* request, uint32_t error) {
  if (error) ++sessions_.stats.errors;
  scratch_.clear();
  nbd::BigWriter w(scratch_);
  const bool has_content = request->command == nbd::kRead || request->command == nbd::kBlockStatus;
  if (structured_ && has_content) {
    w.u32(nbd::kStructuredReplyMagic)
        .u16(nbd::kChunkDone)
        .u16(nbd::kChunkError)
        .u64(request->cookie);
    w.u32(6).u32(error).u16(0);
  } else {
    w.u32(nbd::kSimpleReplyMagic).u32(error).u64(request->cookie);
  }
  transmit_.append(scratch_);
  release(request);
}

void NbdSession::reply_read(NbdRequest* request) {
  const auto bytes = static_cast<uint32_t>(request->bytes);
  sessions_.stats.read_bytes += bytes;
  scratch_.clear();
  nbd::BigWriter w(scratch_);
  if (structured_ && bytes > 0) {
    w.u32(nbd::kStructuredReplyMagic)
        .u16(nbd::kChunkDone)
        .u16(nbd::kChunkOffsetData)
        .u64(request->cookie);
    w.u32(8 + bytes).u64(request->offset_bytes);
  } else if (structured_) {
    w.u32(nbd::kStructuredReplyMagic)
        .u16(nbd::kChunkDone)
        .u16(nbd::kChunkNone)
        .u64(request->cookie)
        .u32(0);
  } else {
    w.u32(nbd::kSimpleReplyMagic).u32(0).u64(request->cookie);
  }
  transmit_.append(scratch_);
  for (const base::Buffer& part : request->data)
    transmit_.append(part, 0, static_cast<uint32_t>(part.size()));
  release(request);
}

void NbdSession::reply_block_status(NbdRequest* request) {
  const uint64_t begin = request->asked_offset;
  const uint64_t end =
      std::min(request->offset_bytes + request->bytes, begin + request->asked_bytes);
  const bool one = request->flags & nbd::kReqOne;
  scratch_.clear();
  nbd::BigWriter w(scratch_);
  w.u32(nbd::kStructuredReplyMagic)
      .u16(nbd::kChunkDone)
      .u16(nbd::kChunkBlockStatus)
      .u64(request->cookie);
  const size_t length_at = scratch_.size();
  w.u32(0).u32(kAllocationId);
  const auto written = [&](uint64_t at) {
    const uint64_t sector = (at - request->offset_bytes) / kSectorBytes;
    return (request->status_bits[sector / 8] >> (sector % 8)) & 1;
  };
  uint32_t extents = 0;
  for (uint64_t at = begin; at < end && extents < (one ? 1 : kExtentsMax); ++extents) {
    const auto state = written(at);
    uint64_t to = at / kSectorBytes * kSectorBytes + kSectorBytes;
    while (to < end && written(to) == state) to += kSectorBytes;
    to = std::min(to, end);
    w.u32(static_cast<uint32_t>(to - at)).u32(state ? 0 : nbd::kStateHole | nbd::kStateZero);
    at = to;
  }
  std::vector<std::byte> length;
  nbd::BigWriter(length).u32(static_cast<uint32_t>(scratch_.size() - length_at - 4));
  std::copy(length.begin(), length.end(), scratch_.begin() + static_cast<ptrdiff_t>(length_at));
  transmit_.append(scratch_);
  release(request);
}

}  // namespace curve::exports
