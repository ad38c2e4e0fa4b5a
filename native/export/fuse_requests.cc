// What the kernel asks of the file system: one directory, one file, and the I/O on it.
#include <fcntl.h>

#include <algorithm>
#include <cerrno>

#include "native/base/log.h"
#include "native/base/types.h"
#include "native/export/fuse_export.h"

namespace curve::exports {
namespace {

using client::IoType;

constexpr uint64_t kStatusBytes = 4096;  // a bit for each sector: 128 MiB are looked at at once

int error_of(Code code) {
  switch (code) {
    case Code::kOk:
      return 0;
    case Code::kNoSpace:
      return ENOSPC;
    case Code::kReadOnly:
      return EROFS;
    case Code::kInvalid:
      return EINVAL;
    default:
      return EIO;
  }
}

std::string_view text_of(std::span<const std::byte> bytes) {
  const auto* text = reinterpret_cast<const char*>(bytes.data());
  return {text, strnlen(text, bytes.size())};
}

}  // namespace

void FuseExport::handle(Request* request, const fuse::Message& message, size_t data_bytes) {
  switch (message.head.opcode) {
    case FUSE_INIT:
      return init(request, message);
    case FUSE_READ:
      return read(request, message);
    case FUSE_WRITE:
      return write(request, message, data_bytes);
    case FUSE_FLUSH:
    case FUSE_FSYNC:
      return submit(request, IoType::kFlush, 0, 0);
    case FUSE_FALLOCATE:
      return allocate(request, message);
    case FUSE_LOOKUP:
      return lookup(request, message);
    case FUSE_OPEN:
      return open(request, message);
    case FUSE_STATFS:
      return statfs(request);
    case FUSE_GETATTR: {
      fuse_attr_out out{};  // valid for no time: the file grows
      out.attr = attributes(message.head.nodeid);
      return reply_with(request, out);
    }
    case FUSE_RELEASE:
    case FUSE_DESTROY:
      return reply(request, 0);
    case FUSE_SETATTR:
      return reply(request, EPERM);
    case FUSE_FORGET:  // these have no answer
    case FUSE_BATCH_FORGET:
    case FUSE_INTERRUPT:
      return release(request);
    default:
      return reply(request, ENOSYS);
  }
}

void FuseExport::init(Request* request, const fuse::Message& message) {
  fuse_init_in in{};
  const bool taken = message.take(&in);
  fuse_init_out out{};
  out.major = FUSE_KERNEL_VERSION;
  out.minor = fuse::kMinorSpoken;
  if (taken && in.major > FUSE_KERNEL_VERSION) return reply_with(request, out);  // it asks again
  if (!taken || in.major != FUSE_KERNEL_VERSION || in.minor < fuse::kMinorMin) {
    base::log(base::LogLevel::kError, "fuse_kernel_too_old",
              {{"major", uint64_t{in.major}}, {"minor", uint64_t{in.minor}}});
    return reply(request, EPROTO);
  }
  const uint64_t offered = in.flags | uint64_t{in.flags2} << 32;
  const uint64_t wanted = FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_ASYNC_DIO | FUSE_MAX_PAGES |
                          FUSE_INIT_EXT | fuse::kHasResend;
  const uint64_t flags = offered & wanted;
  can_resend_ = flags & fuse::kHasResend;
  out.flags = static_cast<uint32_t>(flags);
  out.flags2 = static_cast<uint32_t>(flags >> 32);
  out.max_background = kInflightMax;
  out.congestion_threshold = kInflightMax;
  out.max_write = fuse::kWriteBytesMax;
  out.max_pages = fuse::kPagesMax;
  out.time_gran = 1;
  negotiated_ = true;
  reply_with(request, out);
}

fuse_attr FuseExport::attributes(uint64_t node) const {
  fuse_attr out{};
  out.ino = node;
  out.nlink = 1;
  out.blksize = kSectorBytes;
  if (node == fuse::kVolumeNode) {
    out.mode = S_IFREG | (read_only() ? 0400 : 0600);
    out.size = device_->size_bytes();
    out.blocks = out.size / 512;
  } else {
    out.mode = S_IFDIR | 0500;
  }
  return out;
}

void FuseExport::lookup(Request* request, const fuse::Message& message) {
  if (message.head.nodeid != fuse::kRootNode || text_of(message.body) != file_) {
    return reply(request, ENOENT);
  }
  fuse_entry_out out{};
  out.nodeid = fuse::kVolumeNode;
  out.generation = 1;
  out.attr = attributes(fuse::kVolumeNode);
  reply_with(request, out);
}

void FuseExport::open(Request* request, const fuse::Message& message) {
  fuse_open_in in{};
  if (!message.take(&in)) return reply(request, EINVAL);
  if (message.head.nodeid != fuse::kVolumeNode) return reply(request, EISDIR);
  if ((in.flags & O_ACCMODE) != O_RDONLY && read_only()) return reply(request, EROFS);
  fuse_open_out out{};
  out.open_flags = FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES | FOPEN_NOFLUSH;
  reply_with(request, out);
}

void FuseExport::statfs(Request* request) {
  // The kernel's loop device takes its discard granularity from bsize: what the store gives back.
  fuse_statfs_out out{};
  out.st.bsize = out.st.frsize = kBlockBytes;
  out.st.blocks = device_->size_bytes() / kBlockBytes;
  out.st.files = 1;
  out.st.namelen = 255;
  reply_with(request, out);
}

void FuseExport::read(Request* request, const fuse::Message& message) {
  fuse_read_in in{};
  if (!message.take(&in) || in.size > fuse::kWriteBytesMax ||
      message.head.nodeid != fuse::kVolumeNode) {
    return reply(request, EINVAL);
  }
  const uint64_t size_bytes = device_->size_bytes();
  const uint64_t bytes =
      in.offset < size_bytes ? std::min<uint64_t>(in.size, size_bytes - in.offset) : 0;
  if (bytes == 0) return reply(request, 0);
  hold(request, bytes);
  request->part = {request->data.data(), bytes};
  submit(request, IoType::kRead, in.offset, bytes);
}

void FuseExport::write(Request* request, const fuse::Message& message, size_t data_bytes) {
  fuse_write_in in{};
  if (!message.take(&in) || in.size != data_bytes || data_bytes > fuse::kWriteBytesMax ||
      message.head.nodeid != fuse::kVolumeNode) {
    return reply(request, EINVAL);
  }
  if (read_only()) return reply(request, EROFS);
  const uint64_t size_bytes = device_->size_bytes();
  if (in.offset > size_bytes || data_bytes > size_bytes - in.offset) return reply(request, ENOSPC);
  fuse_write_out out{};
  out.size = in.size;
  std::memcpy(request->body.data(), &out, sizeof out);
  request->body_bytes = sizeof out;
  if (data_bytes == 0) return reply(request, 0);
  submit(request, IoType::kWrite, in.offset, data_bytes);
}

// Discard and write-zeroes, as the loop device asks for them. Parts of a sector are left to whoever
// asks: nothing that we know does.
void FuseExport::allocate(Request* request, const fuse::Message& message) {
  fuse_fallocate_in in{};
  if (!message.take(&in) || message.head.nodeid != fuse::kVolumeNode) {
    return reply(request, EINVAL);
  }
  constexpr uint32_t kPunch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  constexpr uint32_t kZero = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
  if (in.mode != kPunch && in.mode != kZero) return reply(request, EOPNOTSUPP);
  if (read_only()) return reply(request, EROFS);
  const uint64_t size_bytes = device_->size_bytes();
  if (in.offset > size_bytes || in.length > size_bytes - in.offset) return reply(request, EINVAL);
  if (in.length == 0) return reply(request, 0);
  if (in.mode == kPunch) return submit(request, IoType::kDiscard, in.offset, in.length);
  hold(request, kStatusBytes);
  request->status_bits = reinterpret_cast<uint8_t*>(request->data.data());
  request->zero_at = request->known_from = request->known_to = in.offset;
  request->zero_end = in.offset + in.length;
  zero_on(request);
}

// What is zeroed is to stay allocated, so it is written; but what is not written reads as zeros
// already, and is left alone: a new file system's log (mkfs.xfs) costs nothing. One step at a time:
// looks at the next part of the range, or zeroes the next run of written sectors in it.
void FuseExport::zero_on(Request* request) {
  const auto end_of_sector = [](uint64_t at) { return (at / kSectorBytes + 1) * kSectorBytes; };
  const auto written = [request](uint64_t at) {
    const uint64_t sector = (at - request->known_from) / kSectorBytes;
    return (request->status_bits[sector / 8] >> (sector % 8) & 1) != 0;
  };
  uint64_t at = request->zero_at;
  const uint64_t stop = std::min(request->known_to, request->zero_end);
  while (at < stop && !written(at)) at = std::min(end_of_sector(at), stop);
  if (at >= request->zero_end) return reply(request, 0);
  if (at >= stop) {
    request->zero_at = at;
    request->known_from = at / kSectorBytes * kSectorBytes;
    request->known_to = std::min(request->known_from + kStatusBytes * 8 * kSectorBytes,
                                 end_of_sector(request->zero_end - 1));
    return submit(request, IoType::kBlockStatus, request->known_from,
                  request->known_to - request->known_from);
  }
  const uint64_t from = at;
  while (at < stop && written(at)) at = std::min(end_of_sector(at), stop);
  request->zero_at = at;
  request->no_unmap = true;
  submit(request, IoType::kWriteZeroes, from, at - from);
}

void FuseExport::submit(Request* request, IoType type, uint64_t offset_bytes, uint64_t bytes) {
  request->type = type;
  request->offset_bytes = offset_bytes;
  request->bytes = bytes;
  if (type != IoType::kWriteZeroes) request->no_unmap = false;
  request->iov = {};
  request->buffers = {};
  if (type == IoType::kRead) request->iov = {&request->part, 1};
  if (type == IoType::kWrite) request->buffers = {&request->data, 1};
  request->owner = request;
  request->done = [](client::IoRequest* io) {
    auto* mine = static_cast<Request*>(io->owner);
    mine->self->done(mine);
  };
  device_->submit(request);
}

void FuseExport::done(Request* request) {
  if (request->code == Code::kOk) {
    if (request->opcode == FUSE_FALLOCATE && request->zero_end > 0) return zero_on(request);
    request->with_data = request->type == IoType::kRead;
    if (request->type == IoType::kRead) stats_.read_bytes += request->bytes;
    if (request->type == IoType::kWrite) stats_.written_bytes += request->bytes;
  }
  reply(request, error_of(request->code));
}

}  // namespace curve::exports
