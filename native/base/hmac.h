// HMAC-SHA256 (RFC 2104, FIPS 198-1), comparison in constant time and random bytes, by OpenSSL's
// libcrypto. For handshakes: allocates, not for the I/O path. Any thread. Stops the process where
// libcrypto fails: there is no way to go on without it that keeps promises.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>

namespace curve::base {

using Digest = std::array<uint8_t, 32>;

// Of the concatenation of `parts`. Callers frame their parts: lengths are not mixed in.
Digest hmac_sha256(std::span<const std::byte> key,
                   std::initializer_list<std::span<const std::byte>> parts);
// False when the sizes differ; else takes time that depends only on the size.
bool constant_time_equal(std::span<const std::byte> a, std::span<const std::byte> b);
inline bool constant_time_equal(const Digest& a, const Digest& b) {
  return constant_time_equal(std::as_bytes(std::span(a)), std::as_bytes(std::span(b)));
}
// Fit for keys and nonces.
void secure_random(std::span<std::byte> out);

}  // namespace curve::base
