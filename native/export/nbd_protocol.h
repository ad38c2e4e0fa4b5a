// Numbers of the NBD protocol (the "NBD protocol" document of the NetworkBlockDevice project, fixed
// newstyle negotiation) and its big-endian codecs. Pure, any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace curve::exports::nbd {

inline constexpr uint64_t kMagic = 0x4e42444d41474943;        // "NBDMAGIC"
inline constexpr uint64_t kOptionMagic = 0x49484156454f5054;  // "IHAVEOPT"
inline constexpr uint64_t kOptionReplyMagic = 0x0003e889045565a9;
inline constexpr uint32_t kRequestMagic = 0x25609513;
inline constexpr uint32_t kSimpleReplyMagic = 0x67446698;
inline constexpr uint32_t kStructuredReplyMagic = 0x668e33ef;
inline constexpr uint32_t kRequestBytes = 28, kOptionHeaderBytes = 16;

enum HandshakeFlag : uint16_t { kFixedNewstyle = 1, kNoZeroes = 2 };
enum Option : uint32_t {
  kExportName = 1,
  kAbort = 2,
  kList = 3,
  kStartTls = 5,
  kInfo = 6,
  kGo = 7,
  kStructuredReply = 8,
  kListMetaContext = 9,
  kSetMetaContext = 10,
};
enum OptionReply : uint32_t {
  kAck = 1,
  kServer = 2,
  kInfoReply = 3,
  kMetaContextReply = 4,
  kErrorUnsupported = 0x80000001,
  kErrorInvalid = 0x80000003,
  kErrorUnknown = 0x80000006,
  kErrorTooBig = 0x80000009,
};
enum Info : uint16_t { kInfoExport = 0, kInfoName = 1, kInfoDescription = 2, kInfoBlockSize = 3 };
enum TransmissionFlag : uint16_t {
  kHasFlags = 1,
  kReadOnly = 2,
  kSendFlush = 4,
  kSendFua = 8,
  kSendTrim = 32,
  kSendWriteZeroes = 64,
  kSendDf = 128,
  kCanMultiConn = 256,
  kSendFastZero = 2048,
};
enum Command : uint16_t {
  kRead = 0,
  kWrite = 1,
  kDisconnect = 2,
  kFlush = 3,
  kTrim = 4,
  kWriteZeroes = 6,
  kBlockStatus = 7,
};
enum CommandFlag : uint16_t { kFua = 1, kNoHole = 2, kDf = 4, kReqOne = 8, kFastZero = 16 };
enum Chunk : uint16_t {
  kChunkNone = 0,
  kChunkOffsetData = 1,
  kChunkBlockStatus = 5,
  kChunkError = 0x8001
};
inline constexpr uint16_t kChunkDone = 1;
enum ErrorNumber : uint32_t {
  kOk = 0,
  kEperm = 1,
  kEio = 5,
  kEinval = 22,
  kEnospc = 28,
  kEoverflow = 75,
  kEnotsup = 95,
  kEshutdown = 108,
};
inline constexpr uint32_t kStateHole = 1, kStateZero = 2;  // base:allocation

class BigWriter {
 public:
  explicit BigWriter(std::vector<std::byte>& out) : out_(out) {}
  BigWriter& u16(uint16_t v) { return number(v, 2); }
  BigWriter& u32(uint32_t v) { return number(v, 4); }
  BigWriter& u64(uint64_t v) { return number(v, 8); }
  BigWriter& text(std::string_view s) {
    for (char c : s) out_.push_back(static_cast<std::byte>(c));
    return *this;
  }

 private:
  BigWriter& number(uint64_t v, int bytes) {
    while (bytes-- > 0) out_.push_back(static_cast<std::byte>(v >> (8 * bytes)));
    return *this;
  }
  std::vector<std::byte>& out_;
};

// Like base::Reader: after the first short read ok() is false and everything is 0.
class BigReader {
 public:
  explicit BigReader(std::span<const std::byte> bytes) : bytes_(bytes) {}
  uint16_t u16() { return static_cast<uint16_t>(number(2)); }
  uint32_t u32() { return static_cast<uint32_t>(number(4)); }
  uint64_t u64() { return number(8); }
  std::string_view text(size_t count) {
    if (left() < count) return fail(), std::string_view();
    const auto part = bytes_.subspan(at_, count);
    at_ += count;
    return {reinterpret_cast<const char*>(part.data()), part.size()};
  }
  size_t left() const { return bytes_.size() - at_; }
  bool ok() const { return ok_; }
  bool done() const { return ok_ && left() == 0; }

 private:
  void fail() {
    ok_ = false;
    at_ = bytes_.size();
  }
  uint64_t number(size_t count) {
    if (left() < count) return fail(), 0;
    uint64_t v = 0;
    for (size_t i = 0; i < count; ++i) v = v << 8 | static_cast<uint64_t>(bytes_[at_++]);
    return v;
  }
  std::span<const std::byte> bytes_;
  size_t at_ = 0;
  bool ok_ = true;
};

}  // namespace curve::exports::nbd
