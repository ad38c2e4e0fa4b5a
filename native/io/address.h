// Text of an Address <-> socket address. Numeric only: names are resolved by whoever writes
// configurations, because resolving blocks. Never blocks, any thread.
#pragma once

#include <sys/socket.h>

#include <string>

#include "native/base/status.h"
#include "native/io/io.h"

namespace curve::io {

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t bytes = 0;
  int family() const { return storage.ss_family; }
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
};

// "127.0.0.1:7000", "[::1]:7000", "unix:/path". kInvalid with a sentence otherwise.
Result<SocketAddress> parse_address(const std::string& text);
std::string address_text(const SocketAddress& address);

}  // namespace curve::io
