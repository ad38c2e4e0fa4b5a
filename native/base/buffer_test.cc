// The pool: classes, alignment, reference counts, reuse and limits.
#include "native/base/buffer.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

namespace curve::base {
namespace {

TEST(BufferPool, GivesAlignedMemoryOfTheNextPowerOfTwo) {
  BufferPool pool;
  struct Case {
    size_t bytes, capacity;
  };
  for (Case c : {Case{1, 4096}, Case{4096, 4096}, Case{4097, 8192}, Case{65536, 65536},
                 Case{65537, 131072}, Case{4u << 20, 4u << 20}}) {
    Buffer buffer = pool.take(c.bytes);
    EXPECT_EQ(buffer.size(), c.bytes);
    EXPECT_EQ(buffer.capacity(), c.capacity);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 4096, 0u);
    std::memset(buffer.data(), 0xa5, buffer.capacity());
  }
  EXPECT_EQ(pool.used_bytes(), 0u);
}

TEST(BufferPool, CopiesShareAndTheLastGivesBack) {
  BufferPool pool;
  Buffer a = pool.take(4096);
  std::byte* memory = a.data();
  Buffer b = a;
  a = Buffer();
  EXPECT_EQ(pool.used_bytes(), 4096u);
  EXPECT_EQ(b.data(), memory);
  Buffer c = std::move(b);
  EXPECT_FALSE(b);
  EXPECT_EQ(b.bytes().size(), 0u);
  c = c;  // NOLINT: self-assignment is allowed
  EXPECT_EQ(pool.used_bytes(), 4096u);
  c = Buffer();
  EXPECT_EQ(pool.used_bytes(), 0u);
  EXPECT_EQ(pool.take(100).data(), memory);
}

TEST(BufferPool, BuffersDoNotOverlap) {
  BufferPool pool;
  std::vector<Buffer> held;
  for (int i = 0; i < 200; ++i) {
    held.push_back(pool.take(i % 3 ? 4096 : 16384));
    std::memset(held.back().data(), i, held.back().capacity());
  }
  for (int i = 0; i < 200; ++i) {
    for (std::byte value : held[i].bytes()) ASSERT_EQ(value, static_cast<std::byte>(i));
  }
}

TEST(BufferPool, FreeMemoryBeyondTheLimitIsUsableAgain) {
  BufferPool pool(0);
  for (int round = 0; round < 3; ++round) {
    std::vector<Buffer> held;
    for (size_t bytes : {4096u, 65536u, 131072u, 1u << 20}) {
      held.push_back(pool.take(bytes));
      std::memset(held.back().data(), round, bytes);
    }
  }
  EXPECT_EQ(pool.used_bytes(), 0u);
}

TEST(BufferPool, WhatIsPreparedIsTakenFirstAndStays) {
  for (auto resident : {BufferPool::Resident::kAtOnce, BufferPool::Resident::kOnUse}) {
    BufferPool pool(16u << 20, resident);
    pool.prepare(1u << 20, 3);  // four fit in two pages of 2 MiB
    std::vector<std::byte*> first;
    for (int round = 0; round < 2; ++round) {
      std::vector<Buffer> held;
      for (int i = 0; i < 5; ++i) {
        held.push_back(pool.take(1u << 20));
        std::memset(held.back().data(), round, held.back().capacity());
        if (round == 0) first.push_back(held.back().data());
        EXPECT_EQ(static_cast<size_t>(held.back().data() - first[0]) < (4u << 20), i < 4) << i;
      }
      for (int i = 1; i < 4; ++i) EXPECT_EQ(first[i], first[0] + (i << 20));
      if (resident == BufferPool::Resident::kAtOnce) {
        EXPECT_EQ(reinterpret_cast<uintptr_t>(first[0]) % (2u << 20), 0u);
      }
    }
    EXPECT_EQ(pool.used_bytes(), 0u);
  }
}

TEST(BufferPoolDeath, MisuseStopsTheProcess) {
  EXPECT_DEATH(
      {
        Buffer kept;
        BufferPool pool;
        kept = pool.take(1);
        pool.~BufferPool();
      },
      "destroyed while buffers are in use");
  BufferPool pool;
  EXPECT_DEATH(pool.take(0), "outside of");
  EXPECT_DEATH(pool.take((4u << 20) + 1), "outside of");
}

}  // namespace
}  // namespace curve::base
