// A log entry's content in memory: from proposal or arrival until it is durable, applied and sent
// to whoever keeps up. Pooled and reference-counted on one loop thread; no allocation per entry
// once the pool has grown.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "native/base/buffer.h"
#include "native/base/types.h"
#include "native/raft/types.h"

namespace curve::replica {

class EntryPool;

struct Entry {
  CopysetId group = 0;
  Index index = 0;
  Term term = 0;
  raft::EntryType type = raft::EntryType::kData;
  std::vector<std::byte> head;        // what the state machine wrote; opaque here
  std::vector<uint32_t> sector_crcs;  // CRC32C per payload sector
  base::Buffer payload;               // whole sectors; may be empty
  uint64_t payload_position = 0;      // in the WAL; valid once `placed`; 0 when it is external
  // R4, local to this store: where a payload is that does not stand in the WAL ("external"). Of the
  // state machine, opaque here; empty when the payload is inline.
  std::vector<std::byte> annotation;
  bool placed =
      false;  // handed to the WAL: it has a place there (R6: may be applied once committed)
  void* context = nullptr;  // of the proposer on the leader; cleared when the entry is dropped
  // of the pool:
  uint32_t references = 0;
  EntryPool* pool = nullptr;

  bool is_external() const { return !annotation.empty(); }
  // Not after a restart, and no longer than the cache keeps it: it is in the WAL then.
  bool in_memory() const { return payload.size() == sector_crcs.size() * kSectorBytes; }
  uint32_t bytes() const { return static_cast<uint32_t>(head.size() + payload.size() + 64); }
};

class EntryRef {
 public:
  EntryRef() = default;
  explicit EntryRef(Entry* entry) : entry_(entry) {
    if (entry_) ++entry_->references;
  }
  EntryRef(const EntryRef& other) : EntryRef(other.entry_) {}
  EntryRef(EntryRef&& other) noexcept : entry_(std::exchange(other.entry_, nullptr)) {}
  EntryRef& operator=(EntryRef other) noexcept {
    std::swap(entry_, other.entry_);
    return *this;
  }
  ~EntryRef();
  Entry* get() const { return entry_; }
  Entry* operator->() const { return entry_; }
  Entry& operator*() const { return *entry_; }
  explicit operator bool() const { return entry_ != nullptr; }

 private:
  Entry* entry_ = nullptr;
};

class EntryPool {
 public:
  EntryRef take() {
    Entry* entry;
    if (free_.empty()) {
      all_.push_back(std::make_unique<Entry>());
      entry = all_.back().get();
      entry->pool = this;
    } else {
      entry = free_.back();
      free_.pop_back();
    }
    return EntryRef(entry);
  }
  void give_back(Entry* entry) {
    entry->head.clear();
    entry->sector_crcs.clear();
    entry->annotation.clear();
    entry->payload = {};
    entry->context = nullptr;
    entry->placed = false;
    entry->payload_position = 0;
    free_.push_back(entry);
  }

 private:
  std::vector<std::unique_ptr<Entry>> all_;
  std::vector<Entry*> free_;
};

inline EntryRef::~EntryRef() {
  if (entry_ && --entry_->references == 0) entry_->pool->give_back(entry_);
}

}  // namespace curve::replica
