// R3 as a table: what lies where the next append should be, against what was promised about it.
// docs/formats/wal.md has the same table with the reasons; both change in one commit. Not for users
// of the WAL.
#pragma once

#include <cstdint>
#include <string_view>

namespace curve::wal {

// What recovery finds at the place of append `sequence`, `sequence - 1` being the last one taken.
enum class Found : uint8_t {
  kNext = 0,  // genuine, that sequence, links to the last one taken (here, or at the start of the
              // next segment)
  kNothing = 1,     // zeros: never written in this lap or the first
  kStale = 2,       // a whole append of an earlier generation or of an earlier lap
  kUnreadable = 3,  // anything else: bad CRC, a torn header, old payload bytes, a read error
  kWrongLink =
      4,  // genuine by position and generation, but not the continuation of the last one taken
  kTornPayload = 5,  // kNext, but an inline payload does not match its CRCs (looked at only where
                     // not promised)
};
inline constexpr int kFoundCount = 6;

// What is known to have been said about that append.
enum class Promise : uint8_t {
  kNone =
      0,  // no genuine append has a watermark that covers it, and it is in the anchor's generation
  kWatermark =
      1,  // some genuine append (of this or a later generation) has a watermark that covers it
  kAnchor = 2,  // the anchor knows that an earlier recovery took it
};
inline constexpr int kPromiseCount = 3;

enum class Action : uint8_t {
  kTake = 0,    // it is part of the log
  kEnd = 1,     // the log ends before it; what may lie behind was in flight and nobody was told: a
                // torn tail if there is any
  kDamage = 2,  // report damage; go on at the next genuine append
  kTakeDamaged = 3,  // report damage; it stays in the log: its record is whole, its payload is not
};

inline constexpr Action kRecoveryTable[kFoundCount][kPromiseCount] = {
    // kNone           kWatermark         kAnchor
    {Action::kTake, Action::kTake, Action::kTake},        // kNext
    {Action::kEnd, Action::kDamage, Action::kDamage},     // kNothing
    {Action::kEnd, Action::kDamage, Action::kDamage},     // kStale
    {Action::kEnd, Action::kDamage, Action::kDamage},     // kUnreadable
    {Action::kEnd, Action::kDamage, Action::kDamage},     // kWrongLink
    {Action::kEnd, Action::kTake, Action::kTakeDamaged},  // kTornPayload
};

inline constexpr Action recovery_action(Found found, Promise promise) {
  return kRecoveryTable[static_cast<int>(found)][static_cast<int>(promise)];
}

inline constexpr std::string_view found_name(Found found) {
  constexpr std::string_view kNames[kFoundCount] = {
      "the next append",
      "zeros",
      "an append of an earlier time",
      "no readable append",
      "an append that does not continue the one before",
      "a payload that does not match its CRC"};
  return kNames[static_cast<int>(found)];
}

}  // namespace curve::wal
