// CRC32C in hardware where the machine has it. A CRC instruction has a latency of three cycles and
// a throughput of one, so three lanes are computed at once and joined: crc(a + b) = shift(crc(a),
// len(b)) ^ crc(b) with a linear `shift` that is kept as tables for the two lane lengths (Gopal et
// al., "Fast CRC Computation for iSCSI Polynomial Using CRC32 Instruction", Intel 2011). 1360 bytes
// a lane make one sector with 16 bytes to spare.
#include "native/base/crc32c.h"

#include <array>
#include <cstring>

#include "native/base/types.h"

#if defined(__x86_64__)
#include <nmmintrin.h>
#define CURVE_CRC_TARGET __attribute__((target("sse4.2")))
#elif defined(__aarch64__)
#include <sys/auxv.h>
#if defined(__clang__)
#define CURVE_CRC_TARGET __attribute__((target("crc")))
#define CURVE_CRC_ARM8 __builtin_arm_crc32cd
#define CURVE_CRC_ARM1 __builtin_arm_crc32cb
#else
#define CURVE_CRC_TARGET __attribute__((target("+crc")))
#define CURVE_CRC_ARM8 __builtin_aarch64_crc32cx
#define CURVE_CRC_ARM1 __builtin_aarch64_crc32cb
#endif
#endif

namespace curve::base {
namespace {

constexpr uint32_t kPolynomial = 0x82f63b78;  // reflected
constexpr size_t kLaneBytesLong = 1360;
constexpr size_t kLaneBytesShort = 128;

using Table = std::array<uint32_t, 256>;

constexpr Table make_byte_table() {
  Table table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (crc & 1 ? kPolynomial : 0);
    table[i] = crc;
  }
  return table;
}
constexpr Table kByteTable = make_byte_table();

// The effect of `bytes` zero bytes on a CRC register: linear, so one table per register byte.
using Shift = std::array<Table, 4>;

constexpr Shift make_shift(size_t bytes) {
  std::array<uint32_t, 32> column{};  // image of each register bit
  for (int bit = 0; bit < 32; ++bit) {
    uint32_t crc = 1u << bit;
    for (size_t i = 0; i < bytes; ++i) crc = (crc >> 8) ^ kByteTable[crc & 255];
    column[bit] = crc;
  }
  Shift shift{};
  for (int part = 0; part < 4; ++part) {
    for (uint32_t value = 0; value < 256; ++value) {
      uint32_t image = 0;
      for (int bit = 0; bit < 8; ++bit) image ^= value >> bit & 1 ? column[part * 8 + bit] : 0;
      shift[part][value] = image;
    }
  }
  return shift;
}

uint32_t update_table(const std::byte* data, size_t bytes, uint32_t crc) {
  for (size_t i = 0; i < bytes; ++i) {
    crc = (crc >> 8) ^ kByteTable[(crc ^ static_cast<uint32_t>(data[i])) & 255];
  }
  return crc;
}

#if defined(CURVE_CRC_TARGET)

uint64_t load64(const std::byte* data) {
  uint64_t value;
  std::memcpy(&value, data, sizeof value);
  return value;
}

CURVE_CRC_TARGET inline uint32_t step8(uint32_t crc, uint64_t value) {
#if defined(__x86_64__)
  return static_cast<uint32_t>(_mm_crc32_u64(crc, value));
#else
  return CURVE_CRC_ARM8(crc, value);
#endif
}

CURVE_CRC_TARGET inline uint32_t step1(uint32_t crc, std::byte value) {
#if defined(__x86_64__)
  return _mm_crc32_u8(crc, static_cast<uint8_t>(value));
#else
  return CURVE_CRC_ARM1(crc, static_cast<uint8_t>(value));
#endif
}

bool have_instruction() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("sse4.2");
#else
  return getauxval(AT_HWCAP) & (1 << 7);  // HWCAP_CRC32
#endif
}

constexpr Shift kShiftLong = make_shift(kLaneBytesLong);
constexpr Shift kShiftShort = make_shift(kLaneBytesShort);

inline uint32_t shifted(const Shift& shift, uint32_t crc) {
  return shift[0][crc & 255] ^ shift[1][crc >> 8 & 255] ^ shift[2][crc >> 16 & 255] ^
         shift[3][crc >> 24];
}

// Consumes groups of three lanes while they fit.
template <size_t kLaneBytes>
CURVE_CRC_TARGET inline uint32_t three_lanes(const Shift& shift, const std::byte*& data,
                                             size_t& bytes, uint32_t crc) {
  static_assert(kLaneBytes % 8 == 0);
  while (bytes >= 3 * kLaneBytes) {
    uint32_t second = 0, third = 0;
    for (size_t at = 0; at < kLaneBytes; at += 8) {
      crc = step8(crc, load64(data + at));
      second = step8(second, load64(data + kLaneBytes + at));
      third = step8(third, load64(data + 2 * kLaneBytes + at));
    }
    crc = shifted(shift, crc) ^ second;
    crc = shifted(shift, crc) ^ third;
    data += 3 * kLaneBytes;
    bytes -= 3 * kLaneBytes;
  }
  return crc;
}

CURVE_CRC_TARGET uint32_t update_instruction(const std::byte* data, size_t bytes, uint32_t crc) {
  crc = three_lanes<kLaneBytesLong>(kShiftLong, data, bytes, crc);
  crc = three_lanes<kLaneBytesShort>(kShiftShort, data, bytes, crc);
  for (; bytes >= 8; data += 8, bytes -= 8) crc = step8(crc, load64(data));
  for (; bytes > 0; ++data, --bytes) crc = step1(crc, *data);
  return crc;
}

#endif

using Update = uint32_t (*)(const std::byte* data, size_t bytes, uint32_t crc);

Update choose_update() {
#if defined(CURVE_CRC_TARGET)
  if (have_instruction()) return update_instruction;
#endif
  return update_table;
}

}  // namespace

uint32_t crc32c(std::span<const std::byte> bytes, uint32_t seed) {
  static const Update update = choose_update();
  return ~update(bytes.data(), bytes.size(), ~seed);
}

uint32_t crc32c_table(std::span<const std::byte> bytes, uint32_t seed) {
  return ~update_table(bytes.data(), bytes.size(), ~seed);
}

uint32_t crc32c_zero_sector() {
  static const uint32_t crc = [] {
    const std::array<std::byte, kSectorBytes> zeros{};
    return crc32c_table(zeros);
  }();
  return crc;
}

}  // namespace curve::base
