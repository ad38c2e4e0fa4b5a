// Content of one virtual file: what is visible, what is stable, and what becomes of the difference
// at a power cut.
#include <algorithm>
#include <cassert>
#include <cstring>

#include "native/sim/disk.h"

namespace curve::sim {
namespace {

bool all_zero(std::span<const std::byte> bytes) {
  static constexpr std::array<std::byte, kPageBytes> kZeros{};
  return bytes.size() <= kZeros.size() &&
         std::memcmp(bytes.data(), kZeros.data(), bytes.size()) == 0;
}

// Calls fn(page index, offset in page, offset in the range, bytes).
template <class Fn>
void each_page(uint64_t offset, uint64_t bytes, Fn fn) {
  for (uint64_t done = 0; done < bytes;) {
    const uint64_t at = offset + done, within = at % kPageBytes;
    const uint64_t count = std::min<uint64_t>(kPageBytes - within, bytes - done);
    fn(at / kPageBytes, within, done, count);
    done += count;
  }
}

}  // namespace

std::byte* VirtualFile::page(uint64_t index) {
  const uint64_t at = index / kPagesPerExtent, within = index % kPagesPerExtent;
  if (at >= extents.size() || !extents[at] || !(extents[at]->present >> within & 1)) return nullptr;
  return extents[at]->bytes.data() + within * kPageBytes;
}

void VirtualFile::drop_page(uint64_t index) {
  if (!page(index)) return;
  Extent& extent = *extents[index / kPagesPerExtent];
  extent.present = static_cast<uint16_t>(extent.present & ~(1u << index % kPagesPerExtent));
}

std::byte* VirtualFile::make_page(uint64_t index) { return page_for_write(index, false); }

std::byte* VirtualFile::page_for_write(uint64_t index, bool whole) {
  const uint64_t at = index / kPagesPerExtent, within = index % kPagesPerExtent;
  if (at >= extents.size()) extents.resize(at + 1);
  if (!extents[at]) {
    extents[at] = std::make_unique_for_overwrite<Extent>();
    extents[at]->present = 0;
  }
  Extent& extent = *extents[at];
  std::byte* const bytes = extent.bytes.data() + within * kPageBytes;
  if (!whole && !(extent.present >> within & 1)) std::memset(bytes, 0, kPageBytes);
  extent.present = static_cast<uint16_t>(extent.present | 1u << within);
  return bytes;
}

void VirtualFile::resize(uint64_t bytes) {
  size = bytes;
  extents.resize((bytes + kExtentBytes - 1) / kExtentBytes);
}

void VirtualFile::read(uint64_t offset, std::span<std::byte> into) const {
  for (uint64_t done = 0; done < into.size();) {
    const uint64_t from = offset + done, at = from / kExtentBytes, within = from % kExtentBytes;
    const uint64_t rest = std::min<uint64_t>(kExtentBytes - within, into.size() - done);
    const Extent* extent = at < extents.size() ? extents[at].get() : nullptr;
    // Pages alike are taken together.
    uint64_t page = within / kPageBytes;
    const bool there = extent && (extent->present >> page & 1);
    while (++page < kPagesPerExtent && extent && (extent->present >> page & 1) == there) {
    }
    const uint64_t count = extent ? std::min(rest, page * kPageBytes - within) : rest;
    if (there) {
      std::memcpy(into.data() + done, extent->bytes.data() + within, count);
    } else {
      std::memset(into.data() + done, 0, count);
    }
    done += count;
  }
}

void VirtualFile::put(uint64_t offset, std::span<const std::byte> from) {
  size = std::max(size, offset + from.size());
  each_page(offset, from.size(), [&](uint64_t index, uint64_t within, uint64_t at, uint64_t count) {
    const auto part = from.subspan(at, count);
    if (!page(index) && all_zero(part)) return;
    std::memcpy(page_for_write(index, count == kPageBytes) + within, part.data(), count);
  });
  if (page_count() * kPageBytes < size) resize(size);
}

void VirtualFile::put_zeros(uint64_t offset, uint64_t bytes) {
  each_page(offset, bytes, [&](uint64_t index, uint64_t within, uint64_t, uint64_t count) {
    if (count == kPageBytes) {
      drop_page(index);
    } else if (std::byte* const to = page(index)) {
      std::memset(to + within, 0, count);
    }
  });
}

bool VirtualFile::touches_unstable(uint64_t offset, uint64_t bytes) const {
  const auto at = stable.lower_bound(offset / kPageBytes);
  return at != stable.end() && at->first <= (offset + bytes - 1) / kPageBytes;
}

void VirtualFile::add_unstable(Write write) {
  each_page(write.offset, write.bytes, [&](uint64_t index, uint64_t, uint64_t, uint64_t) {
    auto [at, fresh] = stable.try_emplace(index);
    ++at->second.writes;
    const std::byte* const now = fresh ? page(index) : nullptr;
    if (!now) return;
    at->second.page = std::make_unique_for_overwrite<Page>();
    std::memcpy(at->second.page->data(), now, kPageBytes);
  });
  unstable.push_back(std::move(write));
}

void VirtualFile::write(uint64_t sequence, uint64_t offset, std::span<const std::byte> from,
                        bool durable) {
  last_write = offset;
  // A durable write on a page without unstable writes is stable at once; else it keeps its place in
  // the order.
  if (!durable || touches_unstable(offset, from.size())) {
    add_unstable({sequence, offset, from.size(), durable, false, {from.begin(), from.end()}});
  }
  put(offset, from);
}

void VirtualFile::discard(uint64_t sequence, uint64_t offset, uint64_t bytes) {
  bytes = offset >= size ? 0 : std::min(bytes, size - offset);
  if (bytes == 0) return;
  add_unstable({sequence, offset, bytes, false, true, {}});
  put_zeros(offset, bytes);
}

namespace {

void apply_part(std::unique_ptr<Page>& page, uint64_t within, std::span<const std::byte> part) {
  if (!page) {
    if (all_zero(part)) return;
    page = std::make_unique<Page>();
  }
  std::memcpy(page->data() + within, part.data(), part.size());
}

constexpr std::array<std::byte, kPageBytes> kZeroPage{};

}  // namespace

void VirtualFile::stabilize(uint64_t through_sequence) {
  while (!unstable.empty() && unstable.front().sequence <= through_sequence) {
    const Write& write = unstable.front();
    each_page(write.offset, write.bytes,
              [&](uint64_t page, uint64_t within, uint64_t at, uint64_t count) {
                const auto found = stable.find(page);
                assert(found != stable.end());
                if (--found->second.writes == 0) {
                  stable.erase(found);  // the visible content is the stable one
                } else {
                  apply_part(found->second.page, within,
                             write.zeros ? std::span(kZeroPage).first(count)
                                         : std::span(write.data).subspan(at, count));
                }
              });
    unstable.pop_front();
  }
}

void VirtualFile::lose_power(Random& random) {
  for (auto& [index, saved] : stable) {
    if (saved.page) {
      std::memcpy(page_for_write(index, true), saved.page->data(), kPageBytes);
    } else {
      drop_page(index);
    }
  }
  stable.clear();
  // Devices differ in how much they had written back; sometimes all or nothing.
  const uint64_t mood = random.below(10);
  const double keep = mood == 0 ? 0.0 : mood == 1 ? 1.0 : 0.4;
  for (const Write& write : unstable) {
    if (!write.must_keep && !random.chance(keep)) {
      if (mood <= 1 || random.chance(0.6)) continue;  // lost
      // Torn: a prefix of 512-byte parts, or any of them.
      const uint64_t parts = (write.bytes + kPartBytes - 1) / kPartBytes;
      const bool prefix = random.chance(0.5);
      const uint64_t cut = random.below(parts);
      for (uint64_t part = 0; part < parts; ++part) {
        if (prefix ? part >= cut : random.chance(0.5)) continue;
        const uint64_t at = part * kPartBytes,
                       count = std::min<uint64_t>(kPartBytes, write.bytes - at);
        if (write.zeros) {
          put_zeros(write.offset + at, count);
        } else {
          put(write.offset + at, std::span(write.data).subspan(at, count));
        }
      }
      continue;
    }
    if (write.zeros) {
      put_zeros(write.offset, write.bytes);
    } else {
      put(write.offset, write.data);
    }
  }
  unstable.clear();
}

}  // namespace curve::sim
