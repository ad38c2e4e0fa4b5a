// Linearizability of a volume, 512 bytes at a time. Every write carries a value of its own, so each
// part is a register with unique values, and the test of Gibbons and Korach ("Testing Shared
// Memories", 1997, section 4) is exact: gather a write and the reads that saw it; `first_end` is
// the earliest end among them, `last_begin` the latest begin. If first_end < last_begin the value
// was certainly current in between (a forward zone), else the write may be placed anywhere in
// [last_begin, first_end] (a backward zone). The history is linearizable if and only if no two
// forward zones overlap and no backward zone lies in a forward one. Zeros are written more than
// once; reads of zeros are checked by a necessary condition.
//
// A write that its client had to send again may take effect more than once, at any times before its
// answer (R13 promises only that none of them comes after a newer acknowledged write): its value is
// certainly current only from its answer to its last read. A write that was never answered may have
// happened, at any time until its `bound` (forever, or when the attachment was fenced: R12), or
// never. Retries that come too late (R13), lost writes and stale reads all show as a bad pair of
// zones. Also checked: two writes that each cover two parts of one sector are not mixed in one read
// (torn sector). Knows nothing of the system under test. Plain data; one thread.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "native/base/types.h"

namespace curve::sim {

inline constexpr uint32_t kUnitBytes = 512;
inline constexpr uint64_t kForever = UINT64_MAX;

// What a write of number `write` puts into unit `unit` (an absolute number: offset / 512).
void fill_unit(uint64_t write, uint64_t unit, std::span<std::byte> into);

class RegisterChecker {
 public:
  // A write of units [first, first + count); `zeros`: discard or write-zeroes. Returns its number
  // (never 0).
  uint64_t begin_write(uint64_t first_unit, uint64_t count, bool zeros, uint64_t now_ns,
                       const std::string& who);
  void end_write(uint64_t write, uint64_t now_ns, bool sent_again = false);  // acknowledged
  void bound_write(uint64_t write,
                   uint64_t now_ns);  // not acknowledged; may have happened until now, not later
  // May have happened in part of its units or not at all, and without a bound: do nothing.

  // `bytes` was read from units [first, ...). The sentence says what is wrong at once: bytes that
  // nobody wrote there, a value from the future, a torn sector.
  std::optional<std::string> read(uint64_t first_unit, std::span<const std::byte> bytes,
                                  uint64_t begin_ns, uint64_t end_ns, const std::string& who);
  // Everything that takes the whole history. Call once, at the end.
  std::optional<std::string> check() const;

  size_t writes() const { return writes_.size(); }
  uint64_t units_read() const { return units_read_; }
  // Units that were ever written or read, for a final read of all.
  std::vector<uint64_t> touched_units() const;

 private:
  struct Write {
    uint64_t first = 0, count = 0;
    bool zeros = false;
    bool acknowledged = false;
    bool once = false;                   // certainly took effect at one time only
    uint64_t begin = 0, end = kForever;  // end: answered, or the bound, or forever
    size_t who = 0;                      // in names_
  };
  struct Interval {
    uint64_t begin, end;
  };
  struct Cluster {  // a write and its reads, in one unit
    uint64_t write = 0;
    std::vector<Interval> reads;
  };
  struct Unit {
    std::vector<Cluster> clusters;  // by write number
    std::vector<Interval> zero_reads;
  };
  struct Zone {
    uint64_t low, high, write;
  };
  void add_zones(const Cluster& cluster, std::vector<Zone>& forward,
                 std::vector<Zone>& backward) const;
  std::optional<std::string> check_unit(uint64_t number, const Unit& unit) const;
  std::optional<std::string> check_zero_reads(uint64_t number, const Unit& unit) const;
  std::optional<std::string> check_torn(uint64_t first_unit, const std::vector<uint64_t>& values,
                                        const std::string& who) const;
  std::string describe(uint64_t write) const;
  Unit& unit_at(uint64_t number);

  static constexpr uint64_t kUnitsPerPage = 1024;
  using UnitPage = std::array<Unit, kUnitsPerPage>;
  std::vector<std::string> names_;  // of clients, in the order in which they took turns
  std::vector<Write> writes_;       // number - 1
  std::vector<std::unique_ptr<UnitPage>> units_;
  uint64_t units_read_ = 0;
};

}  // namespace curve::sim
