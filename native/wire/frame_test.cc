// Frames without a network: what was queued comes out of the assembler whatever way the bytes are
// cut, and bytes of a hostile peer are refused before memory is taken for them.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "native/wire/codec.h"
#include "native/wire/frame_assembler.h"
#include "native/wire/handshake.h"
#include "native/wire/transmit_queue.h"

namespace curve::wire {
namespace {

using Bytes = std::vector<std::byte>;
using Step = FrameAssembler::Step;

Bytes pattern(size_t bytes, uint32_t seed) {
  std::minstd_rand random(seed + 1);
  Bytes out(bytes);
  for (auto& b : out) b = static_cast<std::byte>(random());
  return out;
}

struct Sent {
  FrameType type;
  uint64_t tag;
  Bytes body, payload;
};

class FrameTest : public testing::Test {
 protected:
  base::BufferPool pool;

  base::Buffer buffer(const Bytes& from) {
    auto out = pool.take(from.size());
    std::copy(from.begin(), from.end(), out.data());
    return out;
  }
  Bytes drain(TransmitQueue& queue) {
    Bytes out;
    while (!queue.empty()) {
      for (const iovec& part : queue.begin_send()) {
        auto* from = static_cast<std::byte*>(part.iov_base);
        out.insert(out.end(), from, from + part.iov_len);
      }
      queue.sent();
    }
    return out;
  }
  Bytes encode(const std::vector<Sent>& frames) {
    TransmitQueue queue;
    for (const auto& f : frames) {
      const size_t half = f.body.size() / 2;
      const std::span<const std::byte> body(f.body);
      base::Buffer payload = f.payload.empty() ? base::Buffer() : buffer(f.payload);
      queue.push(f.type, f.tag, body.first(half), body.subspan(half), payload, 0,
                 static_cast<uint32_t>(f.payload.size()));
    }
    return drain(queue);
  }
  // Feeds `bytes` in pieces of at most `piece_max`; returns what came out, and the last step.
  std::pair<std::vector<Sent>, Step> decode(const Bytes& bytes, size_t piece_max,
                                            bool authenticated = true) {
    FrameAssembler assembler(pool);
    if (authenticated) assembler.authenticated();
    std::vector<Sent> out;
    size_t at = 0;
    for (;;) {
      Frame frame;
      const Step step = assembler.next(frame);
      if (step == Step::kFrame) {
        out.push_back({frame.type, frame.tag, Bytes(frame.body.begin(), frame.body.end()),
                       Bytes(frame.payload.bytes().begin(), frame.payload.bytes().end())});
        continue;
      }
      if (step != Step::kMore || at == bytes.size()) return {out, step};
      const auto window = assembler.window();
      EXPECT_FALSE(window.into.empty());
      const size_t n = std::min({window.into.size(), piece_max, bytes.size() - at});
      std::copy_n(bytes.begin() + static_cast<ptrdiff_t>(at), n, window.into.begin());
      assembler.received(n);
      at += n;
    }
  }
};

TEST_F(FrameTest, EveryCutOfTheStreamGivesTheSameFrames) {
  std::vector<Sent> frames;
  uint32_t seed = 0;
  for (size_t payload : {0, 4096, 512, 32768, 100, 1048576, 0, 65536, 4096, 20000}) {
    for (size_t body : {0, 48, 300}) {
      frames.push_back({FrameType::kWrite, ++seed, pattern(body, seed), pattern(payload, seed)});
    }
  }
  frames.push_back({FrameType::kPeerAppendReplies, 77, pattern(kBodyBytesMax, 5), {}});
  frames.push_back({FrameType::kPeerAppendReplies, 78, pattern(kBodyBytesMax, 6), pattern(40, 1)});
  frames.push_back({FrameType::kReply, 79, pattern(60'000, 7), pattern(31'000, 2)});
  const Bytes bytes = encode(frames);
  for (size_t piece : {size_t{7}, size_t{1000}, size_t{4096}, size_t{65536}, bytes.size()}) {
    auto [got, step] = decode(bytes, piece);
    EXPECT_EQ(step, Step::kMore);
    ASSERT_EQ(got.size(), frames.size()) << piece;
    for (size_t i = 0; i < got.size(); ++i) {
      EXPECT_EQ(got[i].tag, frames[i].tag);
      EXPECT_TRUE(got[i].body == frames[i].body) << i;
      EXPECT_TRUE(got[i].payload == frames[i].payload) << i;
    }
  }
  EXPECT_EQ(pool.used_bytes(), 0u);
}

TEST_F(FrameTest, ManyFramesNeedSeveralSends) {
  TransmitQueue queue;
  auto payload = buffer(pattern(4096, 1));
  for (uint64_t tag = 0; tag < 2000; ++tag)
    queue.push(FrameType::kWrite, tag, {}, {}, payload, 1024, 512);
  EXPECT_EQ(queue.bytes(), 2000u * (24 + 512));
  auto [got, step] = decode(drain(queue), 1 << 20);
  ASSERT_EQ(got.size(), 2000u);
  EXPECT_EQ(got[1999].tag, 1999u);
  EXPECT_TRUE(std::equal(got[5].payload.begin(), got[5].payload.end(), payload.data() + 1024));
  EXPECT_EQ(queue.bytes(), 0u);
}

TEST_F(FrameTest, LengthsAreCheckedBeforeMemoryIsTaken) {
  struct Case {
    uint32_t body, payload;
    bool authenticated;
  };
  for (const Case c : {Case{kBodyBytesMax + 1, 0, true}, Case{0, kPayloadBytesMax + 1, true},
                       Case{0xffffffff, 0xffffffff, true},
                       Case{kHandshakeBodyBytesMax + 1, 0, false}, Case{0, 1, false}}) {
    FrameHeader header;
    header.type = FrameType::kHello;
    header.body_bytes = c.body;
    header.payload_bytes = c.payload;
    const auto raw = body_bytes(header);
    const size_t before = pool.used_bytes();
    auto [got, step] = decode(Bytes(raw.begin(), raw.end()), 100, c.authenticated);
    EXPECT_EQ(step, Step::kMalformed);
    EXPECT_TRUE(got.empty());
    EXPECT_EQ(pool.used_bytes(), before);
  }
}

TEST_F(FrameTest, AnotherVersionIsToldFromGarbage) {
  Bytes bytes = encode({{FrameType::kHello, 0, pattern(88, 1), {}}});
  Bytes newer = bytes;
  newer[2] = std::byte{2};
  EXPECT_EQ(decode(newer, 100, false).second, Step::kVersion);
  Bytes garbage = bytes;
  garbage[0] = std::byte{'G'};
  EXPECT_EQ(decode(garbage, 100, false).second, Step::kMalformed);
}

TEST_F(FrameTest, AnUnauthenticatedPeerGetsFourKibibytes) {
  std::vector<Sent> frames(60, Sent{FrameType::kHello, 0, pattern(88, 1), {}});
  auto [got, step] = decode(encode(frames), 200, false);
  EXPECT_EQ(step, Step::kMalformed);
  EXPECT_LE(got.size(), kUnauthenticatedBytesMax / (24 + 88));
}

TEST_F(FrameTest, EveryFlippedBitOfHeaderAndBodyIsSeen) {
  const Bytes good = encode({{FrameType::kReply, 9, pattern(64, 1), pattern(512, 2)}});
  for (size_t bit = 0; bit < (24 + 64) * 8; ++bit) {
    Bytes bad = good;
    bad[bit / 8] ^= static_cast<std::byte>(1u << (bit % 8));
    bad.resize(bad.size() + kBodyBytesMax +
               kPayloadBytesMax);  // a longer frame would be complete, too
    auto [got, step] = decode(bad, 1 << 20);
    EXPECT_TRUE(got.empty()) << bit;
    EXPECT_NE(step, Step::kFrame);
  }
}

TEST_F(FrameTest, RandomAndMutatedAndTruncatedBytesDoNoHarm) {
  std::mt19937 random(4711);
  const Bytes good = encode({{FrameType::kWrite, 1, pattern(52, 1), pattern(4096, 1)},
                             {FrameType::kWrite, 2, pattern(52, 2), pattern(40000, 1)},
                             {FrameType::kReply, 3, pattern(32, 3), {}}});
  for (int round = 0; round < 1500; ++round) {
    Bytes bytes = good;
    if (round % 3 == 0) bytes = pattern(random() % 3000, random());
    for (size_t i = random() % 4; i > 0 && !bytes.empty(); --i)
      bytes[random() % bytes.size()] = static_cast<std::byte>(random());
    if (round % 2) bytes.resize(random() % (bytes.size() + 1));
    auto [got, step] = decode(bytes, 1 + random() % 5000, round % 5 != 0);
    EXPECT_LE(got.size(), 3u);
  }
  EXPECT_EQ(pool.used_bytes(), 0u);
}

TEST(HandshakeTest, ProofsBindSecretNoncesIdentitiesAndRole) {
  const Bytes secret = pattern(32, 1), other = pattern(32, 2);
  HelloBody hello;
  hello.role = 1;
  hello.identity.bytes[0] = 1;
  hello.nonce[3] = 7;
  ChallengeBody challenge;
  challenge.identity.bytes[0] = 2;
  challenge.nonce[9] = 9;
  prove_acceptor(secret, hello, challenge);
  ProofBody proof;
  prove_dialer(secret, hello, challenge, proof);
  EXPECT_TRUE(acceptor_proved(secret, hello, challenge));
  EXPECT_TRUE(dialer_proved(secret, hello, challenge, proof));

  EXPECT_FALSE(acceptor_proved(other, hello, challenge));
  EXPECT_FALSE(dialer_proved(other, hello, challenge, proof));
  ProofBody reflected;  // the acceptor's own mac sent back as the dialer's
  std::copy_n(challenge.mac, sizeof(challenge.mac), reflected.mac);
  EXPECT_FALSE(dialer_proved(secret, hello, challenge, reflected));
  for (size_t byte = 0; byte < sizeof(HelloBody); ++byte) {
    HelloBody changed = hello;
    reinterpret_cast<uint8_t*>(&changed)[byte] ^= 1;
    EXPECT_FALSE(acceptor_proved(secret, changed, challenge)) << byte;
    EXPECT_FALSE(dialer_proved(secret, changed, challenge, proof)) << byte;
  }
  for (size_t byte = 0; byte < sizeof(StoreId) + 32; ++byte) {
    ChallengeBody changed = challenge;
    reinterpret_cast<uint8_t*>(&changed)[byte] ^= 1;
    EXPECT_FALSE(acceptor_proved(secret, hello, changed)) << byte;
    EXPECT_FALSE(dialer_proved(secret, hello, changed, proof)) << byte;
  }
}

}  // namespace
}  // namespace curve::wire
