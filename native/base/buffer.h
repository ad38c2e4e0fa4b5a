// Pooled, 4 KiB-aligned, reference-counted payload buffers. One pool per event loop, one thread:
// counts are not atomic. A buffer is the iovec of WAL writes and of sends at once, so nothing may
// write into it after it was filled. Invariant: capacity is a power of two from 4 KiB to 4 MiB; the
// pool returns memory of exactly that size class.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace curve::base {

class BufferPool;

// Shared handle. Copy raises the count; the last one gives the memory back to its pool. May be
// empty.
class Buffer {
 public:
  Buffer() = default;
  Buffer(const Buffer& other) : block_(other.block_) {
    if (block_) ++block_->references;
  }
  Buffer(Buffer&& other) noexcept : block_(std::exchange(other.block_, nullptr)) {}
  Buffer& operator=(Buffer other) noexcept {
    std::swap(block_, other.block_);
    return *this;
  }
  ~Buffer() {
    if (block_ && --block_->references == 0) release();
  }
  explicit operator bool() const { return block_ != nullptr; }
  std::byte* data() const { return block_->data; }
  size_t size() const { return block_ ? block_->size : 0; }          // bytes in use
  size_t capacity() const { return block_ ? block_->capacity : 0; }  // bytes
  void resize(size_t bytes) { block_->size = bytes; }                // <= capacity; does not clear
  std::span<std::byte> span() const { return {data(), size()}; }
  std::span<const std::byte> bytes() const {
    return block_ ? std::span<const std::byte>(data(), size()) : std::span<const std::byte>();
  }

 private:
  friend class BufferPool;
  struct Block {
    BufferPool* pool;
    std::byte* data;
    size_t size;
    size_t capacity;
    uint32_t references;
    bool resident;  // while free: its pages are there
    bool prepared;
  };
  explicit Buffer(Block* block) : block_(block) {}
  void release();
  Block* block_ = nullptr;
};

class BufferPool {
 public:
  // Keeps at most `cached_bytes_max` of free memory; more goes back to the system. Memory is
  // resident from the start, so that no I/O takes a page fault, or (kOnUse, for the simulation,
  // which makes a pool for each process that it starts) from its first use.
  enum class Resident : bool { kAtOnce, kOnUse };
  explicit BufferPool(size_t cached_bytes_max = 256u << 20, Resident resident = Resident::kAtOnce);
  ~BufferPool();  // Invariant: every Buffer of this pool is gone
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;
  // size() == bytes, capacity >= bytes, contents undefined. bytes in 1..4 MiB. Aborts when the
  // system has no memory.
  Buffer take(size_t bytes);
  // Makes `count` free buffers for `bytes` each, so that as many can be taken without asking the
  // system; in pages of 2 MiB where it has them, so that a payload is one piece for the device.
  // They stay while there are no more than `cached_bytes_max` of free memory.
  void prepare(size_t bytes, size_t count);
  size_t used_bytes() const { return used_bytes_; }

 private:
  friend class Buffer;
  void give_back(Buffer::Block* block);
  void grow(size_t size_class);
  void cut(std::span<std::byte> memory, size_t size_class, bool prepared);
  struct FreeBlocks {
    std::vector<Buffer::Block*> prepared, others;  // those are taken first
  };
  FreeBlocks free_[11];  // by size class
  std::vector<std::span<std::byte>> slabs_;
  size_t cached_bytes_ = 0, cached_bytes_max_, used_bytes_ = 0;
  Resident resident_;
};

inline void Buffer::release() { block_->pool->give_back(block_); }

}  // namespace curve::base
