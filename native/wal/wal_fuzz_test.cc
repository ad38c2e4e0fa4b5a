// Hostile images: recovery of a damaged, shuffled or forged log never crashes, hangs or reads out
// of bounds (run it under the sanitizers), and what it leaves behind is a log that works. Forged:
// fields are changed and CRCs made right again, so that what is behind the CRC check is reached.
#include <gtest/gtest.h>

#include "native/wal/test_log.h"

namespace curve::wal {
namespace {

std::span<std::byte> page_at(sim::VirtualFile& file, uint64_t offset) {
  return {file.make_page(offset / sim::kPageBytes), sim::kPageBytes};
}

// A value that parsers stumble over.
uint64_t nasty(sim::Random& random) {
  static constexpr uint64_t kValues[] = {0,          1,          4095,    4096,        4097,
                                         65536,      1 << 20,    4 << 20, 0x7fffffff,  0xffffffff,
                                         1ull << 40, 1ull << 62, ~0ull,   ~0ull - 4095};
  return random.chance(0.5) ? kValues[random.below(std::size(kValues))]
                            : random.next() >> random.below(64);
}

void forge_anchor(sim::VirtualFile& file, sim::Random& random) {
  for (uint64_t offset : kAnchorOffsets) {
    auto page = page_at(file, offset);
    auto decoded = decode_anchor(page);
    if (!decoded) continue;
    Anchor a = *decoded;
    a.anchor_sequence += random.below(3);
    switch (random.below(9)) {
      case 0:
        a.start_position = nasty(random);
        break;
      case 1:
        a.start_sequence = nasty(random);
        break;
      case 2:
        a.segment_bytes = nasty(random);
        break;
      case 3:
        a.segment_count = nasty(random);
        break;
      case 4:
        a.watermark = nasty(random);
        break;
      case 5:
        a.damage_position = nasty(random);
        break;
      case 6:
        a.boundaries.back().position = nasty(random) / kSectorBytes * kSectorBytes;
        break;
      case 7:
        a.boundaries.back().sequence = nasty(random);
        break;
      case 8:
        a.generation = a.boundaries.back().generation = nasty(random);
        break;
    }
    encode_anchor(a, page);
  }
}

void forge_append(sim::VirtualFile& file, sim::Random& random, uint64_t offset) {
  auto page = page_at(file, offset);
  AppendHeader h;
  std::memcpy(&h, page.data(), sizeof(h));
  if (h.magic != kAppendMagic || h.used_bytes > page.size()) return;
  const uint32_t used_before = h.used_bytes;
  switch (random.below(8)) {
    case 0:
      h.used_bytes = static_cast<uint32_t>(nasty(random));
      break;
    case 1:
      h.record_count = static_cast<uint32_t>(nasty(random));
      break;
    case 2:
      h.payload_bytes = static_cast<uint32_t>(nasty(random)) / kSectorBytes * kSectorBytes;
      break;
    case 3:
      h.sequence = nasty(random);
      break;
    case 4:
      h.watermark = nasty(random);
      break;
    case 5:
      h.generation = nasty(random);
      break;
    case 6:
      h.link = static_cast<uint32_t>(random.next());
      break;
    case 7:
      for (int i = 0; i < 3; ++i)  // lengths within the records
        page[sizeof(h) + random.below(std::max<uint32_t>(1, used_before - sizeof(h)))] =
            static_cast<std::byte>(random.next());
      break;
  }
  h.crc = 0;
  std::memcpy(page.data(), &h, sizeof(h));
  const size_t used =
      h.used_bytes <= page.size() && h.used_bytes >= sizeof(h) ? h.used_bytes : used_before;
  h.crc = base::crc32c(page.first(used));
  std::memcpy(page.data(), &h, sizeof(h));
}

void harm(sim::VirtualFile& file, sim::Random& random) {
  const uint64_t pages = file.size / sim::kPageBytes;
  auto any_page = [&] {
    return random.chance(0.1) ? kAnchorOffsets[random.below(2)]
                              : kDataOffset + random.below(pages - 32) * sim::kPageBytes;
  };
  const uint64_t times = random.skewed(20);
  for (uint64_t i = 0; i < times; ++i) {
    auto page = page_at(file, any_page());
    switch (random.below(6)) {
      case 0:
        page[random.below(page.size())] ^= static_cast<std::byte>(random.between(1, 255));
        break;
      case 1:
        for (auto& b : page) b = static_cast<std::byte>(random.next());
        break;
      case 2:
        std::fill(page.begin(), page.end(), std::byte{0});
        break;
      case 3: {
        auto other = page_at(file, any_page());
        if (other.data() != page.data()) std::memcpy(page.data(), other.data(), page.size());
        break;
      }
      case 4:
        forge_append(file, random, any_page());
        break;
      case 5:
        if (random.chance(0.2)) forge_anchor(file, random);
        break;
    }
  }
}

TEST(HostileImage, RecoveryEndsAndLeavesALogThatWorks) {
  uint64_t opened = 0, refused = 0, damaged = 0;
  for (uint64_t seed = 1; seed <= seeds(250); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    sim::Random random = sim::Random(seed).split("fuzz");
    TestLog log(seed, {.segments = random.between(4, 8)});
    uint64_t id = 0;
    const uint64_t appends = random.skewed(80);
    for (uint64_t i = 0; i < appends; ++i) {
      if (!log.can_append(id + 1))
        log.release(std::min(log.wal().head_position(),
                             log.wal().start_position() + 2 * log.wal().segment_bytes()));
      if (log.append(id + 1)) ++id;
      log.settle();
    }
    log.crash(sim::CrashKind::kKill);
    harm(log.file(), random);
    if (!log.start()) {
      ++refused;
      EXPECT_FALSE(log.refusal().empty());
      continue;
    }
    ++opened;
    damaged += log.report().damaged;
    const auto first = log.seen();
    // Whatever was seen can be asked for; answers may be errors.
    for (const Seen& seen : first) {
      RecordReadOp op;
      log.read_record(seen.places[0], &op);
    }
    log.restart(sim::CrashKind::kPower);
    ASSERT_EQ(log.seen().size(), first.size()) << "the same twice";
    for (size_t i = 0; i < first.size(); ++i) ASSERT_EQ(log.seen()[i].places, first[i].places);
    log.model().clear();
    const size_t known = first.size();
    uint64_t more = 0;
    for (id = 1000; more < 5 && log.can_append(id); ++id, ++more) log.append_and_settle(id);
    log.restart(sim::CrashKind::kPower);
    ASSERT_EQ(log.seen().size(), known + more);
  }
  EXPECT_GT(opened, 100u);
  EXPECT_GT(refused, 3u);
  EXPECT_GT(damaged, 10u);
}

TEST(HostileImage, HeadersOfAnyBytes) {
  sim::Random random(5);
  std::vector<std::byte> bytes(8192);
  for (int i = 0; i < 20000; ++i) {
    AppendHeader h{.used_bytes = static_cast<uint32_t>(sizeof(AppendHeader) + random.below(600)),
                   .log_id = 1,
                   .generation = 1,
                   .sequence = 2,
                   .position = 65536,
                   .watermark = 1,
                   .record_count = static_cast<uint32_t>(random.below(6))};
    for (auto& b : bytes)
      b = random.chance(0.7) ? std::byte{0} : static_cast<std::byte>(random.next());
    std::memcpy(bytes.data(), &h, sizeof(h));
    h.crc = base::crc32c(std::span(bytes).first(h.used_bytes));
    std::memcpy(bytes.data(), &h, sizeof(h));
    // A heap block of exactly that size: the sanitizer sees each byte beyond it.
    const std::vector<std::byte> exact(bytes.begin(), bytes.begin() + h.used_bytes);
    AppendHeader out;
    if (peek_append(bytes, 1, &out) && check_append(exact)) {
      RecordReader reader(exact);
      RecordView view;
      while (reader.next(&view)) EXPECT_LE(view.head_content.size(), exact.size());
    }
    FooterTrailer trailer;
    check_footer(std::span(exact).first(sizeof(trailer)), 1, 65536, &trailer);
  }
}

}  // namespace
}  // namespace curve::wal
