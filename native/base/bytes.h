// Little-endian codecs for formats. Reader never reads beyond its span: after the first short read
// `ok()` is false and every further value is 0, so a parser checks once at its end. Any thread.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>
#include <vector>

#include "native/base/types.h"

namespace curve::base {

static_assert(std::endian::native == std::endian::little, "formats are little-endian");

class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : bytes_(bytes) {}
  template <class T>
  T get() {
    static_assert(std::is_trivially_copyable_v<T>);
    T value{};
    if (bytes_.size() - at_ < sizeof(T)) {
      ok_ = false;
      at_ = bytes_.size();
      return T{};
    }
    std::memcpy(&value, bytes_.data() + at_, sizeof(T));
    at_ += sizeof(T);
    return value;
  }
  StoreId store_id() { return get<StoreId>(); }
  std::span<const std::byte> raw(size_t count) {
    if (bytes_.size() - at_ < count) {
      ok_ = false;
      at_ = bytes_.size();
      return {};
    }
    auto out = bytes_.subspan(at_, count);
    at_ += count;
    return out;
  }
  size_t left() const { return bytes_.size() - at_; }
  size_t at() const { return at_; }
  bool ok() const { return ok_; }
  bool done() const { return ok_ && left() == 0; }

 private:
  std::span<const std::byte> bytes_;
  size_t at_ = 0;
  bool ok_ = true;
};

// Appends to a caller-owned vector (reuse it: no allocation once it has grown).
class Writer {
 public:
  explicit Writer(std::vector<std::byte>& out) : out_(out) {}
  template <class T>
  void put(const T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    raw({reinterpret_cast<const std::byte*>(&value), sizeof(T)});
  }
  void raw(std::span<const std::byte> bytes) {
    out_.insert(out_.end(), bytes.begin(), bytes.end());
  }
  size_t size() const { return out_.size(); }

 private:
  std::vector<std::byte>& out_;
};

}  // namespace curve::base
