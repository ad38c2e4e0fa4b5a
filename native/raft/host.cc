// Host: groups, peers, time. Beats are in beats.cc.
#include "native/raft/host.h"

#include <algorithm>

#include "native/base/mutant.h"
#include "native/raft/group_core.h"

namespace curve::raft {

HostCore::~HostCore() {
  by_id.clear();  // groups leave peers and timers while those exist
}

uint64_t HostCore::random_between(uint64_t low, uint64_t high) {
  random_state += 0x9e3779b97f4a7c15ull;
  return high <= low ? low : low + mix64(random_state) % (high - low + 1);
}

GroupCore* HostCore::core_of(CopysetId id) {
  auto found = by_id.find(id);
  return found == by_id.end() ? nullptr : found->second->core_.get();
}

void HostCore::init_timer(Timer* timer, TimerKind kind, void* owner) {
  timer->order = ++timer_order;
  timer->kind = kind;
  timer->owner = owner;
}

Peer* HostCore::peer_of(const StoreId& store) {
  std::unique_ptr<Peer>& peer = peers[store];
  if (!peer) {
    peer = std::make_unique<Peer>();
    peer->id = store;
    init_timer(&peer->beat_timer, TimerKind::kBeat, peer.get());
    init_timer(&peer->silence_timer, TimerKind::kSilence, peer.get());
    init_timer(&peer->quiet_timer, TimerKind::kQuiet, peer.get());
  }
  return peer.get();
}

void HostCore::on_timer(Timer* timer) {
  switch (timer->kind) {
    case TimerKind::kGroup:
      return static_cast<GroupCore*>(timer->owner)->on_timer();
    case TimerKind::kBeat:
      return on_beat_timer(static_cast<Peer*>(timer->owner));
    case TimerKind::kSilence:
      return on_silence_timer(static_cast<Peer*>(timer->owner));
    case TimerKind::kQuiet:
      return on_quiet_timer(static_cast<Peer*>(timer->owner));
  }
}

Host::Host(const StoreId& self, Incarnation incarnation, const HostOptions& options,
           uint64_t now_ns, uint64_t seed)
    : core_(std::make_unique<HostCore>()) {
  core_->self = self;
  core_->incarnation = incarnation;
  core_->options = options;
  core_->now_ns = now_ns;
  core_->random_state = seed;
  const bool waits = !options.fresh && !CURVE_MUTANT("r9_no_wait_after_start");
  core_->vote_after_ns = waits ? now_ns + options.lease_ns : 0;
}
Host::~Host() = default;

Group* Host::create(GroupInit init, uint64_t now_ns) {
  core_->advance(now_ns);
  const CopysetId id = init.id;
  if (core_->by_id.contains(id)) broken_invariant(id, "the group exists already");
  auto group =
      std::unique_ptr<Group>(new Group(std::make_unique<GroupCore>(*core_, std::move(init))));
  Group* face = group.get();
  core_->by_id.emplace(id, std::move(group));
  auto at = std::lower_bound(core_->sorted.begin(), core_->sorted.end(), id,
                             [](const Group* g, CopysetId other) { return g->id() < other; });
  core_->sorted.insert(at, face);
  return face;
}

void Host::remove(CopysetId id) {
  Group* group = find(id);
  if (group == nullptr) return;
  std::erase(core_->sorted, group);
  core_->by_id.erase(id);
}

Group* Host::find(CopysetId id) {
  auto found = core_->by_id.find(id);
  return found == core_->by_id.end() ? nullptr : found->second.get();
}

std::span<Group* const> Host::groups() const { return core_->sorted; }

void Host::tick(uint64_t now_ns) {
  core_->advance(now_ns);
  while (Timer* timer = core_->timers.take_due(core_->now_ns)) core_->on_timer(timer);
}

uint64_t Host::next_deadline_ns() const {
  return core_->beats_due.empty() ? core_->timers.next_deadline_ns() : core_->now_ns;
}

void Host::note_work(uint64_t now_ns) {
  core_->advance(now_ns);
  core_->note_work();
}

bool Host::take_beat(OutgoingBeat* out, uint64_t now_ns) {
  core_->advance(now_ns);
  while (!core_->beats_due.empty()) {
    Peer* peer = core_->beats_due.back();
    core_->beats_due.pop_back();
    peer->beat_due = false;
    if (!peer->up) continue;
    core_->fill_beat(peer);
    *out = {peer->id, &peer->beat};
    return true;
  }
  return false;
}

BeatReply Host::on_beat(const StoreId& from, const Beat& beat, uint64_t now_ns) {
  core_->advance(now_ns);
  return core_->on_beat(core_->peer_of(from), beat);
}

void Host::on_beat_reply(const StoreId& from, const BeatReply& reply, uint64_t now_ns) {
  core_->advance(now_ns);
  core_->on_reply(core_->peer_of(from), reply);
}

void Host::on_peer_up(const StoreId& store, uint64_t now_ns) {
  core_->advance(now_ns);
  Peer* peer = core_->peer_of(store);
  peer->up = true;
  peer->silent = false;
  core_->beat_soon(peer);  // also without leads: it learns this process's incarnation
  for (const LeadEntry& entry : peer->leads) entry.group->on_peer_up_leader(peer);
  for (Group* group : core_->sorted) group->core_->on_peer_up_election(peer);
}

void Host::on_peer_down(const StoreId& store, bool refused, uint64_t now_ns) {
  core_->advance(now_ns);
  Peer* peer = core_->peer_of(store);
  peer->up = false;
  core_->timers.set(&peer->beat_timer, kNever);
  for (const LeadEntry& entry : peer->leads) entry.group->on_peer_down_leader(peer);
  for (Group* group : core_->sorted) {
    std::erase(group->core_->known_damaged, store);
    std::erase(group->core_->known_before_votes, store);
  }
  if (refused) core_->release_followed(peer, true);  // R9: hastens, shortens no promise
}

Group* Host::next_ready() {
  ReadyHook* hook = core_->ready.front();
  return hook == nullptr ? nullptr : hook->group->face;
}

std::vector<StoreId> Host::peers() const {
  std::vector<StoreId> out;
  for (const auto& [store, peer] : core_->peers) {
    if (peer->members > 0 && store != core_->self) out.push_back(store);
  }
  return out;
}

uint64_t Host::elections_started() const { return core_->elections; }

}  // namespace curve::raft
