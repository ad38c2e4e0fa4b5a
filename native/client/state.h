// The inside of the volume client, shared by its .cc files: pieces, links to stores, copysets. See
// volume_client.h.
//
// R13, the whole argument. A write must not be applied after a newer acknowledged write to the same
// place. A write may be on its way in several copies. Copy k + 1 is sent only when one of these
// holds:
//   (a) copy k was answered with a refusal: it was not proposed, or (kDropped) it was proposed in a
//   term that is over; (b) copy k + 1 carries a higher term than copy k. A copy with term T can be
//   proposed only by the leader of T, in T. If
//       that entry is in the log of the later leader when it is elected, it stands before
//       everything of the later term. If it is not, it can never be committed: a log that holds an
//       entry of a later term has no entry of T behind it, and (log matching) none before it that
//       this leader does not have. So the old connection need not be closed first;
//   (c) copy k + 1 carries the same term, so it goes to the same store, over a connection with a
//   higher counter: the
//       chunkserver shuts the old connection and drops what it has not proposed before it admits
//       the new one.
// Only the answer to the newest copy counts (Piece::generation): otherwise the write could be
// acknowledged by copy k while copy k + 1 is still to be proposed, after a newer write.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "native/client/volume_client.h"
#include "native/wire/connection.h"

namespace curve::client {

struct Copyset;
struct Link;

inline constexpr uint32_t kCrcsInline = 17;  // a 64 KiB write that is not sector-aligned

// One request to one copyset.
struct Piece : base::ListHook {  // in a link's inflight list, in a copyset's waiting list, or free
  IoRequest* request = nullptr;  // null: free
  Copyset* copyset = nullptr;
  Link* link = nullptr;  // sent over it, not answered
  uint32_t slot = 0;
  uint32_t generation = 0;  // of the newest copy
  wire::FrameType type{};
  uint32_t flags = 0;
  uint32_t chunk = 0, offset_bytes = 0, bytes = 0;  // on the wire
  uint64_t request_at = 0;                          // where in the request the wanted bytes belong
  uint32_t crop_bytes = 0, wanted_bytes = 0;        // kRead: of what comes
  Term sent_term = 0;
  uint64_t sent_ns = 0;
  uint32_t redirects = 0;
  uint32_t damaged = 0;  // refusals because its data arrived damaged
  uint32_t crc_count = 0;
  std::array<uint32_t, kCrcsInline> crcs_inline;
  base::Buffer crcs;  // when they do not fit there
  base::Buffer payload;
  uint32_t payload_at = 0;
};

// The connection to one store.
struct Link {
  struct VolumeClientState* state = nullptr;
  StoreId store;
  io::Address address;
  wire::Connection* connection = nullptr;  // dialling or open
  bool open = false;
  bool retired = false;  // not in the map any more
  bool dialled_before = false;
  uint64_t backoff_ns = 0;
  io::Timer redial;
  base::List<Piece> inflight;  // oldest first
};

struct Copyset {
  struct VolumeClientState* state = nullptr;
  uint32_t index = 0;
  CopysetId id = 0;
  std::vector<Link*> replicas;
  Link* preferred = nullptr;
  Link* leader = nullptr;  // Invariant: open, or null
  Term term = 0;           // Invariant: never falls
  bool searching = false;
  bool backing_off = false;  // pieces wait for `retry`
  uint64_t backoff_ns = 0;
  uint64_t search_began_ns = 0;
  uint64_t probed_ns = 0;
  io::Timer retry;
  base::List<Piece> waiting;
};

struct VolumeClientState {
  VolumeClientState(io::Loop& the_loop, base::BufferPool& the_pool, VolumeMap the_map,
                    std::span<const std::byte> the_secret, const ClientOptions& the_options);

  io::Loop& loop;
  base::BufferPool& pool;
  VolumeMap map;
  std::vector<std::byte> secret;
  ClientOptions options;
  wire::Identity identity;
  std::vector<std::unique_ptr<Link>> links;
  std::vector<Link*> link_of_store;  // by index in map.stores
  std::vector<std::unique_ptr<Copyset>> copysets;
  std::unique_ptr<Piece[]> pieces;
  std::vector<uint32_t> free_pieces;
  uint64_t inflight_bytes = 0;
  uint64_t dials = 0;               // R13: counter of the newest connection, whatever its link
  base::List<IoRequest> waiting;    // not fully split
  base::List<IoRequest> completed;  // `done` runs from the loop
  io::Timer later;                  // runs `completed`, ends close()
  io::Timer watch;                  // looks for silence while something is in flight
  bool fenced = false;
  bool closing = false;
  std::function<void()> closed;
  ClientStats stats;
  base::Buffer zeros;

  // requests (volume_client.cc)
  Code check(const IoRequest& request) const;
  void submit(IoRequest* request);
  void admit();
  void finish_piece(Piece* piece, Code code);
  void finish_request(IoRequest* request);
  void finish_later(IoRequest* request);
  void run_later();
  void fail_all(Code code);
  void release(Piece* piece);
  void complete_read(Piece* piece, wire::Frame& frame);
  void complete_block_status(Piece* piece, const wire::Frame& frame);

  // splitting (split.cc)
  bool make_piece(IoRequest* request,
                  Piece* piece);  // false: nothing is to be done for these bytes
  void fill_payload(IoRequest* request, Piece* piece);
  void fill_zeros(Piece* piece);
  bool intact(const Piece& piece) const;  // the data still is what the checksums were computed of

  // routing (routing.cc)
  void adopt_stores();
  void adopt_copysets();
  void dispatch(Piece* piece);
  void send(Piece* piece, Link* link);
  void dispatch_waiting(Copyset* copyset);
  void recall(Piece* piece);  // from its link, to its copyset's waiting list
  void search(Copyset* copyset);
  void back_off(Copyset* copyset);
  void probe(Copyset* copyset, Link* link);
  void probe_all(Copyset* copyset);
  void retry(Copyset* copyset);
  void learn(Copyset* copyset, Link* link, Term term);
  void on_reply(Link* link, wire::Frame& frame);
  void on_refusal(Piece* piece, Link* link, const wire::ReplyBody& reply);
  bool give_up_damaged(Piece* piece);
  void send_trace(const Piece& piece, Link* link);
  void on_probe_reply(Link* link, uint32_t copyset, const wire::ReplyBody& reply);
  Link* replica_of(Copyset* copyset, const StoreId& store) const;
  void look_for_silence();

  // links (link.cc)
  Link* find_link(const StoreId& store) const;
  void dial(Link* link);
  void link_opened(Link* link, wire::Connection* connection);
  void link_closed(Link* link);
};

void copy_from_iov(std::span<const iovec> iov, uint64_t at, std::span<std::byte> to);
void copy_to_iov(std::span<const iovec> iov, uint64_t at, std::span<const std::byte> from);

}  // namespace curve::client
