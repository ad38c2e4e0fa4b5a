// What the stores hold once a run has come to rest and has made its checkpoints:
//  - equality: every replica of a copyset has the same sectors, by checksum;
//  - space: no block is allocated without a written sector in it, none is reserved (R8), nothing of
//    a deleted volume is kept; what the store counts as it goes is what a count finds;
//  - checksum truth: the bytes in the data file have the checksum that the map says, on every
//    store, where there was damage after its repair (R11); no store without it has read damage.
// Reads the virtual disks beside the code under test. Thread: the world's.
#pragma once

#include <string>

#include "native/sim/director.h"
#include "native/sim/store_node.h"
#include "native/sim/verdict.h"

namespace curve::sim {

class ContentChecker {
 public:
  ContentChecker(Verdict& verdict, StoreNodes& stores, const Director& director)
      : verdict_(verdict), stores_(stores), director_(director) {}
  void check();
  std::string damage();  // a sector whose bytes have not the checksum of the map; empty: none

 private:
  void compare_copyset(size_t index);
  std::string sector_everywhere(size_t index, const ChunkKey& chunk, uint32_t sector);
  void check_space();
  std::string damage_of(size_t index);

  Verdict& verdict_;
  StoreNodes& stores_;
  const Director& director_;
};

}  // namespace curve::sim
