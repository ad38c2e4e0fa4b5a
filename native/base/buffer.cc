// Memory of the pool. Classes up to 64 KiB are cut from 256 KiB slabs, larger ones are mappings of
// their own; it is populated when it is mapped (kAtOnce), so that the path takes no page fault.
// Free memory beyond the limit goes back to the system: large blocks are unmapped, small ones keep
// their address only (their next use faults its pages in again). Invariant: used_bytes_ is the
// capacity of what is handed out; cached_bytes_ that of what is free and resident.
#include "native/base/buffer.h"

#include <sys/mman.h>

#include <bit>
#include <cstdio>
#include <cstdlib>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, bytes) static_cast<void>(0)
#define ASAN_UNPOISON_MEMORY_REGION(address, bytes) static_cast<void>(0)
#endif

namespace curve::base {
namespace {

constexpr size_t kClassBytesMin = 4096;
constexpr size_t kClassBytesMax = 4u << 20;
constexpr size_t kSlabBytes = 256u << 10;
constexpr size_t kSlabClassBytesMax = 64u << 10;

size_t class_of(size_t bytes) {
  return bytes <= kClassBytesMin ? 0 : std::bit_width((bytes - 1) / kClassBytesMin);
}

[[noreturn]] void die(const char* why) {
  std::fprintf(stderr, "buffer pool: %s\n", why);
  std::abort();
}

// kOnUse: from the heap, which a simulation keeps, and whose pages are there from the run before.
std::byte* map(size_t bytes, BufferPool::Resident resident) {
  void* memory = nullptr;
  if (resident == BufferPool::Resident::kOnUse) {
    memory = std::aligned_alloc(kClassBytesMin, bytes);
  } else {
    memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (memory == MAP_FAILED) memory = nullptr;
  }
  if (!memory) die("the system has no memory for payload buffers");
  return static_cast<std::byte*>(memory);
}

void unmap(std::byte* memory, size_t bytes, BufferPool::Resident resident) {
  ASAN_UNPOISON_MEMORY_REGION(memory, bytes);
  if (resident == BufferPool::Resident::kOnUse) return std::free(memory);
  munmap(memory, bytes);
}

}  // namespace

BufferPool::BufferPool(size_t cached_bytes_max, Resident resident)
    : cached_bytes_max_(cached_bytes_max), resident_(resident) {}

BufferPool::~BufferPool() {
  if (used_bytes_ != 0) die("destroyed while buffers are in use");
  for (auto& list : free_) {
    for (Buffer::Block* block : list) {
      if (block->capacity > kSlabClassBytesMax) unmap(block->data, block->capacity, resident_);
      delete block;
    }
  }
  for (std::byte* slab : slabs_) unmap(slab, kSlabBytes, resident_);
}

void BufferPool::grow(size_t size_class) {
  const size_t capacity = kClassBytesMin << size_class;
  const size_t bytes = capacity > kSlabClassBytesMax ? capacity : kSlabBytes;
  std::byte* memory = map(bytes, resident_);
  if (capacity <= kSlabClassBytesMax) slabs_.push_back(memory);
  for (size_t at = bytes; at > 0; at -= capacity) {  // lowest address is taken first
    free_[size_class].push_back(
        new Buffer::Block{this, memory + at - capacity, 0, capacity, 0, true});
  }
  cached_bytes_ += bytes;
  ASAN_POISON_MEMORY_REGION(memory, bytes);
}

Buffer BufferPool::take(size_t bytes) {
  if (bytes == 0 || bytes > kClassBytesMax) die("take() outside of 1 byte to 4 MiB");
  const size_t size_class = class_of(bytes);
  auto& list = free_[size_class];
  if (list.empty()) grow(size_class);
  Buffer::Block* block = list.back();
  list.pop_back();
  if (block->resident) cached_bytes_ -= block->capacity;
  used_bytes_ += block->capacity;
  block->resident = true;
  block->references = 1;
  block->size = bytes;
  ASAN_UNPOISON_MEMORY_REGION(block->data, block->capacity);
  return Buffer(block);
}

void BufferPool::prepare(size_t bytes, size_t count) {
  std::vector<Buffer> taken;
  for (size_t i = 0; i < count; ++i) taken.push_back(take(bytes));
}

void BufferPool::give_back(Buffer::Block* block) {
  used_bytes_ -= block->capacity;
  if (cached_bytes_ + block->capacity <= cached_bytes_max_) {
    cached_bytes_ += block->capacity;
  } else if (block->capacity > kSlabClassBytesMax) {
    unmap(block->data, block->capacity, resident_);
    delete block;
    return;
  } else {
    madvise(block->data, block->capacity, MADV_DONTNEED);
    block->resident = false;
  }
  ASAN_POISON_MEMORY_REGION(block->data, block->capacity);
  free_[class_of(block->capacity)].push_back(block);
}

}  // namespace curve::base
