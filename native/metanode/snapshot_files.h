// Snapshot files of a metaserver: `state-INDEX` holds exactly what the state machine wrote;
// `snapshot` names the newest complete one with its index, term, size, CRC32C and the replica's
// word on the group. Format: docs/formats/metaserver-log.md. Invariant: `snapshot` is replaced by
// rename, after the state file and itself are durable; older state files go afterwards. A state
// file has its name once it is whole and durable; one that could not be written (a full disk)
// leaves nothing. May block; used by one thread at a time per method group (begin/write/commit by
// control, stage/publish/load by the loop).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "native/base/status.h"
#include "native/base/types.h"

namespace curve::metanode {

struct Snapshot {
  Index index = 0;  // 0: none
  Term term = 0;
  uint64_t bytes = 0;
  uint32_t crc = 0;
  std::vector<std::byte> blob;
  std::string path;
};

// Makes names in it durable. May block.
bool sync_directory(const std::string& directory);

class SnapshotFiles {
 public:
  ~SnapshotFiles();
  std::string directory;
  Index index = 0;  // of the one being written

  // Checked against its CRC. index 0 when there is none; kCorrupt with a sentence.
  Result<Snapshot> newest() const;
  Outcome begin(Index at, Term term);
  Outcome write(std::span<const std::byte> data);
  Result<Snapshot> commit(std::span<const std::byte> blob);
  // The state file alone, durable: nothing names it before publish().
  Result<Snapshot> stage(Index at, Term term, const std::string& state) const;
  Result<Snapshot> publish(Snapshot snapshot) const;
  Result<std::string> load(const Snapshot& snapshot) const;

 private:
  Result<Snapshot> finish();
  Error give_up(const std::string& what);
  Term term_ = 0;
  int fd_ = -1;
  uint64_t bytes_ = 0;
  uint32_t crc_ = 0;
  std::string path_;  // of the state file, when it is whole
};

}  // namespace curve::metanode
