// CRC32C (Castagnoli, RFC 3720 appendix B.4). Uses SSE4.2 / ARMv8 CRC where the machine has it,
// tables elsewhere. Invariant: crc32c("123456789") == 0xe3069283. Never blocks, any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace curve::base {

// `seed` is the CRC of the bytes before (0 at the start): crc32c(b, crc32c(a)) == crc32c(a + b).
uint32_t crc32c(std::span<const std::byte> bytes, uint32_t seed = 0);
uint32_t crc32c_table(std::span<const std::byte> bytes,
                      uint32_t seed = 0);  // the naive twin, for tests
// CRC32C of one sector (kSectorBytes) of zeros.
uint32_t crc32c_zero_sector();

}  // namespace curve::base
