#include "native/sim/register_checker.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>

namespace curve::sim {
namespace {

std::string seconds(uint64_t ns) {
  if (ns == kForever) return "never";
  char text[32];
  std::snprintf(text, sizeof text, "%.6f", static_cast<double>(ns) / 1e9);
  return text;
}

bool is_zero(std::span<const std::byte> bytes) {
  static constexpr std::array<std::byte, kUnitBytes> kZeros{};
  return std::memcmp(bytes.data(), kZeros.data(), kUnitBytes) == 0;
}

constexpr uint32_t kUnitsPerSector = kSectorBytes / kUnitBytes;

}  // namespace

void fill_unit(uint64_t write, uint64_t unit, std::span<std::byte> into) {
  uint64_t words[kUnitBytes / 8];
  words[0] = write;
  const uint64_t value = mix64(mix64(write) ^ unit);
  for (size_t i = 1; i < kUnitBytes / 8; ++i) words[i] = value + i * 0x9e3779b97f4a7c15ull;
  std::memcpy(into.data(), words, kUnitBytes);
}

RegisterChecker::Unit& RegisterChecker::unit_at(uint64_t number) {
  const uint64_t page = number / kUnitsPerPage;
  if (page >= units_.size()) units_.resize(page + 1);
  if (!units_[page]) units_[page] = std::make_unique<UnitPage>();
  return (*units_[page])[number % kUnitsPerPage];
}

uint64_t RegisterChecker::begin_write(uint64_t first_unit, uint64_t count, bool zeros,
                                      uint64_t now_ns, const std::string& who) {
  if (names_.empty() || names_.back() != who) names_.push_back(who);
  writes_.push_back({first_unit, count, zeros, false, false, now_ns, kForever, names_.size() - 1});
  const uint64_t number = writes_.size();
  for (uint64_t unit = first_unit; unit < first_unit + count; ++unit)
    unit_at(unit).clusters.push_back({number, {}});
  return number;
}

void RegisterChecker::end_write(uint64_t write, uint64_t now_ns, bool sent_again) {
  writes_[write - 1].acknowledged = true;
  writes_[write - 1].once = !sent_again;
  writes_[write - 1].end = now_ns;
}

void RegisterChecker::bound_write(uint64_t write, uint64_t now_ns) {
  Write& item = writes_[write - 1];
  if (!item.acknowledged) item.end = std::min(item.end, now_ns);
}

std::string RegisterChecker::describe(uint64_t write) const {
  if (write == 0) return "zeros";
  const Write& item = writes_[write - 1];
  return "write " + std::to_string(write) + (item.zeros ? " (zeros)" : "") + " by " +
         names_[item.who] + " of units " + std::to_string(item.first) + "+" +
         std::to_string(item.count) + " [" + seconds(item.begin) + ", " + seconds(item.end) +
         (item.acknowledged ? "]" : "] not acknowledged");
}

std::optional<std::string> RegisterChecker::read(uint64_t first_unit,
                                                 std::span<const std::byte> bytes,
                                                 uint64_t begin_ns, uint64_t end_ns,
                                                 const std::string& who) {
  std::vector<uint64_t> values;
  const uint64_t count = bytes.size() / kUnitBytes;
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t number = first_unit + i;
    const auto part = bytes.subspan(i * kUnitBytes, kUnitBytes);
    ++units_read_;
    if (is_zero(part)) {
      values.push_back(0);
      Unit& unit = unit_at(number);
      // A long run of reads of zeros between two writes says no more than its first and last.
      unit.zero_reads.push_back({begin_ns, end_ns});
      continue;
    }
    uint64_t write;
    std::memcpy(&write, part.data(), 8);
    auto where = [&] {
      return "read by " + who + " of unit " + std::to_string(number) + " [" + seconds(begin_ns) +
             ", " + seconds(end_ns) + "]: ";
    };
    std::array<std::byte, kUnitBytes> expected;
    fill_unit(write, number, expected);
    if (write == 0 || write > writes_.size() ||
        std::memcmp(expected.data(), part.data(), kUnitBytes) != 0) {
      return where() + "bytes that nobody wrote there (they begin with " + std::to_string(write) +
             ")";
    }
    const Write& item = writes_[write - 1];
    if (item.zeros || number < item.first || number >= item.first + item.count) {
      return where() + "bytes of another place: " + describe(write);
    }
    if (item.begin > end_ns) return where() + "a value from the future: " + describe(write);
    Unit& unit = unit_at(number);
    auto at = std::lower_bound(
        unit.clusters.begin(), unit.clusters.end(), write,
        [](const Cluster& cluster, uint64_t value) { return cluster.write < value; });
    at->reads.push_back({begin_ns, end_ns});
    values.push_back(write);
  }
  return check_torn(first_unit, values, who);
}

std::optional<std::string> RegisterChecker::check_torn(uint64_t first_unit,
                                                       const std::vector<uint64_t>& values,
                                                       const std::string& who) const {
  auto covers = [this](uint64_t write, uint64_t unit) {
    const Write& item = writes_[write - 1];
    return unit >= item.first && unit < item.first + item.count;
  };
  for (size_t i = 0; i < values.size(); ++i) {
    const uint64_t unit = first_unit + i;
    const size_t end = std::min(values.size(), i + (kUnitsPerSector - unit % kUnitsPerSector));
    for (size_t j = i + 1; j < end; ++j) {
      if (values[i] == values[j] || values[i] == 0 || values[j] == 0) continue;
      if (covers(values[i], first_unit + j) && covers(values[j], unit)) {
        return "torn sector: a read by " + who + " of units " + std::to_string(unit) + " and " +
               std::to_string(first_unit + j) + " saw parts of " + describe(values[i]) +
               " and of " + describe(values[j]);
      }
    }
  }
  return std::nullopt;
}

void RegisterChecker::add_zones(const Cluster& cluster, std::vector<Zone>& forward,
                                std::vector<Zone>& backward) const {
  const Write& item = writes_[cluster.write - 1];
  if (!item.acknowledged && cluster.reads.empty()) return;  // need not have happened
  uint64_t first_end = item.end, last_begin = item.begin;
  for (const Interval& read : cluster.reads) {
    if (item.once) first_end = std::min(first_end, read.end);
    last_begin = std::max(last_begin, read.begin);
  }
  if (first_end < last_begin) {
    forward.push_back({first_end, last_begin, cluster.write});
  } else if (item.once) {
    backward.push_back({last_begin, first_end, cluster.write});
  } else if (item.acknowledged) {
    backward.push_back({item.begin, item.end, cluster.write});
  }
  if (item.once) return;
  for (const Interval& read : cluster.reads) {  // current at some time in each of them
    const uint64_t low = std::max(read.begin, item.begin);
    if (low < item.end) backward.push_back({low, read.end, cluster.write});
  }
}

std::optional<std::string> RegisterChecker::check_unit(uint64_t number, const Unit& unit) const {
  std::vector<Zone> forward, backward;
  for (const Cluster& cluster : unit.clusters) add_zones(cluster, forward, backward);
  const std::string where = "unit " + std::to_string(number) + ": ";
  std::sort(forward.begin(), forward.end(),
            [](const Zone& a, const Zone& b) { return a.low < b.low; });
  for (size_t i = 1; i < forward.size(); ++i) {
    if (forward[i].low < forward[i - 1].high) {
      return where + "both were certainly current at one time: " + describe(forward[i - 1].write) +
             ", current in [" + seconds(forward[i - 1].low) + ", " + seconds(forward[i - 1].high) +
             "], and " + describe(forward[i].write) + ", current in [" + seconds(forward[i].low) +
             ", " + seconds(forward[i].high) + "]";
    }
  }
  for (const Zone& zone : backward) {
    auto at = std::upper_bound(
        forward.begin(), forward.end(), zone.low,
        [](uint64_t value, const Zone& candidate) { return value < candidate.low; });
    if (at == forward.begin()) continue;
    --at;
    if (at->low < zone.low && zone.high < at->high) {
      return where + "overwritten, and read again: " + describe(at->write) + ", current in [" +
             seconds(at->low) + ", " + seconds(at->high) + "], although in between came " +
             describe(zone.write);
    }
  }
  return std::nullopt;
}

std::optional<std::string> RegisterChecker::check_zero_reads(uint64_t number,
                                                             const Unit& unit) const {
  if (unit.zero_reads.empty()) return std::nullopt;
  // latest_begin(t): among writes acknowledged before t, the latest begin. A zero that ended before
  // that is gone at t.
  std::vector<std::pair<uint64_t, uint64_t>> ended;  // end, begin
  std::vector<std::pair<uint64_t, uint64_t>> zeros;  // begin, end
  zeros.emplace_back(0, 0);                          // a new volume
  for (const Cluster& cluster : unit.clusters) {
    const Write& item = writes_[cluster.write - 1];
    if (item.acknowledged) ended.emplace_back(item.end, item.begin);
    if (item.zeros) zeros.emplace_back(item.begin, item.end);
  }
  std::sort(ended.begin(), ended.end());
  for (size_t i = 1; i < ended.size(); ++i)
    ended[i].second = std::max(ended[i].second, ended[i - 1].second);
  for (const Interval& read : unit.zero_reads) {
    auto at =
        std::lower_bound(ended.begin(), ended.end(), std::pair<uint64_t, uint64_t>(read.begin, 0));
    const uint64_t latest_begin = at == ended.begin() ? 0 : std::prev(at)->second;
    const bool possible = std::any_of(zeros.begin(), zeros.end(), [&](const auto& zero) {
      return zero.first <= read.end && zero.second >= latest_begin;
    });
    if (!possible) {
      return "unit " + std::to_string(number) + ": a read [" + seconds(read.begin) + ", " +
             seconds(read.end) + "] saw zeros, although a write that began at " +
             seconds(latest_begin) + " was acknowledged before it, after every write of zeros";
    }
  }
  return std::nullopt;
}

std::vector<uint64_t> RegisterChecker::touched_units() const {
  std::vector<uint64_t> out;
  for (size_t page = 0; page < units_.size(); ++page) {
    for (size_t i = 0; units_[page] && i < kUnitsPerPage; ++i) {
      const Unit& unit = (*units_[page])[i];
      if (!unit.clusters.empty() || !unit.zero_reads.empty())
        out.push_back(page * kUnitsPerPage + i);
    }
  }
  return out;
}

std::optional<std::string> RegisterChecker::check() const {
  for (uint64_t number : touched_units()) {
    const Unit& unit = (*units_[number / kUnitsPerPage])[number % kUnitsPerPage];
    if (auto bad = check_unit(number, unit)) return bad;
    if (auto bad = check_zero_reads(number, unit)) return bad;
  }
  return std::nullopt;
}

}  // namespace curve::sim
