// libFuzzer target: a chunkserver's files with any damage. The input is a list of patches to the
// files of a store that was in use; checksums over what was patched may be made right again, so
// that what is behind them is reached. Opening refuses with a sentence or works, and does not hang.
#include <cstdlib>

#include "native/base/log.h"
#include "native/chunkstore/layout.h"
#include "native/wal/format.h"
#include "small_cluster.h"

namespace {

using namespace curve;

// The pages of a file that hold anything: where patches go.
struct UsedPage {
  uint64_t index;
  sim::Page bytes;
};
using Pages = std::vector<UsedPage>;

Pages used_pages(sim::VirtualFile& file) {
  Pages out;
  for (uint64_t index = 0; index < file.page_count(); ++index) {
    const std::byte* const page = file.page(index);
    if (!page) continue;
    UsedPage& used = out.emplace_back();
    used.index = index;
    std::memcpy(used.bytes.data(), page, sim::kPageBytes);
    if (used.bytes == sim::Page{}) out.pop_back();
  }
  return out;
}

void put_pages(sim::VirtualFile& file, const Pages& pages) {
  file.put_zeros(0, file.page_count() * sim::kPageBytes);
  for (const UsedPage& page : pages) file.put(page.index * sim::kPageBytes, page.bytes);
}

struct Image {
  Pages wal, data;
};

// A store in use: writes of several shapes, a checkpoint, writes behind it, killed.
Image make_image() {
  fuzz::SmallCluster cluster;
  cluster.create();
  cluster.connect();
  for (uint32_t i = 0; i < 12; ++i)
    cluster.write(i % 3, i * 5 * kSectorBytes, (1 + i % 5) * kSectorBytes, static_cast<int>(i + 1));
  cluster.world().run_for(1 * sim::kSecond);
  for (uint32_t i = 0; i < 6; ++i)
    cluster.write(1, i * 17 * kSectorBytes, kSectorBytes, static_cast<int>(i + 50));
  cluster.world().crash(cluster.store_node(), sim::CrashKind::kKill);
  sim::VirtualFile& wal = *cluster.store_node().disk->find("/store/wal");
  sim::VirtualFile& data = *cluster.store_node().disk->find("/store/data");
  return {used_pages(wal), used_pages(data)};
}

// The CRC of whatever structure the page begins with.
void repair(sim::Page& page) {
  wal::AppendHeader append;
  std::memcpy(&append, page.data(), sizeof(append));
  if (append.magic == wal::kAppendMagic) {
    if (append.used_bytes < sizeof(append) || append.used_bytes > page.size()) return;
    append.crc = 0;
    std::memcpy(page.data(), &append, sizeof(append));
    append.crc = base::crc32c(std::span(page).first(append.used_bytes));
    std::memcpy(page.data(), &append, sizeof(append));
    return;
  }
  const auto reseal = [&]<class T>(T structure) {
    std::memcpy(&structure, page.data(), sizeof(structure));
    structure.crc = chunkstore::seal_of(structure);
    std::memcpy(page.data(), &structure, sizeof(structure));
  };
  uint64_t magic = 0;
  std::memcpy(&magic, page.data(), sizeof(magic));
  if (magic == chunkstore::kSuperblockMagic) reseal(chunkstore::Superblock{});
  if (magic == chunkstore::kRootMagic) reseal(chunkstore::RootHeader{});
  if (static_cast<uint32_t>(magic) == chunkstore::kPageMagic) reseal(chunkstore::PageSlot{});
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  base::set_log_level(base::LogLevel::kError);
  static const Image image = make_image();
  const Pages* const used[2] = {&image.wal, &image.data};

  fuzz::SmallCluster cluster;
  cluster.start();
  cluster.world().crash(cluster.store_node(), sim::CrashKind::kKill);
  sim::VirtualFile* files[2] = {cluster.store_node().disk->find("/store/wal"),
                                cluster.store_node().disk->find("/store/data")};
  for (int which = 0; which < 2; ++which) put_pages(*files[which], *used[which]);

  // Patch: file and repair, page (of those in use), offset, count, bytes.
  for (size_t at = 0; at + 6 <= size;) {
    const uint8_t kind = data[at];
    const int which = kind & 1;
    const size_t chosen = (data[at + 1] << 8 | data[at + 2]) % used[which]->size();
    const uint64_t place = (*used[which])[chosen].index * sim::kPageBytes;
    sim::Page page;
    files[which]->read(place, page);
    const size_t offset = (data[at + 3] << 8 | data[at + 4]) % sim::kPageBytes;
    const size_t count =
        std::min<size_t>({size_t{1} + data[at + 5] % 16, sim::kPageBytes - offset, size - at - 6});
    std::memcpy(page.data() + offset, data + at + 6, count);
    if (kind & 2) repair(page);
    if (kind & 4) page = sim::Page{};
    files[which]->put(place, page);
    at += 6 + count;
  }
  cluster.world().restart(cluster.store_node());
  if (!cluster.running()) {
    if (cluster.refusal().empty()) std::abort();
    return 0;
  }
  cluster.world().run_for(600 * sim::kMillisecond);
  if (!cluster.running()) return 0;
  for (const auto& [copyset, group] : cluster.server().replica().groups()) {
    cluster.server().visit_sectors(
        copyset, [](const ChunkKey&, uint32_t, copyset::StoreServer::SectorView) {});
  }
  return 0;
}
