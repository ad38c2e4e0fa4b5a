// Checks, history and encoding of configurations.
#include "native/raft/config.h"

#include "native/base/bytes.h"
#include "native/raft/group.h"

namespace curve::raft {
namespace {

constexpr uint8_t kConfigVersion = 1;

// `to` is `from` without its member at `gap`.
bool removed_at(const Config& from, const Config& to, size_t gap) {
  for (size_t i = 0, j = 0; i < from.count; ++i) {
    if (i == gap) continue;
    if (!(from.members[i] == to.members[j++])) return false;
  }
  return true;
}

bool members_equal(const Config& a, const Config& b) {
  if (a.count != b.count) return false;
  for (size_t i = 0; i < a.count; ++i) {
    if (!(a.members[i] == b.members[i])) return false;
  }
  return true;
}

}  // namespace

const Member* find_member(const Config& config, const StoreId& store) {
  for (size_t i = 0; i < config.count; ++i) {
    if (config.members[i].store == store) return &config.members[i];
  }
  return nullptr;
}

size_t voters_in(const Config& config) {
  size_t voters = 0;
  for (size_t i = 0; i < config.count; ++i) voters += config.members[i].role == MemberRole::kVoter;
  return voters;
}

bool well_formed(const Config& config) {
  if (config.count > kReplicasMax) return false;
  for (size_t i = 0; i < config.count; ++i) {
    if (config.members[i].store.is_none()) return false;
    for (size_t j = 0; j < i; ++j) {
      if (config.members[i].store == config.members[j].store) return false;
    }
  }
  return true;
}

bool single_step(const Config& from, const Config& to) {
  if (!well_formed(to) || voters_in(to) == 0) return false;
  if (!to.preferred.is_none() && !find_member(to, to.preferred)) return false;
  if (to.count == from.count + 1) {  // a learner joins, at the end
    const Member& added = to.members[to.count - 1];
    return added.role == MemberRole::kLearner && removed_at(to, from, to.count - 1) &&
           to.preferred == from.preferred;
  }
  if (to.count + 1 == from.count) {
    for (size_t gap = 0; gap < from.count; ++gap) {
      const bool was_preferred = from.members[gap].store == from.preferred;
      if (removed_at(from, to, gap) && (to.preferred == from.preferred || was_preferred))
        return true;
    }
    return false;
  }
  if (to.count != from.count) return false;
  size_t promoted = 0;
  for (size_t i = 0; i < from.count; ++i) {
    if (from.members[i] == to.members[i]) continue;
    if (!(from.members[i].store == to.members[i].store)) return false;
    if (to.members[i].role != MemberRole::kVoter) return false;
    ++promoted;
  }
  const bool wished = !(from.preferred == to.preferred);
  return promoted + (wished ? 1 : 0) == 1;
}

bool ConfigHistory::roll_back(Index index) {
  bool changed = false;
  while (steps_.size() > 1 && steps_.back().index > index) {
    const Config gone = steps_.back().config;
    steps_.pop_back();
    changed |= !members_equal(gone, steps_.back().config) ||
               !(gone.preferred == steps_.back().config.preferred);
  }
  return changed;
}

void ConfigHistory::settle(Index commit) {
  size_t useless = 0;
  while (useless + 1 < steps_.size() && steps_[useless + 1].index <= commit) ++useless;
  steps_.erase(steps_.begin(), steps_.begin() + static_cast<ptrdiff_t>(useless));
}

bool ConfigHistory::may_vote(const StoreId& store) const {
  for (const Step& step : steps_) {
    if (is_voter(step.config, store)) return true;
  }
  return false;
}

std::vector<std::byte> encode_config(const Config& config) {
  std::vector<std::byte> out;
  base::Writer writer(out);
  writer.put(kConfigVersion);
  writer.put(config.count);
  writer.put(config.preferred);
  for (size_t i = 0; i < config.count; ++i) {
    writer.put(config.members[i].store);
    writer.put(static_cast<uint8_t>(config.members[i].role));
  }
  return out;
}

Result<Config> decode_config(std::span<const std::byte> bytes) {
  base::Reader reader(bytes);
  Config config;
  if (reader.get<uint8_t>() != kConfigVersion) {
    return Error{Code::kVersion, "group configuration: unknown version"};
  }
  config.count = reader.get<uint8_t>();
  config.preferred = reader.store_id();
  if (config.count > kReplicasMax) {
    return Error{Code::kInvalid, "group configuration: more members than a group may have"};
  }
  for (size_t i = 0; i < config.count; ++i) {
    config.members[i].store = reader.store_id();
    const uint8_t role = reader.get<uint8_t>();
    if (role > static_cast<uint8_t>(MemberRole::kLearner)) {
      return Error{Code::kInvalid, "group configuration: unknown member role"};
    }
    config.members[i].role = static_cast<MemberRole>(role);
  }
  if (!reader.done() || !well_formed(config)) {
    return Error{Code::kInvalid, "group configuration: malformed"};
  }
  return config;
}

}  // namespace curve::raft
