// What happens between the commands of a scenario: outputs, disks, deliveries, time, and how they
// are written down.
#include <algorithm>

#include "native/raft/scenario.h"

namespace curve::raft::testing {
namespace {

const char* role_name(Role role) {
  switch (role) {
    case Role::kFollower:
      return "follower";
    case Role::kPreCandidate:
      return "pre-candidate";
    case Role::kCandidate:
      return "candidate";
    case Role::kLeader:
      return "leader";
  }
  return "?";
}

const char* type_name(MessageType type) {
  switch (type) {
    case MessageType::kPreVote:
      return "PreVote";
    case MessageType::kPreVoteReply:
      return "PreVoteReply";
    case MessageType::kVote:
      return "Vote";
    case MessageType::kVoteReply:
      return "VoteReply";
    case MessageType::kAppend:
      return "Append";
    case MessageType::kAppendReply:
      return "AppendReply";
    case MessageType::kTimeoutNow:
      return "TimeoutNow";
    case MessageType::kSyncOffer:
      return "SyncOffer";
    case MessageType::kFilled:
      return "Filled";
    case MessageType::kSyncRequest:
      return "SyncRequest";
  }
  return "?";
}

std::string range(Index first, Index last) {
  return last < first ? "[]" : "[" + std::to_string(first) + ", " + std::to_string(last) + "]";
}

}  // namespace

std::string Scenario::role_line(Group* g) const {
  std::string line = std::string(role_name(g->role())) + " in term " + std::to_string(g->term());
  if (g->role() == Role::kFollower) line += " of " + name_of(g->leader());
  return line;
}

std::string Scenario::describe(const Message& m) const {
  std::ostringstream line;
  line << type_name(m.type) << " term " << m.term;
  switch (m.type) {
    case MessageType::kPreVote:
    case MessageType::kVote:
      line << " log " << m.index << '/' << m.log_term;
      break;
    case MessageType::kPreVoteReply:
    case MessageType::kVoteReply:
      line << (m.reject ? " no" : " yes") << " to term " << m.first;
      break;
    case MessageType::kAppend:
      line << " after " << m.index << '/' << m.log_term << ' ' << range(m.first, m.last)
           << " commit " << m.commit;
      break;
    case MessageType::kAppendReply:
      if (m.reject) {
        line << " no to " << m.first << ", try " << m.index << '/' << m.log_term;
      } else {
        line << " durable " << m.index << " accepted " << m.last;
      }
      break;
    case MessageType::kSyncOffer:
      line << " at " << m.index << '/' << m.log_term;
      break;
    case MessageType::kFilled:
      line << " through " << m.index;
      break;
    case MessageType::kTimeoutNow:
    case MessageType::kSyncRequest:
      break;
  }
  if (m.transfer) line << " transfer";
  if (m.damaged) line << " damaged";
  return line.str();
}

std::string Scenario::describe(const Packet& p) const {
  std::ostringstream line;
  line << p.from << " -> " << p.to << ' ';
  if (p.kind == Packet::kMessage) return line.str() + describe(p.message);
  if (p.kind == Packet::kBeat) {
    line << "Beat " << p.beat.sequence << (p.beat.full ? " full" : "");
    for (const Lead& lead : p.beat.leads) line << " lead term " << lead.term;
    for (const CommitNote& note : p.beat.commits) line << " commit " << note.commit;
    return line.str();
  }
  line << "BeatReply " << p.reply.sequence << (p.reply.confirmed ? " confirmed" : " not confirmed")
       << (p.reply.need_full ? " need full" : "");
  for (const Lead& lead : p.reply.refused) line << " refused at term " << lead.term;
  return line.str();
}

void Scenario::take(Node& n, Group* g) {
  const Ready ready = g->take_ready();
  if (ready.role_changed && detail_ >= kRoles) say(n.name + ": " + role_line(g));
  if (ready.persist_id != 0) {
    Persist persist;
    persist.ready = ready;
    std::ostringstream line;
    line << n.name << ": persist " << ready.persist_id;
    if (ready.hard_changed)
      line << " term " << ready.hard.term << " vote " << name_of(ready.hard.vote);
    if (ready.truncated) line << " cut after " << ready.truncate_after;
    if (ready.append_first != 0)
      line << " entries " << range(ready.append_first, ready.append_last);
    if (detail_ >= kMessages) say(line.str());
    for (Index i = ready.append_first; i != 0 && i <= ready.append_last; ++i) {
      Stored& entry = n.memory[i];
      if (entry.term != g->term_at(i)) entry = {g->term_at(i), g->slot(i).type, {}};
      persist.entries[i] = entry;
    }
    n.persists.push_back(std::move(persist));
  }
  for (const Message& message : ready.send) {
    Packet packet;
    packet.from = n.name;
    packet.to = name_of(message.peer);
    packet.message = message;
    packet.message.peer = n.id;
    if (message.type == MessageType::kAppend) {
      for (Index i = message.first; i <= message.last; ++i) packet.entries.push_back(n.memory[i]);
    }
    if (detail_ >= kMessages) say("  " + describe(packet));
    network_.push_back(std::move(packet));
  }
  if (ready.damage_cleared) {
    n.disk.damaged = false;
    if (detail_ >= kRoles) say(n.name + ": whole again");
  }
  if (ready.sync_offered && n.sync_from != ready.sync_from) {
    n.sync_from = ready.sync_from;
    if (detail_ >= kRoles) {
      say(n.name + ": sync offered by " + name_of(ready.sync_from) + " at " +
          std::to_string(ready.sync_index));
    }
  }
  if (ready.commit > g->applied() && !n.holds_apply && !g->syncing()) {
    if (detail_ >= kMessages) say(n.name + ": applied through " + std::to_string(ready.commit));
    g->on_applied(ready.commit);
  }
}

void Scenario::pump(Node& n) {
  if (!n.host) return;
  while (Group* g = n.host->next_ready()) take(n, g);
  if (Group* g = group(n);
      g != nullptr && !n.holds_apply && !g->syncing() && g->commit() > g->applied()) {
    g->on_applied(g->commit());
  }
  OutgoingBeat beat;
  while (n.host->take_beat(&beat, now_)) {
    Packet packet;
    packet.kind = Packet::kBeat;
    packet.from = n.name;
    packet.to = name_of(beat.to);
    packet.beat = *beat.beat;
    if (detail_ >= kEverything) say("  " + describe(packet));
    network_.push_back(std::move(packet));
  }
}

void Scenario::pump_all() {
  for (auto& [name, n] : nodes_) pump(n);
}

void Scenario::durable(Node& n, size_t count) {
  while (count-- > 0 && !n.persists.empty()) {
    const Persist persist = std::move(n.persists.front());
    n.persists.pop_front();
    if (persist.ready.hard_changed) n.disk.hard = persist.ready.hard;
    if (persist.ready.truncated)
      n.disk.log.erase(n.disk.log.upper_bound(persist.ready.truncate_after), n.disk.log.end());
    for (const auto& [index, entry] : persist.entries) {
      n.disk.log.erase(n.disk.log.lower_bound(index), n.disk.log.end());
      n.disk.log[index] = entry;
    }
    const Index last = n.disk.log.empty() ? n.disk.base : n.disk.log.rbegin()->first;
    n.disk.commit = std::max(n.disk.commit, std::min(persist.ready.commit, last));
    group(n)->on_durable(persist.ready.persist_id, now_);
    pump(n);
  }
}

bool Scenario::passes(const Packet& p) {
  return up_[{p.from, p.to}] && node(p.to).host && !node(p.to).isolated && !node(p.from).isolated;
}

void Scenario::arrive(const Packet& p) {
  Node& n = node(p.to);
  if (!n.host) return;
  if (p.kind == Packet::kBeat) {
    Packet reply;
    reply.kind = Packet::kReply;
    reply.from = p.to;
    reply.to = p.from;
    reply.reply = n.host->on_beat(node(p.from).id, p.beat, now_);
    if (detail_ >= kEverything) say("  " + describe(reply));
    network_.push_back(std::move(reply));
    return;
  }
  if (p.kind == Packet::kReply) return n.host->on_beat_reply(node(p.from).id, p.reply, now_);
  Group* g = group(n);
  if (g == nullptr) return;
  if (p.message.type != MessageType::kAppend) return g->step(p.message, now_);
  std::vector<EntryMeta> metas;
  std::vector<ConfigAt> configs;
  for (size_t i = 0; i < p.entries.size(); ++i) {
    metas.push_back({p.message.first + i, p.entries[i].term, 100, p.entries[i].type});
    if (p.entries[i].type == EntryType::kConfig)
      configs.push_back({p.message.first + i, p.entries[i].config});
  }
  const AppendVerdict verdict = g->step_append(p.message, metas, configs, now_);
  if (verdict.first_new == 0) return;
  n.memory.erase(n.memory.lower_bound(verdict.first_new), n.memory.end());
  for (Index i = verdict.first_new; i <= p.message.last; ++i)
    n.memory[i] = p.entries[i - p.message.first];
}

// deliver [FROM TO] [beats|messages]: what is on its way now, not what comes of it.
void Scenario::deliver(const Words& words) {
  const bool pair = words.plain.size() >= 3;
  std::vector<Packet> now, later;
  for (Packet& p : network_) {
    const bool chosen = !pair || (p.from == words.plain[1] && p.to == words.plain[2]);
    (chosen ? now : later).push_back(std::move(p));
  }
  network_ = std::move(later);
  for (const Packet& p : now) {
    if (passes(p)) arrive(p);
  }
  pump_all();
}

void Scenario::drop(const Words& words) {
  const bool pair = words.plain.size() >= 3;
  std::erase_if(network_, [&](const Packet& p) {
    return !pair || (p.from == words.plain[1] && p.to == words.plain[2]);
  });
}

// Disks and network do all that they have to do.
void Scenario::settle() {
  for (;;) {
    pump_all();
    bool busy = !network_.empty();
    for (auto& [name, n] : nodes_) {
      if (n.persists.empty() || !n.host || n.holds_disk) continue;
      busy = true;
      durable(n, SIZE_MAX);
    }
    if (!busy) return;
    std::vector<Packet> now;
    now.swap(network_);
    for (const Packet& p : now) {
      if (passes(p)) arrive(p);
    }
  }
}

// Time goes on in steps of a millisecond; with everything_works disks and network keep up.
void Scenario::advance(uint64_t ns, bool everything_works) {
  for (const uint64_t end = now_ + ns; now_ < end;) {
    now_ += 1'000'000;
    for (auto& [name, n] : nodes_) {
      if (n.host) n.host->tick(now_);
    }
    if (everything_works) {
      settle();
    } else {
      pump_all();
    }
  }
}

}  // namespace curve::raft::testing
