// copyset::StoreNode for Cython.
#pragma once

#include <unistd.h>

#include "curve_py/_native/glue.h"
#include "native/copyset/inspect.h"
#include "native/copyset/store_node.h"

namespace curve::glue {

inline Outcome store_format(const std::string& wal, const std::string& data, const StoreId& store, const StoreId& cluster,
                            uint64_t data_bytes, uint64_t wal_bytes, bool zeroed, bool force) {
  copyset::StoreFormat format;
  format.store = store;
  format.cluster = cluster;
  format.data_bytes = data_bytes;
  format.wal_bytes = wal_bytes;
  format.zeroed = zeroed;
  format.force = force;
  return copyset::StoreNode::format({wal, data}, format);
}

inline bool store_exists(const std::string& data, bool& exists, Error& error) {
  auto found = copyset::StoreNode::exists({{}, data});
  if (found) exists = *found;
  else error = found.error();
  return found.ok();
}

// Tuning by name; false: unknown name.
inline bool store_option(copyset::ServerOptions& options, const std::string& name, uint64_t value) {
  if (name == "lease_ms") options.raft.lease_ns = value * 1'000'000;
  else if (name == "beat_ms") options.raft.beat_interval_ns = value * 1'000'000;
  else if (name == "election_min_ms") options.raft.election_min_ns = value * 1'000'000;
  else if (name == "election_max_ms") options.raft.election_max_ns = value * 1'000'000;
  else if (name == "checkpoint_interval_ms") options.checkpoint_interval_ns = value * 1'000'000;
  else if (name == "checkpoint_idle_ms") options.checkpoint_idle_ns = value * 1'000'000;
  else if (name == "background_blocks_max") options.background_blocks_max = static_cast<uint32_t>(value);
  else if (name == "scrub_bytes_per_second") options.scrub_bytes_per_second = value;
  else if (name == "scrub_interval_s") options.scrub_interval_ns = value * 1'000'000'000;
  else if (name == "wal_inflight_appends_max") options.wal.inflight_appends_max = static_cast<uint32_t>(value);
  else return false;
  return true;
}

inline bool store_open(const std::string& wal, const std::string& data, const std::string& listen, const std::string& secret,
                       const copyset::ServerOptions& options, std::unique_ptr<copyset::StoreNode>& into, Error& error) {
  const auto key = to_bytes(secret);
  return take(copyset::StoreNode::open({wal, data}, listen, key, options), into, error);
}

inline replica::Genesis genesis(CopysetId id, const std::vector<StoreId>& stores, const std::vector<int>& learners,
                                const StoreId& preferred) {
  replica::Genesis out;
  out.group = id;
  out.config.count = static_cast<uint8_t>(std::min(stores.size(), kReplicasMax));
  for (size_t i = 0; i < out.config.count; ++i) {
    out.config.members[i] = {stores[i], learners[i] ? raft::MemberRole::kLearner : raft::MemberRole::kVoter};
  }
  out.config.preferred = preferred;
  return out;
}
inline copyset::CheckRequest check_request(uint64_t volume, uint64_t placement, uint32_t chunks, uint32_t copysets,
                                           uint64_t copyset) {
  return {volume, placement, chunks, copysets, copyset};
}
inline copyset::TraceRequest trace_request(uint64_t volume, uint64_t duration_ns) { return {volume, duration_ns}; }
// Count, sum, maximum, then lower bound and count of each bucket that holds something.
inline std::vector<uint64_t> trace_stage(const copyset::TraceReport& report, size_t stage) {
  const base::Histogram& times = report.stages[stage];
  std::vector<uint64_t> out = {times.count(), times.sum_ns(), times.max_ns()};
  for (size_t bucket = 0; bucket < base::Histogram::kBuckets; ++bucket) {
    if (times.bucket_count(bucket) == 0) continue;
    out.push_back(base::Histogram::lower_ns(bucket));
    out.push_back(times.bucket_count(bucket));
  }
  return out;
}
// What of `now` differs from `before`, by position, and which copysets of `before` are no more. Both
// are in the order of ids.
struct CopysetChanges {
  std::vector<size_t> changed;
  std::vector<CopysetId> gone;
};
inline CopysetChanges copyset_changes(const copyset::ServerStatus& before, const copyset::ServerStatus& now) {
  CopysetChanges out;
  size_t b = 0;
  for (size_t n = 0; n < now.copysets.size(); ++n) {
    const CopysetId id = now.copysets[n].copyset;
    for (; b < before.copysets.size() && before.copysets[b].copyset < id; ++b) out.gone.push_back(before.copysets[b].copyset);
    const bool known = b < before.copysets.size() && before.copysets[b].copyset == id;
    if (!known || !(before.copysets[b] == now.copysets[n])) out.changed.push_back(n);
    b += known;
  }
  for (; b < before.copysets.size(); ++b) out.gone.push_back(before.copysets[b].copyset);
  return out;
}
inline std::string code_text(Code code) { return std::string(code_name(code)); }
inline bool store_inspect(const std::string& wal, const std::string& data, std::string& into, Error& error) {
  auto text = copyset::inspect_store({wal, data});
  if (text) into = *text;
  else error = text.error();
  return text.ok();
}
// One JSON object per line into `descriptor`. A reader that has gone ends it.
inline bool store_dump_wal(const std::string& wal, const std::string& data, int descriptor, Error& error) {
  std::string waiting;
  auto flush = [&] {
    size_t at = 0;
    while (at < waiting.size()) {
      const ssize_t done = ::write(descriptor, waiting.data() + at, waiting.size() - at);
      if (done <= 0) return false;
      at += static_cast<size_t>(done);
    }
    waiting.clear();
    return true;
  };
  const auto outcome = copyset::dump_wal({wal, data}, [&](const std::string& line) {
    waiting += line + '\n';
    return waiting.size() < 65536 || flush();
  });
  flush();
  if (!outcome) error = outcome.error();
  return outcome.ok();
}
inline std::vector<uint64_t> latency_bounds() {
  return {base::Latency::kBoundsUs.begin(), base::Latency::kBoundsUs.end()};
}
inline std::vector<uint64_t> latency_counts(const base::Latency& latency) {
  return {latency.counts.begin(), latency.counts.end()};
}
inline int event_type(const copyset::StoreEvent& event) { return static_cast<int>(event.type); }
inline copyset::MemberOrder member_order(CopysetId copyset, int change, const StoreId& store, uint32_t voters_min) {
  return {copyset, static_cast<copyset::MemberChange>(change), store, voters_min};
}
inline std::vector<StoreId> members_of(const copyset::StoreEvent& event, int role) {
  std::vector<StoreId> out;
  for (size_t i = 0; i < event.config.count; ++i) {
    if (static_cast<int>(event.config.members[i].role) == role) out.push_back(event.config.members[i].store);
  }
  return out;
}
inline int progress_role(const raft::Progress& progress) { return static_cast<int>(progress.role); }
inline int role_number(const copyset::CopysetStatus& status) { return static_cast<int>(status.role); }

}  // namespace curve::glue
