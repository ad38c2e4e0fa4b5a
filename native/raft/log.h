// What the core knows of a group's log: one slot per retained entry behind a base (index, term).
// Invariants: terms never fall with the index; the base is committed and applied. Knows nothing of
// contents, durability or commitment. One thread; allocates only when the ring grows.
#pragma once

#include <algorithm>

#include "native/raft/ring.h"
#include "native/raft/types.h"

namespace curve::raft {

class Log {
 public:
  void reset(Index base, Term base_term) {
    slots_.clear();
    base_ = base;
    base_term_ = base_term;
  }
  Index base() const { return base_; }
  Term base_term() const { return base_term_; }
  Index first() const { return base_ + 1; }
  Index last() const { return base_ + slots_.size(); }
  Term last_term() const { return slots_.empty() ? base_term_ : slots_.back().term; }
  bool holds(Index index) const { return index > base_ && index <= last(); }
  // 0 when not retained; the base counts as retained.
  Term term_at(Index index) const {
    if (index == base_) return base_term_;
    return holds(index) ? slots_[index - base_ - 1].term : 0;
  }
  LogSlot& at(Index index) { return slots_[index - base_ - 1]; }
  const LogSlot& at(Index index) const { return slots_[index - base_ - 1]; }
  void push(const LogSlot& slot) { slots_.push_back(slot); }
  // Entries > index go.
  void truncate(Index index) { slots_.pop_back(last() - index); }
  // Entries <= index go; `index` becomes the base.
  void trim(Index index) {
    base_term_ = term_at(index);
    slots_.pop_front(index - base_);
    base_ = index;
  }
  // The greatest index <= `index` whose term is <= `term`, where the logs of two replicas may still
  // agree (Ongaro 5.3, hints by term). Below the base nothing is known: base - 1 says "not here",
  // and an index below the base is its own answer.
  Index back_off(Index index, Term term) const {
    if (index < base_) return index;
    if (base_term_ > term) return base_ == 0 ? 0 : base_ - 1;
    Index low = base_, high = std::min(index, last());  // term_at(low) <= term
    while (low < high) {
      const Index middle = low + (high - low + 1) / 2;
      if (term_at(middle) <= term) {
        low = middle;
      } else {
        high = middle - 1;
      }
    }
    return low;
  }
  // Is a log that ends with (index, term) at least as good as this one? (Raft 5.4.1)
  bool not_better_than(Index index, Term term) const {
    return term > last_term() || (term == last_term() && index >= last());
  }

 private:
  Ring<LogSlot> slots_;
  Index base_ = 0;
  Term base_term_ = 0;
};

}  // namespace curve::raft
