// Heads of log entries of a copyset (docs/formats/wal.md, "Entries of a copyset"). Logical: no
// place on any disk (R4). Fixed structs, little-endian; a head that does not decode is damage. Any
// thread.
#pragma once

#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <vector>

#include "native/base/types.h"

namespace curve::copyset {

enum class CommandType : uint8_t {
  kWrite = 1,
  kZero = 2,
  kFence = 3,
  kDeleteVolume = 4,
  kDigest = 5,  // changes nothing: every replica says what the chunk holds at this index (scrub.h)
};

// kWrite: `sectors` sectors of payload from `first_sector` on. kZero: the same range reads as
// zeros, space may be given back.
struct RangeCommand {
  CommandType type = CommandType::kWrite;
  // 1: the leader writes again what it holds, because replicas differ: of no attachment, so that
  // only a deleted volume refuses it.
  uint8_t restores = 0;
  uint8_t reserved[2] = {};
  uint32_t chunk = 0;
  VolumeId volume = 0;
  Epoch epoch = 0;            // R12: checked again when applied
  uint32_t first_sector = 0;  // in the chunk
  uint32_t sectors = 0;
};
static_assert(sizeof(RangeCommand) == 32);

// kFence: then `revoked` x u64. kDeleteVolume: floor and ceiling at infinity, nothing revoked.
struct FenceCommand {
  CommandType type = CommandType::kFence;
  uint8_t reserved[3] = {};
  uint32_t revoked = 0;
  VolumeId volume = 0;
  Epoch floor = 0;
  Epoch ceiling = 0;
};
static_assert(sizeof(FenceCommand) == 32);

struct DigestCommand {
  CommandType type = CommandType::kDigest;
  uint8_t verify = 0;  // 1: and reads it from its device
  uint8_t reserved[2] = {};
  uint32_t chunk = 0;
  VolumeId volume = 0;
  uint64_t id = 0;  // of the comparison, at the store that asks
  StoreId asker;
};
static_assert(sizeof(DigestCommand) == 40);

template <class T>
std::optional<T> decode_command(std::span<const std::byte> head) {
  if (head.size() < sizeof(T)) return std::nullopt;
  T out;
  std::memcpy(&out, head.data(), sizeof(T));
  return out;
}

inline std::optional<CommandType> command_type(std::span<const std::byte> head) {
  if (head.empty()) return std::nullopt;
  const auto type = static_cast<CommandType>(head[0]);
  if (type < CommandType::kWrite || type > CommandType::kDigest) return std::nullopt;
  return type;
}

// A range command whose range lies in its chunk.
inline std::optional<RangeCommand> decode_range(std::span<const std::byte> head) {
  auto command = decode_command<RangeCommand>(head);
  if (!command || command->sectors == 0 || command->first_sector >= kSectorsPerChunk ||
      command->sectors > kSectorsPerChunk - command->first_sector) {
    return std::nullopt;
  }
  return command;
}

}  // namespace curve::copyset
