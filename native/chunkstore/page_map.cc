// See page_map.h.
#include "native/chunkstore/page_map.h"

#include <algorithm>
#include <cassert>
#include <cstring>

namespace curve::chunkstore {

namespace {

// 48 and 52: what a fully mapped chunk needs (four pages of 52, one of 48).
constexpr std::array<uint8_t, 8> kCapacities = {4, 8, 16, 24, 32, 40, 48, 52};
constexpr size_t kSlabEntries = 14'560;  // 1 MiB

size_t class_of(uint8_t capacity) {
  return static_cast<size_t>(std::find(kCapacities.begin(), kCapacities.end(), capacity) -
                             kCapacities.begin());
}

uint8_t capacity_for(uint32_t entries) {
  return *std::lower_bound(kCapacities.begin(), kCapacities.end(), entries);
}

template <class T>
T* zeroed(size_t count) {
  void* memory = std::calloc(std::max<size_t>(count, 1), sizeof(T));
  if (memory == nullptr) std::abort();  // as BufferPool: no way to go on
  return static_cast<T*>(memory);
}

}  // namespace

PageMap::PageMap(uint32_t pages)
    : capacity_(pages),
      mask_(std::bit_ceil(std::max<uint64_t>(2ull * pages, 16)) - 1),
      pages_(zeroed<Page>(pages)),
      table_(zeroed<Cell>(mask_ + 1)),
      free_(pages),
      nodes_(std::make_unique<std::pmr::unsynchronized_pool_resource>()),
      order_(std::make_unique<Order>(Less{pages_.get()}, nodes_.get())) {
  for (uint32_t number = 0; number < pages; ++number) free_.set(number);
}

uint64_t PageMap::hash_of(const PageId& id) {
  return mix64(id.chunk.volume * 0x9e3779b97f4a7c15ull + (uint64_t{id.chunk.chunk} << 3 | id.page) +
               mix64(id.copyset));
}

uint32_t PageMap::find(const PageId& id) const {
  const uint64_t hash = hash_of(id);
  for (uint64_t at = hash & mask_;; at = (at + 1) & mask_) {
    const Cell& cell = table_[at];
    if (cell.number_plus_1 == 0) return kNone;
    if (cell.tag == static_cast<uint32_t>(hash >> 32) && page(cell.number_plus_1 - 1).id == id)
      return cell.number_plus_1 - 1;
  }
}

void PageMap::start(uint32_t number, const PageId& id) {
  Page& created = page(number);
  const uint32_t life = created.life + 1;
  created = Page{};
  created.id = id;
  created.life = life;
  created.live = true;
  created.use = &volumes_[{id.copyset, id.chunk.volume}];
  ++created.use->pages;
  ++empty_;
  free_.reset(number);
  end_ = std::max(end_, number + 1);
  const uint64_t hash = hash_of(id);
  uint64_t at = hash & mask_;
  while (table_[at].number_plus_1 != 0) at = (at + 1) & mask_;
  table_[at] = {static_cast<uint32_t>(hash >> 32), number + 1};
  // Pages come in ascending order when a store is opened: the end is then the right hint, and
  // otherwise a harmless one.
  order_->insert(order_->end(), number);
}

uint32_t PageMap::create(const PageId& id) {
  const uint64_t number = free_.next(0);
  if (number == BitTree::kNone) return kNone;
  start(static_cast<uint32_t>(number), id);
  return static_cast<uint32_t>(number);
}

bool PageMap::create_at(uint32_t number, const PageId& id) {
  if (page(number).live || find(id) != kNone) return false;
  start(number, id);
  return true;
}

void PageMap::remove(uint32_t number) {
  Page& gone = page(number);
  assert(gone.live && gone.present == 0);
  // Backward-shift deletion keeps every probe sequence unbroken (Knuth, TAOCP vol. 3, 6.4,
  // algorithm R).
  uint64_t hole = hash_of(gone.id) & mask_;
  while (table_[hole].number_plus_1 != number + 1) hole = (hole + 1) & mask_;
  for (uint64_t at = (hole + 1) & mask_; table_[at].number_plus_1 != 0; at = (at + 1) & mask_) {
    const uint64_t home = hash_of(page(table_[at].number_plus_1 - 1).id) & mask_;
    if (((at - home) & mask_) >= ((at - hole) & mask_)) {
      table_[hole] = table_[at];
      hole = at;
    }
  }
  table_[hole] = {};
  order_->erase(order_->find(number));
  if (--gone.use->pages == 0) volumes_.erase({gone.id.copyset, gone.id.chunk.volume});
  if (gone.entries) give_entries(gone.entries, gone.capacity);
  const uint32_t life = gone.life;
  gone = Page{};
  gone.life = life;
  --empty_;
  free_.set(number);
  while (end_ > 0 && !page(end_ - 1).live) --end_;
}

Entry& PageMap::insert(Page& page, uint32_t slot) {
  const uint64_t bit = uint64_t{1} << slot;
  assert(slot < kBlocksPerPage && !(page.present & bit));
  const auto count = static_cast<uint32_t>(std::popcount(page.present));
  const auto rank = static_cast<uint32_t>(std::popcount(page.present & (bit - 1)));
  if (count == page.capacity) {
    const uint8_t capacity = capacity_for(count + 1);
    Entry* entries = take_entries(capacity);
    std::copy_n(page.entries, count, entries);
    if (page.entries) give_entries(page.entries, page.capacity);
    page.entries = entries;
    page.capacity = capacity;
  }
  std::memmove(page.entries + rank + 1, page.entries + rank, (count - rank) * sizeof(Entry));
  if (count == 0) --empty_;
  page.present |= bit;
  ++page.use->blocks;
  return page.entries[rank] = Entry{};
}

void PageMap::erase(Page& page, uint32_t slot) {
  const uint64_t bit = uint64_t{1} << slot;
  assert(page.present & bit);
  const auto count = static_cast<uint32_t>(std::popcount(page.present));
  const auto rank = static_cast<uint32_t>(std::popcount(page.present & (bit - 1)));
  std::memmove(page.entries + rank, page.entries + rank + 1, (count - rank - 1) * sizeof(Entry));
  page.present &= ~bit;
  --page.use->blocks;
  if (page.present == 0) {
    ++empty_;
    give_entries(page.entries, page.capacity);
    page.entries = nullptr;
    page.capacity = 0;
  }
}

uint32_t PageMap::first_at_or_after(const PageId& id) const {
  const auto it = order_->lower_bound(id);
  return it == order_->end() ? kNone : *it;
}

uint32_t PageMap::first_after(const PageId& id) const {
  const auto it = order_->upper_bound(id);
  return it == order_->end() ? kNone : *it;
}

uint64_t PageMap::volume_blocks(CopysetId copyset, VolumeId volume) const {
  const auto it = volumes_.find({copyset, volume});
  return it == volumes_.end() ? 0 : it->second.blocks;
}

uint64_t PageMap::copyset_blocks(CopysetId copyset) const {
  uint64_t blocks = 0;
  for (auto it = volumes_.lower_bound({copyset, 0});
       it != volumes_.end() && it->first.first == copyset; ++it) {
    blocks += it->second.blocks;
  }
  return blocks;
}

Entry* PageMap::take_entries(uint8_t capacity) {
  auto& list = free_entries_[class_of(capacity)];
  if (!list.empty()) {
    Entry* entries = list.back();
    list.pop_back();
    return entries;
  }
  if (slab_left_ < capacity) {
    slabs_.emplace_back(static_cast<Entry*>(std::malloc(kSlabEntries * sizeof(Entry))));
    if (!slabs_.back()) std::abort();
    slab_left_ = kSlabEntries;
  }
  slab_left_ -= capacity;
  return slabs_.back().get() + slab_left_;
}

void PageMap::give_entries(Entry* entries, uint8_t capacity) {
  free_entries_[class_of(capacity)].push_back(entries);
}

uint64_t PageMap::memory_bytes() const {
  return slabs_.size() * kSlabEntries * sizeof(Entry) + uint64_t{end_} * sizeof(Page) +
         (mask_ + 1) * sizeof(Cell) + order_->size() * 48;
}

}  // namespace curve::chunkstore
