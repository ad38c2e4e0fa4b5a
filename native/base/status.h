// Errors as values. `Code` travels on the I/O path and on the wire (its numbers are format,
// docs/formats/wire.md); `Error` adds a sentence for people and is for start-up, control and tests
// only (it allocates).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace curve {

enum class Code : uint16_t {
  kOk = 0,
  kNotLeader = 1,    // hint says who may lead
  kWrongTerm = 2,    // R13: the request was meant for another term
  kFenced = 3,       // R12: the epoch is not valid (any more)
  kNoVolume = 4,     // R12: this copyset has no record of the volume
  kNoSpace = 5,      // R8
  kInvalid = 6,      // malformed or out of bounds
  kBadChecksum = 7,  // payload does not match its CRC32C
  kBusy = 8,         // queue full; try again
  kNoCopyset = 9,    // this store holds no replica of the copyset
  kShuttingDown = 10,
  kIo = 11,       // the device answered with an error
  kCorrupt = 12,  // damage on disk
  kTimeout = 13,
  kDisconnected = 14,
  kUnauthenticated = 15,
  kVersion = 16,  // unknown format or protocol version
  kNotFound = 17,
  kExists = 18,
  kLocked = 19,  // another process holds the store
  kReadOnly = 20,
  kCancelled = 21,
  kDropped = 22,  // a proposal was lost with leadership: it may or may not have happened
};
std::string_view code_name(Code code);

struct [[nodiscard]] Error {
  Code code = Code::kInvalid;
  std::string message;  // one sentence: what is wrong, where (structure, offset), what to do
};

// Either a T or an Error. Like std::expected of C++23.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}
  explicit operator bool() const { return state_.index() == 0; }
  bool ok() const { return state_.index() == 0; }
  T& operator*() { return std::get<0>(state_); }
  const T& operator*() const { return std::get<0>(state_); }
  T* operator->() { return &std::get<0>(state_); }
  const T* operator->() const { return &std::get<0>(state_); }
  Error& error() { return std::get<1>(state_); }
  const Error& error() const { return std::get<1>(state_); }

 private:
  std::variant<T, Error> state_;
};

// No value: ok, or an Error.
class [[nodiscard]] Outcome {
 public:
  Outcome() = default;
  Outcome(Error error) : error_(std::move(error)) {}
  explicit operator bool() const { return !error_; }
  bool ok() const { return !error_; }
  Error& error() { return *error_; }
  const Error& error() const { return *error_; }

 private:
  std::optional<Error> error_;
};

}  // namespace curve
