// Small C++ conversions for the Cython modules, so that templates and enums of the core need no Cython declarations.
#pragma once

#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "native/base/status.h"
#include "native/base/types.h"

namespace curve::glue {

inline StoreId store_id_from(const char* bytes) {
  StoreId id;
  std::memcpy(id.bytes.data(), bytes, id.bytes.size());
  return id;
}
inline std::string store_id_bytes(const StoreId& id) {
  return std::string(reinterpret_cast<const char*>(id.bytes.data()), id.bytes.size());
}
inline int code_number(Code code) { return static_cast<int>(code); }
inline std::vector<std::byte> to_bytes(const std::string& from) {
  const auto* begin = reinterpret_cast<const std::byte*>(from.data());
  return {begin, begin + from.size()};
}

// Unwraps a Result of a unique_ptr or a value: the value, or the error in `error`.
template <class T>
bool take(Result<T>&& result, T& into, Error& error) {
  if (!result) {
    error = std::move(result.error());
    return false;
  }
  into = std::move(*result);
  return true;
}

}  // namespace curve::glue
