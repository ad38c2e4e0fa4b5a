#include "native/sim/content_checker.h"

#include <algorithm>

#include "native/base/crc32c.h"
#include "native/sim/disk.h"

namespace curve::sim {

void ContentChecker::check() {
  for (size_t index = 0; index < stores_.copysets().size() && !verdict_.failed(); ++index)
    compare_copyset(index);
  if (const std::string bad = damage(); !bad.empty()) verdict_.fail("checksum truth", bad);
  check_space();
}

std::string ContentChecker::damage() {
  std::string found;
  for (size_t index = 0; index < stores_.copysets().size() && found.empty(); ++index)
    found = damage_of(index);
  return found;
}

std::string ContentChecker::damage_of(size_t index) {
  std::string found;
  for (size_t number : stores_.copysets()[index]) {
    StoreNode* store = stores_.running(number);
    const VirtualFile* data = stores_.node(number).disk->find("/store/data");
    if (!store || !data) continue;
    std::array<std::byte, kSectorBytes> bytes;
    store->server().visit_sectors(
        stores_.copyset_id(index),
        [&](const ChunkKey& chunk, uint32_t sector, copyset::StoreServer::SectorView view) {
          if (view.data_offset_bytes == 0 || !found.empty()) return;
          data->read(view.data_offset_bytes, bytes);
          if (base::crc32c(bytes) == view.crc) return;
          found = "store " + std::to_string(number) +
                  " has other bytes than its map says at volume " + std::to_string(chunk.volume) +
                  " chunk " + std::to_string(chunk.chunk) + " sector " + std::to_string(sector);
        });
  }
  return found;
}

// What each replica holds of one sector, for messages.
std::string ContentChecker::sector_everywhere(size_t index, const ChunkKey& chunk,
                                              uint32_t sector) {
  std::string out;
  for (size_t number : stores_.copysets()[index]) {
    StoreNode* store = stores_.running(number);
    if (!store) continue;
    std::string value = "unwritten";
    store->server().visit_sectors(
        stores_.copyset_id(index),
        [&](const ChunkKey& key, uint32_t at, copyset::StoreServer::SectorView view) {
          if (key == chunk && at == sector && view.written)
            value = "CRC " + std::to_string(view.crc);
        });
    replica::ReplicaGroup* group = store->server().replica().find(stores_.copyset_id(index));
    out += "\n  store " + std::to_string(number) + ": " + value + "; " + describe(group->raft());
  }
  return out;
}

void ContentChecker::compare_copyset(size_t index) {
  using Sectors = std::map<std::pair<ChunkKey, uint32_t>, copyset::StoreServer::SectorView>;
  const CopysetId id = stores_.copyset_id(index);
  Sectors reference;
  size_t reference_store = 0;
  for (size_t number : stores_.copysets()[index]) {
    StoreNode* store = stores_.running(number);
    if (!store) return;
    Sectors mine;
    store->server().visit_sectors(
        id, [&](const ChunkKey& chunk, uint32_t sector, copyset::StoreServer::SectorView view) {
          if (view.written) mine[{chunk, sector}] = view;
        });
    if (number == stores_.copysets()[index].front()) {
      reference = std::move(mine);
      reference_store = number;
      continue;
    }
    auto a = reference.begin();
    auto b = mine.begin();
    while (a != reference.end() || b != mine.end()) {
      const bool same = a != reference.end() && b != mine.end() && a->first == b->first &&
                        a->second.crc == b->second.crc;
      if (!same) {
        const auto& at =
            b == mine.end() || (a != reference.end() && a->first < b->first) ? a->first : b->first;
        verdict_.fail("replica equality",
                      "copyset " + std::to_string(index) + " on stores " +
                          std::to_string(reference_store) + " and " + std::to_string(number) +
                          " differs at volume " + std::to_string(at.first.volume) + " chunk " +
                          std::to_string(at.first.chunk) + " sector " + std::to_string(at.second) +
                          sector_everywhere(index, at.first, at.second));
        return;
      }
      ++a;
      ++b;
    }
  }
  verdict_.counts["sectors_compared"] += reference.size();
}

void ContentChecker::check_space() {
  for (size_t number = 0; number < stores_.count(); ++number) {
    StoreNode* store = stores_.running(number);
    if (!store || verdict_.failed()) return;
    if (const Outcome counted = store->server().check(); !counted)
      return verdict_.fail("space",
                           "store " + std::to_string(number) + ": " + counted.error().message);
    const copyset::ServerStatus status = store->server().status(false);
    uint64_t blocks = 0;
    for (size_t index = 0; index < stores_.copysets().size(); ++index) {
      const auto& members = stores_.copysets()[index];
      if (std::find(members.begin(), members.end(), number) == members.end()) continue;
      const auto written = stores_.written_blocks(number, index);
      blocks += written.size();
      for (const auto& [chunk, block] : written) {
        if (director_.is_deleted(chunk.volume))
          verdict_.fail("space", "store " + std::to_string(number) + " keeps a deleted volume");
      }
    }
    const uint64_t used = status.blocks_total - status.blocks_free - status.blocks_pending_free;
    if (used != blocks || status.blocks_reserved != 0) {
      verdict_.fail("space", "store " + std::to_string(number) + " has " + std::to_string(used) +
                                 " blocks in use and " + std::to_string(status.blocks_reserved) +
                                 " reserved, but " + std::to_string(blocks) +
                                 " hold written sectors");
    }
    const Disk& disk = *stores_.node(number).disk;
    if (status.counters.corrupt_reads && !disk.damaged() && !disk.gave_errors())
      verdict_.fail("checksums", "store " + std::to_string(number) + " read damaged sectors");
    verdict_.counts["store_syncs"] += status.counters.syncs_finished;
    verdict_.counts["merges"] += status.counters.merges;
    verdict_.counts["direct_mib"] += status.counters.direct_bytes >> 20;
    verdict_.counts["waited_for_log"] += status.counters.waited;
  }
}

}  // namespace curve::sim
