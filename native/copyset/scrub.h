// Scrub: the whole store is read in the background, slowly, block by block and page by page; what
// is damaged is repaired (repair.h). Replicas are compared: an entry of the log (kDigest) makes
// each of them say what it holds of a chunk at that very index, whatever goes on meanwhile (R6);
// where one differs from most others, the leader writes its own content again, as an entry like any
// other; where it is the leader, another one leads, and compares again. Source files: scrub.cc
// (reading), compare.cc (comparing).
//
// Invariants: one block is read at a time; foreground work goes first. The position is part of the
// store's record in the checkpoint, so that a restart goes on where it was. A rewrite is proposed
// only if the leader holds what most replicas hold, nothing appended touches the block, and the
// content is what it has applied (R11). One loop thread.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "native/base/bytes.h"
#include "native/copyset/server_state.h"

namespace curve::copyset {

// kChunkDigest; then one digest (u32) per block of the chunk.
struct ChunkDigestBody {
  CopysetId copyset = 0;
  VolumeId volume = 0;
  uint64_t id = 0;
  Index index = 0;
  uint32_t chunk = 0;
  uint32_t damaged_blocks = 0;  // kOfSeveralIndexes: there is nothing to compare here
};
static_assert(sizeof(ChunkDigestBody) == 40);
inline constexpr uint32_t kOfSeveralIndexes = UINT32_MAX;

class Scrub {
 public:
  explicit Scrub(StoreServer::State& server);
  ~Scrub();
  void start();
  void stop();
  bool idle() const { return !reading_ && readers_.empty(); }
  void begin(uint64_t bytes_per_second);
  ScrubStatus status() const;
  void encode(base::Writer& writer) const;
  void decode(base::Reader& reader);

  void check(const CheckRequest& request, std::function<void(CheckReport)> done);
  void applied(Copyset& copyset, const DigestCommand& command, Index index);
  void digest(const StoreId& peer, wire::Frame& frame);
  void peer_closed(const StoreId& peer);
  void leads(const Copyset& copyset);  // this store, from now on

 private:
  using Digests = std::array<uint32_t, kBlocksPerChunk>;
  struct Answer {
    uint32_t damaged_blocks = 0;
    Digests digests{};
  };
  struct Comparison;
  struct Check;
  struct Reader;
  // scrub.cc
  void tick();
  void arm(uint64_t delay_ns);
  bool next_page();
  bool being_filled(CopysetId copyset) const;
  bool read_next_block();
  void page_done(int32_t result);
  void block_done(int32_t result);
  void chunk_done();
  void finish();

  // compare.cc
  void compare(Copyset& copyset, const ChunkKey& chunk, bool verify,
               std::function<void(Comparison&, Code)> done);
  void proposed(uint64_t id, Code code);
  void accept(const StoreId& store, const ChunkDigestBody& body, const Digests& digests);
  void send(const StoreId& asker, const ChunkDigestBody& body, const Digests& digests);
  Digests digests_of(const Copyset& copyset, const ChunkKey& chunk) const;
  void read_chunk(Copyset& copyset, const StoreId& asker, const ChunkDigestBody& body,
                  const Digests& digests);
  void reader_next(Reader* reader);
  void end(uint64_t id, Code code);
  void expire();
  static Digests most(const Comparison& comparison, const StoreId& self);
  void restore(Comparison& comparison, const Digests& wanted);
  bool hand_over(Comparison& comparison, const Digests& wanted);
  void restore_block(CopysetId id, const ChunkKey& chunk, uint16_t block);
  bool change_is_coming(Copyset& copyset, const ChunkKey& chunk, uint16_t block) const;
  void propose_restore(Copyset& copyset, const ChunkKey& chunk, uint16_t block,
                       std::span<const std::byte> content, std::span<const uint32_t> crcs);
  void check_next(const std::shared_ptr<Check>& check);
  bool check_chunk(const std::shared_ptr<Check>& check, uint32_t chunk);
  void checked(const std::shared_ptr<Check>& check, Comparison& comparison, Code code);

  StoreServer::State& server_;
  ScrubStatus status_;
  chunkstore::PageId at_;  // the page being read; its copyset 0: none yet
  uint32_t block_ = 0;     // next one of it
  uint64_t yielded_ = 0, since_saved_ = 0;
  bool reading_ = false, stopped_ = false;
  base::Buffer buffer_;
  chunkstore::CheckPageOp page_op_;
  chunkstore::ReadOp read_op_;
  io::Timer timer_, expire_timer_;
  uint64_t next_id_ = 0;
  std::map<uint64_t, std::unique_ptr<Comparison>> comparisons_;
  std::map<Reader*, std::unique_ptr<Reader>> readers_;
  struct Compared {
    CopysetId copyset = 0;
    ChunkKey chunk;
    uint64_t at_ns = 0;
  };
  std::deque<Compared> compared_;  // for others, lately
  std::vector<Compared> again_;    // is led here now
};

}  // namespace curve::copyset
