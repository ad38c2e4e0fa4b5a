// The commands of scenario.h. How the world between two commands goes on is in scenario_world.cc.
#include "native/raft/scenario.h"

#include <algorithm>

#include "native/raft/config.h"
#include "native/raft/quorum.h"

namespace curve::raft::testing {
namespace {

std::vector<std::string> split(const std::string& text, char by) {
  std::vector<std::string> parts;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, by);) {
    if (!part.empty()) parts.push_back(part);
  }
  return parts;
}

uint64_t milliseconds(const std::string& text) {  // "150ms"
  return std::stoull(text) * 1'000'000;
}

}  // namespace

Scenario::Scenario() { options_.prefer_after_ns = 0; }
Scenario::~Scenario() = default;

bool Scenario::Words::has(const std::string& flag) const {
  return std::find(plain.begin(), plain.end(), flag) != plain.end();
}
std::string Scenario::Words::get(const std::string& key, const std::string& otherwise) const {
  auto found = named.find(key);
  return found == named.end() ? otherwise : found->second;
}
uint64_t Scenario::Words::number(const std::string& key, uint64_t otherwise) const {
  auto found = named.find(key);
  return found == named.end() ? otherwise : std::stoull(found->second);
}

Scenario::Node& Scenario::node(const std::string& name) { return nodes_.at(name); }
Scenario::Node& Scenario::node_of(const StoreId& id) { return nodes_.at(name_of(id)); }
std::string Scenario::name_of(const StoreId& id) const {
  return id.is_none() ? "-" : std::string(1, static_cast<char>(id.bytes[15]));
}

Config Scenario::config_of(const std::string& voters, const std::string& learners,
                           const std::string& preferred) {
  Config config;
  for (const std::string& name : split(voters, ','))
    config.members[config.count++] = {node(name).id, MemberRole::kVoter};
  for (const std::string& name : split(learners, ',')) {
    config.members[config.count++] = {node(name).id, MemberRole::kLearner};
  }
  if (!preferred.empty()) config.preferred = node(preferred).id;
  return config;
}

std::string Scenario::command(const std::string& line) {
  out_.str("");
  Words words;
  for (const std::string& word : split(line, ' ')) {
    const size_t equals = word.find('=');
    if (equals == std::string::npos) {
      words.plain.push_back(word);
    } else {
      words.named[word.substr(0, equals)] = word.substr(equals + 1);
    }
  }
  const std::string verb = words.plain.empty() ? "" : words.plain[0];
  auto word = [&](size_t i) { return words.plain.at(i); };
  if (verb == "stores") {
    stores(words);
  } else if (verb == "replica") {
    replica(words);
  } else if (verb == "trace") {
    const std::string what = word(1);
    detail_ = what == "off"        ? kSilent
              : what == "roles"    ? kRoles
              : what == "messages" ? kMessages
                                   : kEverything;
  } else if (verb == "prefer-after") {
    options_.prefer_after_ns = milliseconds(word(1));
  } else if (verb == "connect") {
    each_pair(words, true);
  } else if (verb == "disconnect") {
    each_pair(words, false);
  } else if (verb == "isolate" || verb == "rejoin") {
    node(word(1)).isolated = verb == "isolate";
  } else if (verb == "stop") {
    stop(node(word(1)), words.has("refused"));
  } else if (verb == "start") {
    restart(words);
  } else if (verb == "run" || verb == "advance") {
    advance(milliseconds(word(1)), verb == "run");
  } else if (verb == "settle") {
    settle();
  } else if (verb == "deliver") {
    deliver(words);
  } else if (verb == "drop") {
    drop(words);
  } else if (verb == "durable") {
    durable(node(word(1)), words.plain.size() > 2 ? std::stoull(word(2)) : SIZE_MAX);
  } else if (verb == "hold") {
    (word(2) == "disk" ? node(word(1)).holds_disk : node(word(1)).holds_apply) = true;
  } else if (verb == "release") {
    node(word(1)).holds_disk = node(word(1)).holds_apply = false;
    settle();
  } else if (verb == "propose") {
    propose(words);
  } else if (verb == "config") {
    change(words);
  } else if (verb == "transfer") {
    const Code code = group(node(word(1)))->transfer_to(node(word(2)).id, now_);
    if (code != Code::kOk) say(std::string(code_name(code)));
    pump_all();
  } else if (verb == "resign") {
    group(node(word(1)))->resign(milliseconds(word(2)), now_);
    pump_all();
  } else if (verb == "trim") {
    group(node(word(1)))->trim(std::stoull(word(2)));
    Disk& disk = node(word(1)).disk;
    const Index base = group(node(word(1)))->first_index() - 1;
    disk.base_term = group(node(word(1)))->term_at(base);
    disk.base = disk.applied = base;
    disk.log.erase(disk.log.begin(), disk.log.upper_bound(base));
  } else if (verb == "begin-sync") {
    group(node(word(1)))->begin_sync(now_);
    node(word(1)).disk.syncing = true;
    pump_all();
  } else if (verb == "finish-sync") {
    finish_sync(words);
  } else if (verb == "message") {
    inject(words);
  } else if (verb == "beat") {
    inject_beat(words);
  } else if (verb == "reply") {
    inject_reply(words);
  } else if (verb == "status") {
    status();
  } else if (verb == "log") {
    show_log(node(word(1)));
  } else if (verb == "progress") {
    show_progress(node(word(1)));
  } else {
    say("unknown command: " + line);
  }
  return out_.str();
}

// stores a b c [used]: empty stores, started. `used`: they were started before (R9: they wait one
// lease).
void Scenario::stores(const Words& words) {
  for (size_t i = 1; i < words.plain.size(); ++i) {
    const std::string& name = words.plain[i];
    if (name == "used") continue;
    Node& n = nodes_[name];
    n.name = name;
    n.id.bytes[15] = static_cast<uint8_t>(name[0]);
    start(n, !words.has("used"));
  }
}

void Scenario::start(Node& n, bool fresh) {
  for (auto& [other, ignored] : nodes_) {
    if (other != n.name) connect(n.name, other, false, false);
  }
  HostOptions options = options_;
  options.fresh = fresh;
  n.host = std::make_unique<Host>(n.id, ++n.incarnation, options, now_,
                                  static_cast<uint64_t>(n.name[0]));
  n.persists.clear();
  n.memory.clear();
  n.sync_from = {};
  if (!n.has_replica) return;
  const Disk& disk = n.disk;
  GroupInit init;
  init.id = 1;
  init.config = disk.config;
  init.config_index = disk.config_index;
  init.hard = disk.hard;
  init.commit = disk.commit;
  init.applied = disk.applied;
  init.base_index = disk.base;
  init.base_term = disk.base_term;
  init.damaged = disk.damaged;
  init.syncing = disk.syncing;
  for (const auto& [index, entry] : disk.log) {
    init.log.push_back({entry.term, 0, 100, entry.type});
    if (entry.type == EntryType::kConfig) init.later_configs.push_back({index, entry.config});
    n.memory[index] = entry;
  }
  n.host->create(std::move(init), now_);
}

// replica a,b voters=a,b,c [learners=d] [preferred=a] [term=3 vote=b] [log=1,1,2] [base=4/1]
// [commit=2] [damaged] [syncing]
void Scenario::replica(const Words& words) {
  for (const std::string& name : split(words.plain.at(1), ',')) {
    Node& n = node(name);
    n.has_replica = true;
    Disk& disk = n.disk;
    disk = {};
    disk.config = config_of(words.get("voters"), words.get("learners"), words.get("preferred"));
    disk.hard.term = words.number("term", 0);
    if (words.named.contains("vote")) disk.hard.vote = node(words.get("vote")).id;
    const std::vector<std::string> base = split(words.get("base", "0/0"), '/');
    disk.base = disk.config_index = std::stoull(base[0]);
    disk.base_term = std::stoull(base[1]);
    Index index = disk.base;
    for (const std::string& term : split(words.get("log"), ',')) {
      disk.log[++index].term = std::stoull(term);
      disk.hard.term = std::max(disk.hard.term, disk.log[index].term);
    }
    disk.commit = disk.applied = std::max<Index>(disk.base, words.number("commit", 0));
    disk.damaged = words.has("damaged");
    disk.syncing = words.has("syncing");
    // As after a start: the store itself goes on.
    GroupInit init;
    --n.incarnation;
    start(n, !words.has("used"));
  }
  pump_all();
}

void Scenario::each_pair(const Words& words, bool up) {
  if (words.plain.size() >= 3 && words.plain[1] != "refused" && words.plain[2] != "refused") {
    return connect(words.plain[1], words.plain[2], up, words.has("refused"));
  }
  for (auto& [a, na] : nodes_) {
    for (auto& [b, nb] : nodes_) {
      const bool wanted = words.plain.size() < 2 || words.plain[1] == a || words.plain[1] == b;
      if (a < b && wanted) connect(a, b, up, words.has("refused"));
    }
  }
}

void Scenario::connect(const std::string& a, const std::string& b, bool up, bool refused) {
  if (up_[{a, b}] == up) return;
  up_[{a, b}] = up_[{b, a}] = up;
  std::erase_if(network_, [&](const Packet& p) {
    return (p.from == a && p.to == b) || (p.from == b && p.to == a);
  });
  for (const auto& [self, other] : {std::pair{a, b}, std::pair{b, a}}) {
    Node& n = node(self);
    if (!n.host) continue;
    up ? n.host->on_peer_up(node(other).id, now_)
       : n.host->on_peer_down(node(other).id, refused, now_);
  }
  pump_all();
}

void Scenario::stop(Node& n, bool refused) {
  n.host.reset();
  n.persists.clear();
  for (auto& [other, ignored] : nodes_) {
    if (other != n.name) connect(n.name, other, false, refused);
  }
}

// start a [fresh] [damaged] [lose=N] [term=T]: the process comes back with what its disk has (less
// N entries).
void Scenario::restart(const Words& words) {
  Node& n = node(words.plain.at(1));
  if (n.host) stop(n, true);
  n.disk.damaged |= words.has("damaged");
  for (uint64_t lose = words.number("lose", 0); lose > 0 && !n.disk.log.empty(); --lose) {
    n.disk.log.erase(std::prev(n.disk.log.end()));
  }
  const Index last = n.disk.log.empty() ? n.disk.base : n.disk.log.rbegin()->first;
  n.disk.commit = std::min(n.disk.commit, last);
  n.disk.applied = std::min(n.disk.applied, last);
  if (words.named.contains("term")) n.disk.hard = {words.number("term", 0), {}};
  start(n, words.has("fresh"));
  for (auto& [other, peer] : nodes_) {
    if (other != n.name && peer.host && !words.has("alone")) connect(n.name, other, true, false);
  }
  pump_all();
}

void Scenario::propose(const Words& words) {
  Node& n = node(words.plain.at(1));
  std::vector<EntryMeta> metas(words.plain.size() > 2 ? std::stoull(words.plain[2]) : 1);
  for (EntryMeta& meta : metas) meta.bytes = static_cast<uint32_t>(words.number("bytes", 100));
  Index first = 0;
  const Code code = group(n)->propose(metas, &first);
  if (code != Code::kOk) return say(std::string(code_name(code)));
  for (size_t i = 0; i < metas.size(); ++i)
    n.memory[first + i] = {group(n)->term(), EntryType::kData, {}};
  say("entries [" + std::to_string(first) + ", " + std::to_string(first + metas.size() - 1) + "]");
  pump_all();
}

// config a add d | promote d | remove d | prefer d
void Scenario::change(const Words& words) {
  Node& n = node(words.plain.at(1));
  const std::string& what = words.plain.at(2);
  const StoreId subject = node(words.plain.at(3)).id;
  Config config = group(n)->config();
  size_t at = 0;
  while (at < config.count && config.members[at].store != subject) ++at;
  if (what == "add") {
    config.members[config.count++] = {subject, MemberRole::kLearner};
  } else if (what == "add-voter") {
    config.members[config.count++] = {subject, MemberRole::kVoter};
  } else if (what == "promote") {
    config.members[at].role = MemberRole::kVoter;
  } else if (what == "remove") {
    for (size_t i = at; i + 1 < config.count; ++i) config.members[i] = config.members[i + 1];
    config.members[--config.count] = {};
    if (config.preferred == subject) config.preferred = {};
  } else {
    config.preferred = subject;
  }
  Index index = 0;
  const Code code = group(n)->propose_config(config, &index);
  if (code != Code::kOk) return say(std::string(code_name(code)));
  n.memory[index] = {group(n)->term(), EntryType::kConfig, config};
  say("entry " + std::to_string(index));
  pump_all();
}

// finish-sync b a: b now holds the state of a at a's applied index, durably.
void Scenario::finish_sync(const Words& words) {
  Node& n = node(words.plain.at(1));
  Group* source = group(node(words.plain.at(2)));
  const Index index = words.number("index", source->applied());
  const Term term = source->term_at(index);
  durable(n, SIZE_MAX);
  group(n)->finish_sync(index, term, source->config(), std::min(index, source->config_index()),
                        now_);
  Disk& disk = n.disk;
  const bool keeps = disk.log.contains(index) && disk.log[index].term == term;
  disk.log.erase(disk.log.begin(), keeps ? disk.log.upper_bound(index) : disk.log.end());
  disk.base = disk.commit = disk.applied = index;
  disk.base_term = term;
  disk.config = source->config();
  disk.config_index = std::min(index, source->config_index());
  disk.syncing = false;
  disk.damaged = group(n)->damaged();
  n.memory.erase(n.memory.begin(), n.memory.upper_bound(index));
  pump_all();
}

// message b Vote from=a term=4 index=7/3 [reject] [transfer] [damaged] [commit=..] [terms=3,3]
// [asked=..]
void Scenario::inject(const Words& words) {
  static const std::map<std::string, MessageType> kTypes = {
      {"PreVote", MessageType::kPreVote},
      {"PreVoteReply", MessageType::kPreVoteReply},
      {"Vote", MessageType::kVote},
      {"VoteReply", MessageType::kVoteReply},
      {"Append", MessageType::kAppend},
      {"AppendReply", MessageType::kAppendReply},
      {"TimeoutNow", MessageType::kTimeoutNow},
      {"SyncOffer", MessageType::kSyncOffer},
      {"SyncRequest", MessageType::kSyncRequest},
      {"Filled", MessageType::kFilled}};
  Packet packet;
  packet.to = words.plain.at(1);
  packet.from = words.get("from");
  Message& m = packet.message;
  m.type = kTypes.at(words.plain.at(2));
  m.group = 1;
  m.peer = node(packet.from).id;
  m.term = words.number("term", 0);
  const std::vector<std::string> position = split(words.get("index", "0/0"), '/');
  m.index = std::stoull(position.at(0));
  m.log_term = position.size() > 1 ? std::stoull(position[1]) : 0;
  m.commit = words.number("commit", 0);
  m.first = words.number("asked", 0);
  m.reject = words.has("reject");
  m.transfer = words.has("transfer");
  m.damaged = words.has("damaged");
  for (const std::string& term : split(words.get("terms"), ','))
    packet.entries.push_back({std::stoull(term), {}, {}});
  for (Stored& entry : packet.entries) entry.type = EntryType::kData;
  if (m.type == MessageType::kAppend) {
    m.first = m.index + 1;
    m.last = m.index + packet.entries.size();
  } else if (m.type == MessageType::kAppendReply) {
    m.last = words.number("last", m.index);
  }
  arrive(packet);
  pump_all();
}

// beat b from=a sequence=9 [to=2] [as=1] [full] [lead=3]: a beat with the term led, and the answer
// to it.
void Scenario::inject_beat(const Words& words) {
  Node& n = node(words.plain.at(1));
  Node& from = node(words.get("from"));
  Beat beat;
  beat.from_incarnation = words.number("as", from.incarnation);
  beat.to_incarnation = words.number("to", n.incarnation);
  beat.sequence = words.number("sequence", 1);
  beat.full = words.has("full");
  if (words.named.contains("lead")) {
    beat.leads.push_back({1, words.number("lead", 0)});
    beat.digest = lead_digest(beat.leads[0]);
  }
  Packet reply;
  reply.kind = Packet::kReply;
  reply.from = n.name;
  reply.to = from.name;
  reply.reply = n.host->on_beat(from.id, beat, now_);
  say(describe(reply));
  pump_all();
}

// reply a from=b sequence=9 [to=2] [as=1]: a confirmation of one of a's beats.
void Scenario::inject_reply(const Words& words) {
  Node& n = node(words.plain.at(1));
  Node& from = node(words.get("from"));
  BeatReply reply;
  reply.from_incarnation = words.number("as", from.incarnation);
  reply.to_incarnation = words.number("to", n.incarnation);
  reply.sequence = words.number("sequence", 1);
  reply.confirmed = true;
  n.host->on_beat_reply(from.id, reply, now_);
  pump_all();
}

void Scenario::status() {
  for (auto& [name, n] : nodes_) {
    Group* g = group(n);
    if (g == nullptr) {
      say(name + ": " + (n.host ? "no replica" : "stopped"));
      continue;
    }
    std::ostringstream line;
    line << name << ": " << role_line(g) << ", log (" << g->first_index() - 1 << ", "
         << g->last_index() << "] ends in term " << g->last_term() << ", commit " << g->commit();
    if (g->lease_valid(now_)) line << ", lease";
    if (g->damaged()) line << ", damaged";
    if (g->syncing()) line << ", syncing";
    say(line.str());
  }
}

void Scenario::show_log(Node& n) {
  std::ostringstream line;
  Group* g = group(n);
  line << n.name << ": (" << g->first_index() - 1 << "]";
  for (Index i = g->first_index(); i <= g->last_index(); ++i) line << ' ' << g->term_at(i);
  line << "; voters";
  for (size_t i = 0; i < g->config().count; ++i) {
    const Member& m = g->config().members[i];
    line << ' ' << name_of(m.store) << (m.role == MemberRole::kLearner ? "(learner)" : "");
  }
  if (g->config_settled()) line << "; settled";
  say(line.str());
}

void Scenario::show_progress(Node& n) {
  for (const Progress& p : group(n)->progress()) {
    say(name_of(p.store) + ": match " + std::to_string(p.match) + " next " +
        std::to_string(p.next) + (p.active ? " active" : " inactive") +
        (p.syncing ? " syncing" : ""));
  }
}

}  // namespace curve::raft::testing
