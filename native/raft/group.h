// One replica of one group: the Raft state machine (Ongaro, "Consensus: Bridging Theory and
// Practice", 2014), sans-IO. Inputs: a message, time (by the Host), a proposal, "this is durable".
// Output: Ready. No clock, socket, file, thread.
//
// Order that the owner keeps: Ready is taken once per turn; what it lists to persist is persisted
// in order; when it is durable on_durable(persist_id) is called, in order. Messages that promise
// something (votes, acknowledgements) come out only after that (R2): whatever is in Ready::send may
// be sent at once. A broken invariant stops the process with a sentence (never continues on a wrong
// state).
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "native/base/status.h"
#include "native/raft/types.h"

namespace curve::raft {

class Host;
struct GroupCore;
struct HostCore;

struct GroupInit {
  CopysetId id = 0;
  // empty: not configured yet (R1): no vote, no candidacy; learns it by sync
  Config config;
  // at or before `base_index` as a rule; a later one cannot be rolled back further
  Index config_index = 0;
  std::vector<ConfigAt> later_configs;  // kConfig entries of `log` behind config_index, in order
  HardState hard;
  Index commit = 0;      // durable lower bound
  Index applied = 0;     // entries through here are in the state machine
  Index base_index = 0;  // entry before the first retained one
  Term base_term = 0;
  std::vector<LogSlot> log;  // base_index + 1 ...
  // R3: may lack entries that it acknowledged; does not vote until filled (or all members answered)
  bool damaged = false;
  bool syncing = false;  // R10: being filled: no candidacy, no acknowledgement
};

struct Ready {
  // != 0: persist the following, in this order, in one append, then on_durable(persist_id)
  uint64_t persist_id = 0;
  bool hard_changed = false;
  HardState hard;
  // the log was cut: entries > truncate_after are void before the new ones count
  bool truncated = false;
  Index truncate_after = 0;
  Index append_first = 0;  // entries [append_first, append_last] are new; 0: none
  Index append_last = 0;
  std::span<const Message> send;  // may be sent at once; valid until the next call into this group
  // committed through (>= every earlier value). Made durable behind what is listed above, in the
  // same order: on a disk it must never speak of entries that are cut in memory only
  Index commit = 0;
  bool role_changed = false;  // role, term, leader below changed since the last Ready
  Role role = Role::kFollower;
  Term term = 0;
  StoreId leader;
  // a leader offers sync: the owner starts filling (R10). Repeated while it goes on; the owner
  // passes over those from a store that it is being filled by already
  bool sync_offered = false;
  StoreId sync_from;
  Index sync_index = 0;
  // R3: damaged() became false since the last Ready; the owner may make that durable
  bool damage_cleared = false;
};

struct Progress {  // of one follower, for status
  StoreId store;
  MemberRole role;
  Index match;
  Index next;
  bool active;  // confirmed a beat within the last lease
  bool syncing;
  bool operator==(const Progress&) const = default;
};

class Group {
 public:
  CopysetId id() const;
  Role role() const;
  Term term() const;
  StoreId leader() const;  // none if unknown
  const Config& config() const;
  Index config_index() const;
  // what a checkpoint or a sync carries: the one in force may yet be rolled back
  const Config& committed_config() const;
  Index committed_config_index() const;
  // Leader: the configuration in force is committed, and so is the no-op of the term. Then one of
  // an older term that is not in this log was never committed and never will be.
  bool config_settled() const;
  Index commit() const;
  Index applied() const;
  Index first_index() const;  // first retained; last_index() + 1 when the log is empty
  Index last_index() const;
  Term last_term() const;
  Term term_at(Index index) const;  // 0 when not retained; base counts as retained
  HardState hard() const;
  bool damaged() const;
  bool syncing() const;
  std::vector<Progress> progress() const;  // leader only; allocates, for status
  // Leader only: the highest index that every member has made durable, but for those being filled;
  Index everybody_has() const;
  Index all_have() const;       // and with these
  bool fills_somebody() const;  // R10: leader only: a follower is offered sync, or takes it
  // Leader: the store has durably what is in the log through here; all of the log while it is being
  // filled and so gets nothing of the log; 0: nothing known, or no member.
  Index match_of(const StoreId& store) const;
  Index durable_index() const;  // the log through here is durable on this store

  LogSlot& slot(Index index);  // retained entries only
  // Leader, not transferring away, and its no-op committed not required: entries get [returned,
  // returned + metas.size()). kNotLeader / kBusy (too much in flight), as may_propose() said
  // before. bytes/type of metas are used. Owner then keeps the contents by index.
  Code may_propose() const;
  [[nodiscard]] Code propose(std::span<const EntryMeta> metas, Index* first);
  // One member change: add a learner, promote it, remove a member, or the `preferred` wish. kBusy
  // while one is uncommitted, before the no-op of the term is committed, and for a learner that is
  // not filled yet; kInvalid for anything else, also when `preferred` is no member. The content of
  // the entry is encode_config(config).
  [[nodiscard]] Code propose_config(const Config& config, Index* index);

  // Follower side of kAppend. entries[i].index == message.first + i. The owner keeps the contents
  // of the new entries. For kConfig entries the owner passes the decoded configuration in `configs`
  // (index, config) because it takes effect on append.
  using ConfigAt = raft::ConfigAt;
  AppendVerdict step_append(const Message& message, std::span<const EntryMeta> entries,
                            std::span<const ConfigAt> configs, uint64_t now_ns);
  void step(const Message& message, uint64_t now_ns);  // all other messages

  bool has_ready() const;
  Ready take_ready();
  void on_durable(uint64_t persist_id, uint64_t now_ns);
  void on_applied(Index index);  // state machine has it (<= commit)
  // Forgets entries <= index. R7: only what is applied.
  void trim(Index index);

  // R9. True while a quorum's promise holds and the no-op of this term is applied: a read may be
  // answered now.
  bool lease_valid(uint64_t now_ns) const;
  // The commit index a read must wait for once the lease holds (>= no-op of the term). Leader only.
  Index read_index() const;
  [[nodiscard]] Code transfer_to(const StoreId& store, uint64_t now_ns);
  // Leader: leads no more, and does not stand again for so long unless somebody else leads first.
  // For an owner whose uncommitted entries the others cannot take: one of them leads without them.
  void resign(uint64_t abstain_ns, uint64_t now_ns);

  // Sync (R10), follower side. begin: durable first, by the owner, who may also begin by itself
  // when contents are gone (R4): the leader is asked for an offer then. done: the state machine
  // holds everything through `index`, durably. Entries behind `index` that agree with it stay (they
  // were acknowledged): the log afterwards is (index, last_index()], and the owner keeps those
  // entries durable.
  void begin_sync(uint64_t now_ns);
  void finish_sync(Index index, Term term, const Config& config, Index config_index,
                   uint64_t now_ns);

  ~Group();

 private:
  friend class Host;
  friend struct GroupCore;
  friend struct HostCore;
  std::unique_ptr<GroupCore> core_;
  explicit Group(std::unique_ptr<GroupCore> core);
};

std::vector<std::byte> encode_config(const Config& config);
Result<Config> decode_config(std::span<const std::byte> bytes);

}  // namespace curve::raft
