// See address.h.
#include "native/io/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/un.h>

#include <charconv>
#include <cstring>

namespace curve::io {
namespace {

Error invalid(const std::string& text, const char* why) {
  return {Code::kInvalid,
          "address \"" + text + "\": " + why + "; write 127.0.0.1:7000, [::1]:7000 or unix:/path"};
}

Result<SocketAddress> parse_unix(const std::string& text) {
  const std::string path = text.substr(5);
  SocketAddress out;
  auto* address = reinterpret_cast<sockaddr_un*>(&out.storage);
  if (path.empty()) return invalid(text, "the path is empty");
  if (path.size() >= sizeof address->sun_path || path.find('\0') != std::string::npos) {
    return invalid(text, "the path of a unix socket has at most 107 bytes");
  }
  address->sun_family = AF_UNIX;
  std::memcpy(address->sun_path, path.c_str(), path.size() + 1);
  out.bytes = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + 1);
  return out;
}

}  // namespace

Result<SocketAddress> parse_address(const std::string& text) {
  if (text.rfind("unix:", 0) == 0) return parse_unix(text);
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos) return invalid(text, "there is no port");
  uint16_t port = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data() + colon + 1, end, port);
  if (error != std::errc() || stop != end) return invalid(text, "the port is not 0 to 65535");
  SocketAddress out;
  if (text[0] == '[' && colon >= 2 && text[colon - 1] == ']') {
    auto* address = reinterpret_cast<sockaddr_in6*>(&out.storage);
    if (inet_pton(AF_INET6, text.substr(1, colon - 2).c_str(), &address->sin6_addr) != 1) {
      return invalid(text, "the host is not a numeric IPv6 address");
    }
    address->sin6_family = AF_INET6;
    address->sin6_port = htons(port);
    out.bytes = sizeof *address;
    return out;
  }
  auto* address = reinterpret_cast<sockaddr_in*>(&out.storage);
  if (inet_pton(AF_INET, text.substr(0, colon).c_str(), &address->sin_addr) != 1) {
    return invalid(text, "the host is not a numeric IPv4 address");
  }
  address->sin_family = AF_INET;
  address->sin_port = htons(port);
  out.bytes = sizeof *address;
  return out;
}

std::string address_text(const SocketAddress& address) {
  char host[INET6_ADDRSTRLEN] = "";
  switch (address.family()) {
    case AF_INET: {
      const auto* in = reinterpret_cast<const sockaddr_in*>(&address.storage);
      inet_ntop(AF_INET, &in->sin_addr, host, sizeof host);
      return std::string(host) + ":" + std::to_string(ntohs(in->sin_port));
    }
    case AF_INET6: {
      const auto* in = reinterpret_cast<const sockaddr_in6*>(&address.storage);
      inet_ntop(AF_INET6, &in->sin6_addr, host, sizeof host);
      return "[" + std::string(host) + "]:" + std::to_string(ntohs(in->sin6_port));
    }
    case AF_UNIX: {
      const auto* un = reinterpret_cast<const sockaddr_un*>(&address.storage);
      const size_t header = offsetof(sockaddr_un, sun_path);
      if (address.bytes <= header || un->sun_path[0] == '\0') return "unix:";
      return "unix:" + std::string(un->sun_path, strnlen(un->sun_path, address.bytes - header));
    }
    default:
      return "unknown";
  }
}

}  // namespace curve::io
