// Arithmetic of majorities over at most kReplicasMax voters. Pure; each function has a naive twin
// in quorum_test.cc.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>

#include "native/raft/types.h"

namespace curve::raft {

inline size_t quorum_of(size_t voters) { return voters / 2 + 1; }

// The greatest value that a majority of `values` reaches. 0 when there are none. Reorders `values`.
inline uint64_t quorum_value(std::span<uint64_t> values) {
  if (values.empty()) return 0;
  for (size_t i = 1; i < values.size(); ++i) {  // insertion sort, falling
    const uint64_t v = values[i];
    size_t j = i;
    for (; j > 0 && values[j - 1] < v; --j) values[j] = values[j - 1];
    values[j] = v;
  }
  return values[quorum_of(values.size()) - 1];
}

enum class Answer : uint8_t { kNone, kGranted, kGrantedDamaged, kRejected };
enum class ElectionOutcome : uint8_t { kPending, kWon, kLost };

// R3: won with a majority of undamaged votes, or when every voter, damaged ones included, has voted
// for the candidate (a replica votes only for a log at least as good as what is left of its own).
// Lost when neither can happen any more.
inline ElectionOutcome election_outcome(std::span<const Answer> answers) {
  size_t clean = 0, damaged = 0, rejected = 0;
  for (Answer a : answers) {
    clean += a == Answer::kGranted;
    damaged += a == Answer::kGrantedDamaged;
    rejected += a == Answer::kRejected;
  }
  const size_t quorum = quorum_of(answers.size());
  if (answers.empty()) return ElectionOutcome::kLost;
  if (clean >= quorum || clean + damaged == answers.size()) return ElectionOutcome::kWon;
  const bool clean_possible = answers.size() - rejected - damaged >= quorum;
  return clean_possible || rejected == 0 ? ElectionOutcome::kPending : ElectionOutcome::kLost;
}

// Digest of a set of leads (R9): a sum, so that it follows each change in O(1) and does not depend
// on order.
inline uint64_t lead_digest(const Lead& lead) {
  return mix64(mix64(lead.group) ^ (lead.term * 0x9e3779b97f4a7c15ull));
}

}  // namespace curve::raft
