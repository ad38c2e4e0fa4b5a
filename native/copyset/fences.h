// Which epochs of which volumes a copyset accepts (R12). Part of checkpoint and sync.
// Invariants: floor and ceiling only rise; a volume without a record is refused; a deleted volume's
// floor is infinity. One loop thread.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "native/base/bytes.h"
#include "native/base/mutant.h"
#include "native/base/status.h"
#include "native/base/types.h"

namespace curve::copyset {

inline constexpr Epoch kEpochInfinity = UINT64_MAX;

struct Fence {
  Epoch floor = 0, ceiling = 0;
  std::vector<Epoch> revoked;  // sorted, within [floor, ceiling]
};

class Fences {
 public:
  // `bytes_total`: if given, always holds the sum of encoded_bytes() of all that share it.
  explicit Fences(uint64_t* bytes_total = nullptr) : bytes_total_(bytes_total) { count(4); }
  ~Fences() { count(-encoded_bytes()); }
  Fences(const Fences&) = delete;
  Fences& operator=(const Fences&) = delete;

  void clear() {
    count(4 - encoded_bytes());
    by_volume_.clear();
    revoked_ = 0;
  }
  Code check(VolumeId volume, Epoch epoch) const {
    auto it = by_volume_.find(volume);
    if (it == by_volume_.end()) return Code::kNoVolume;
    const Fence& fence = it->second;
    if (fence.floor == kEpochInfinity) return Code::kFenced;  // deleted
    if (epoch < fence.floor || epoch > fence.ceiling) return Code::kFenced;
    return std::binary_search(fence.revoked.begin(), fence.revoked.end(), epoch) ? Code::kFenced
                                                                                 : Code::kOk;
  }
  bool deleted(VolumeId volume) const {
    auto it = by_volume_.find(volume);
    return it != by_volume_.end() && it->second.floor == kEpochInfinity;
  }
  void raise(VolumeId volume, Epoch floor, Epoch ceiling, std::span<const Epoch> revoked) {
    const uint64_t bytes_before = encoded_bytes();
    Fence& fence = by_volume_[volume];
    const size_t before = fence.revoked.size();
    fence.floor = std::max(fence.floor, floor);
    fence.ceiling = std::max({fence.ceiling, ceiling, fence.floor});
    fence.revoked.insert(fence.revoked.end(), revoked.begin(), revoked.end());
    std::sort(fence.revoked.begin(), fence.revoked.end());
    fence.revoked.erase(std::unique(fence.revoked.begin(), fence.revoked.end()),
                        fence.revoked.end());
    std::erase_if(fence.revoked, [&](Epoch e) { return e < fence.floor; });
    revoked_ += fence.revoked.size() - before;
    count(encoded_bytes() - bytes_before);
  }
  // What encode() writes, and what a fence may add to it at most.
  uint64_t encoded_bytes() const { return 4 + by_volume_.size() * 28 + revoked_ * 8; }
  uint64_t growth_bytes(VolumeId volume, std::span<const Epoch> revoked) const {
    auto it = by_volume_.find(volume);
    uint64_t bytes = it == by_volume_.end() ? 28 : 0;
    for (Epoch epoch : revoked) {
      if (it == by_volume_.end() ||
          !std::binary_search(it->second.revoked.begin(), it->second.revoked.end(), epoch)) {
        bytes += 8;
      }
    }
    return bytes;
  }
  // u32 count, then {u64 volume, u64 floor, u64 ceiling, u32 revoked, u64 ...}.
  void encode(base::Writer& writer) const {
    writer.put(static_cast<uint32_t>(by_volume_.size()));
    for (const auto& [volume, fence] : by_volume_) {
      writer.put(volume);
      writer.put(fence.floor);
      writer.put(fence.ceiling);
      writer.put(static_cast<uint32_t>(fence.revoked.size()));
      for (Epoch epoch : fence.revoked) writer.put(epoch);
    }
  }
  // Raises by what was encoded. False: malformed.
  bool merge(base::Reader& reader) {
    const auto count = reader.get<uint32_t>();
    std::vector<Epoch> revoked;
    for (uint32_t i = 0; i < count && reader.ok(); ++i) {
      const auto volume = reader.get<uint64_t>();
      const auto floor = reader.get<uint64_t>(), ceiling = reader.get<uint64_t>();
      const auto n = reader.get<uint32_t>();
      revoked.clear();
      for (uint32_t k = 0; k < n && reader.ok(); ++k) revoked.push_back(reader.get<uint64_t>());
      if (reader.ok()) raise(volume, floor, ceiling, revoked);
    }
    return reader.ok();
  }
  const std::map<VolumeId, Fence>& all() const { return by_volume_; }

 private:
  void count(uint64_t change) {  // modulo 2^64
    if (bytes_total_) *bytes_total_ += change;
  }

  std::map<VolumeId, Fence> by_volume_;
  uint64_t revoked_ = 0;  // epochs, of all volumes
  uint64_t* bytes_total_;
};

}  // namespace curve::copyset
