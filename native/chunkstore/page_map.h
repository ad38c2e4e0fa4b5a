// The map in memory: every page of the store, found by PageId and walked in order. It knows neither
// the disk nor which blocks are free: the store tells BlockSpace what changes here.
//
// A page holds entries only for the blocks that are mapped (72 bytes each), in arrays of eight
// sizes that grow with it, so that memory follows what is stored and not how it is spread: at
// most 1.25 GiB per TiB of mapped blocks, everything of this directory included (1.13 GiB of
// entries, 64 MiB of counts, about 160 bytes per page).
//
// Invariants: entry number popcount(present below the bit) belongs to the bit; a page is in the
// table and in the order if and only if it is live; numbers are places in the page pool of the
// disk. Thread: the loop's. Memory is taken in slabs: no allocation per call in steady state.
#pragma once

#include <bit>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <memory_resource>
#include <set>
#include <utility>
#include <vector>

#include "native/chunkstore/bit_tree.h"
#include "native/chunkstore/layout.h"

namespace curve::chunkstore {

struct Entry {
  uint32_t physical;
  uint16_t written;
  uint16_t zero;
  std::array<uint32_t, kSectorsPerBlock> crc;
};
static_assert(sizeof(Entry) == 72);

struct VolumeUse {
  uint64_t blocks = 0, pages = 0;
};

struct Page {  // valid when all bytes are zero: not live
  PageId id;
  Index index;       // applied through
  uint64_t present;  // bit: the block has an entry
  uint64_t busy;     // bit: a write is in flight
  Entry* entries;
  VolumeUse* use;
  uint32_t life;  // counts the lives of this number, so that a write in flight sees that its page
                  // is gone
  uint8_t capacity;  // of entries
  bool live;
  bool dirty;

  const Entry* find(uint32_t slot) const {
    const uint64_t bit = uint64_t{1} << slot;
    return present & bit ? entries + std::popcount(present & (bit - 1)) : nullptr;
  }
  Entry* find(uint32_t slot) { return const_cast<Entry*>(std::as_const(*this).find(slot)); }
};

class PageMap {
 public:
  static constexpr uint32_t kNone = UINT32_MAX;

  explicit PageMap(uint32_t pages = 0);
  PageMap(PageMap&&) = default;
  PageMap& operator=(PageMap&&) = default;

  uint32_t find(const PageId& id) const;  // number or kNone
  Page& page(uint32_t number) { return pages_.get()[number]; }
  const Page& page(uint32_t number) const { return pages_.get()[number]; }
  // A new page with no entries at the lowest free number; kNone when the pool is full. `id` must be
  // absent.
  uint32_t create(const PageId& id);
  bool create_at(uint32_t number, const PageId& id);  // false: the number or the id is in use
  void remove(uint32_t number);                       // its entries are gone already
  Entry& insert(Page& page, uint32_t slot);           // zeroed; absent before
  void erase(Page& page, uint32_t slot);

  // In order of PageId. kNone at the end.
  uint32_t first_at_or_after(const PageId& id) const;
  uint32_t first_after(const PageId& id) const;
  uint64_t volume_blocks(CopysetId copyset, VolumeId volume) const;
  uint64_t copyset_blocks(CopysetId copyset) const;

  uint32_t capacity() const { return capacity_; }
  uint32_t live() const { return static_cast<uint32_t>(order_->size()); }
  uint32_t empty_pages() const { return empty_; }
  uint32_t numbers_end() const { return end_; }  // no live page has this number or a higher one
  uint64_t memory_bytes() const;

 private:
  struct Less {
    using is_transparent = void;
    const Page* pages;
    bool operator()(uint32_t a, uint32_t b) const { return pages[a].id < pages[b].id; }
    bool operator()(uint32_t a, const PageId& b) const { return pages[a].id < b; }
    bool operator()(const PageId& a, uint32_t b) const { return a < pages[b].id; }
  };
  using Order = std::pmr::set<uint32_t, Less>;
  struct Cell {
    uint32_t tag;
    uint32_t number_plus_1;  // 0: empty
  };
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  static uint64_t hash_of(const PageId& id);
  void start(uint32_t number, const PageId& id);
  Entry* take_entries(uint8_t capacity);
  void give_entries(Entry* entries, uint8_t capacity);

  uint32_t capacity_ = 0, end_ = 0, empty_ = 0;
  uint64_t mask_ = 0;
  std::unique_ptr<Page[], Free> pages_;  // calloc: untouched pages of it cost nothing
  std::unique_ptr<Cell[], Free> table_;  // linear probing, at most half full
  BitTree free_;                         // page numbers
  std::unique_ptr<std::pmr::unsynchronized_pool_resource> nodes_;
  std::unique_ptr<Order> order_;
  std::map<std::pair<CopysetId, VolumeId>, VolumeUse> volumes_;
  std::vector<std::unique_ptr<Entry[], Free>> slabs_;
  size_t slab_left_ = 0;  // entries of the last slab that were never used
  std::array<std::vector<Entry*>, 8> free_entries_;
};

}  // namespace curve::chunkstore
