// For tests: a small language to speak to a store. A sector is filled with one number; reading
// gives the numbers back. TestStore works on any loop that `run` can drive; RealStore brings a
// temporary file on the real implementation.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "native/base/crc32c.h"
#include "native/chunkstore/chunkstore.h"
#include "native/chunkstore/layout.h"

namespace curve::chunkstore {

using Content = std::vector<int>;  // one number per sector; -1: not uniform

struct AlignedBlock {
  AlignedBlock() : data(static_cast<std::byte*>(std::aligned_alloc(4096, kBlockBytes))) {
    std::memset(data, 0xee, kBlockBytes);
  }
  ~AlignedBlock() { std::free(data); }
  AlignedBlock(const AlignedBlock&) = delete;
  AlignedBlock& operator=(const AlignedBlock&) = delete;
  std::span<std::byte> span() { return {data, kBlockBytes}; }
  std::byte* data;
};

// Values from 1; 0 is a sector of zeros. The number is spread so that a torn sector shows.
inline void fill_sector(std::byte* sector, int value) {
  for (uint32_t i = 0; i < kSectorBytes / 4; ++i) {
    const uint32_t word = value == 0 ? 0 : static_cast<uint32_t>(value) + i * 65536;
    std::memcpy(sector + i * 4, &word, 4);
  }
}
inline int sector_value(const std::byte* sector) {
  int value;
  std::memcpy(&value, sector, 4);
  std::byte expected[kSectorBytes];
  fill_sector(expected, value);
  return std::memcmp(sector, expected, kSectorBytes) == 0 ? value : -1;
}
inline uint32_t sector_crc(int value) {
  alignas(8) std::byte sector[kSectorBytes];
  fill_sector(sector, value);
  return base::crc32c(sector);
}
inline std::vector<std::byte> bytes_of(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

struct TestStore {
  io::Loop* loop = nullptr;
  std::string path;
  std::function<void(std::function<bool()>)> run;  // drives the loop until the condition holds
  base::BufferPool pool;
  std::unique_ptr<ChunkStore> store;

  ChunkStore* operator->() { return store.get(); }
  void open() {
    auto opened = ChunkStore::open(*loop, pool, path);
    ASSERT_TRUE(opened.ok()) << opened.error().message;
    store = std::move(*opened);
  }
  void close() { store.reset(); }
  void reopen() {
    close();
    open();
  }
  int32_t write(CopysetId copyset, const ChunkKey& chunk, uint16_t block, uint16_t mask, int value,
                Index index);
  Content read(CopysetId copyset, const ChunkKey& chunk, uint16_t block, uint8_t first = 0,
               uint8_t sectors = kSectorsPerBlock, uint32_t* crcs = nullptr);
  int32_t write_block(uint32_t physical, int value) {
    AlignedBlock bytes;
    for (uint32_t i = 0; i < kSectorsPerBlock; ++i)
      fill_sector(bytes.data + i * kSectorBytes, value);
    iovec iov{bytes.data, kBlockBytes};
    io::FileOp op;
    op.iov = {&iov, 1};
    op.durable = true;
    return wait(&op, [&] { store->write_block(&op, physical); });
  }
  int32_t checkpoint(std::vector<GroupBlob> blobs) {
    io::Op op;
    return wait(&op, [&] { store->checkpoint(&op, std::move(blobs)); });
  }
  int32_t wait(io::Op* op, const std::function<void()>& start) {
    bool done = false;
    op->owner = &done;
    op->done = [](io::Op* ended) { *static_cast<bool*>(ended->owner) = true; };
    start();
    EXPECT_FALSE(done) << "done ran inside the call";
    run([&] { return done; });
    return op->result;
  }
};

// An operation that runs while the test goes on.
template <class T>
struct Pending {
  explicit Pending(TestStore& store_in) : store(store_in) {
    op.owner = this;
    op.done = [](io::Op* ended) { ++static_cast<Pending*>(ended->owner)->runs; };
  }
  int32_t wait() {
    if (runs == 0) store.run([&] { return runs > 0; });
    EXPECT_EQ(runs, 1);
    return op.result;
  }
  bool is_done() const { return runs > 0; }
  TestStore& store;
  AlignedBlock bytes;
  T op;
  int runs = 0;
};

struct PendingWrite : Pending<WriteOp> {
  PendingWrite(TestStore& store_in, CopysetId copyset, const ChunkKey& chunk, uint16_t block,
               uint16_t mask, int value, Index index)
      : Pending(store_in) {
    for (uint32_t i = 0; i < kSectorsPerBlock; ++i) {
      if (!(mask >> i & 1)) continue;
      fill_sector(bytes.data + i * kSectorBytes, value);
      op.crc[i] = sector_crc(value);
    }
    op.copyset = copyset;
    op.chunk = chunk;
    op.block = block;
    op.mask = mask;
    op.from = bytes.span();
    op.index = index;
    store->write(&op);
    EXPECT_EQ(runs, 0) << "done ran inside the call";
  }
};

struct PendingRead : Pending<ReadOp> {
  PendingRead(TestStore& store_in, CopysetId copyset, const ChunkKey& chunk, uint16_t block,
              uint8_t first, uint8_t sectors, uint32_t* crcs = nullptr)
      : Pending(store_in) {
    op.copyset = copyset;
    op.chunk = chunk;
    op.block = block;
    op.first_sector = first;
    op.sectors = sectors;
    op.into = bytes.span().first(size_t{sectors} * kSectorBytes);
    op.crcs = crcs;
    store->read(&op);
    EXPECT_EQ(runs, 0) << "done ran inside the call";
  }
  Content content() const {
    Content out;
    for (uint8_t i = 0; i < op.sectors; ++i)
      out.push_back(sector_value(bytes.data + i * kSectorBytes));
    return out;
  }
};

inline int32_t TestStore::write(CopysetId copyset, const ChunkKey& chunk, uint16_t block,
                                uint16_t mask, int value, Index index) {
  return PendingWrite(*this, copyset, chunk, block, mask, value, index).wait();
}
inline Content TestStore::read(CopysetId copyset, const ChunkKey& chunk, uint16_t block,
                               uint8_t first, uint8_t sectors, uint32_t* crcs) {
  PendingRead read(*this, copyset, chunk, block, first, sectors, crcs);
  const int32_t result = read.wait();
  return result == 0 ? read.content() : Content{result};
}

}  // namespace curve::chunkstore
