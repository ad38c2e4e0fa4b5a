#include "native/copyset/inspect.h"

#include <memory>
#include <set>

#include "native/base/bytes.h"
#include "native/chunkstore/chunkstore.h"
#include "native/copyset/commands.h"
#include "native/copyset/external.h"
#include "native/copyset/fences.h"
#include "native/io/io.h"
#include "native/replica/replica.h"
#include "native/wal/wal.h"

namespace curve::copyset {

namespace {

// A JSON object that is written from left to right.
class Object {
 public:
  Object& put(const char* name, uint64_t value) { return raw(name, std::to_string(value)); }
  Object& flag(const char* name, bool value) { return raw(name, value ? "true" : "false"); }
  Object& put(const char* name, const std::string& value) {
    std::string text = "\"";
    for (char c : value) {
      if (c == '"' || c == '\\') text += '\\';
      if (static_cast<unsigned char>(c) >= 0x20) text += c;
    }
    return raw(name, text + '"');
  }
  Object& raw(const char* name, const std::string& json) {
    text_ += (text_.size() > 1 ? ",\"" : "\"") + std::string(name) + "\":" + json;
    return *this;
  }
  std::string end() { return text_ + '}'; }

 private:
  std::string text_ = "{";
};

std::string array(const std::vector<std::string>& items) {
  std::string out = "[";
  for (const std::string& item : items) out += (out.size() > 1 ? "," : "") + item;
  return out + ']';
}

struct Opened {
  std::unique_ptr<io::Loop> loop;
  base::BufferPool pool;
  std::unique_ptr<chunkstore::ChunkStore> store;
};

Outcome open(Opened& into, const StorePaths& paths) {
  auto loop = io::make_loop();
  if (!loop) return loop.error();
  into.loop = std::move(*loop);
  auto store = chunkstore::ChunkStore::open(*into.loop, into.pool, paths.data, true);
  if (!store && store.error().code == Code::kLocked)
    return Error{Code::kLocked, paths.data + ": the store is in use; stop its chunkserver first"};
  if (!store) return store.error();
  into.store = std::move(*store);
  return {};
}

std::string fences_json(const Fences& fences) {
  std::vector<std::string> out;
  for (const auto& [volume, fence] : fences.all()) {
    std::vector<std::string> revoked;
    for (Epoch epoch : fence.revoked) revoked.push_back(std::to_string(epoch));
    Object item;
    item.put("volume", volume).flag("deleted", fence.floor == kEpochInfinity);
    if (fence.floor != kEpochInfinity) item.put("floor", fence.floor).put("ceiling", fence.ceiling);
    out.push_back(item.raw("revoked", array(revoked)).end());
  }
  return array(out);
}

std::string copyset_json(const chunkstore::ChunkStore& store, const chunkstore::GroupBlob& blob) {
  Object out;
  out.put("copyset", blob.copyset);
  base::Reader reader(blob.bytes);
  reader.get<uint8_t>();
  auto group = replica::decode_group_blob(reader.raw(reader.get<uint32_t>()));
  Fences fences;
  const auto rest = reader.raw(reader.left());
  base::Reader fence_reader(rest);
  if (!group || !fences.merge(fence_reader))
    return out.put("error", std::string("malformed")).end();
  std::vector<std::string> members;
  for (uint8_t i = 0; i < group->config.count; ++i) {
    const raft::Member& member = group->config.members[i];
    members.push_back(
        Object()
            .put("store", member.store.text())
            .put("role", std::string(member.role == raft::MemberRole::kVoter ? "voter" : "learner"))
            .end());
  }
  uint64_t pages = 0, blocks = 0;
  std::set<ChunkKey> chunks;
  std::set<VolumeId> volumes;
  for (chunkstore::PageId at{blob.copyset, {0, 0}, 255};;) {
    const auto next = store.next_page(blob.copyset, at);
    if (!next) break;
    at = *next;
    ++pages;
    chunks.insert(at.chunk);
    volumes.insert(at.chunk.volume);
  }
  for (VolumeId volume : volumes) blocks += store.mapped_blocks(blob.copyset, volume);
  return out.put("applied_index", group->applied)
      .put("applied_term", group->applied_term)
      .put("commit_index", group->commit)
      .put("term", group->hard.term)
      .put("vote", group->hard.vote.is_none() ? std::string() : group->hard.vote.text())
      .put("config_index", group->config_index)
      .raw("members", array(members))
      .flag("damaged", group->damaged)
      .flag("being_filled", group->syncing)
      .put("pages", pages)
      .put("chunks", chunks.size())
      .put("blocks", blocks)
      .raw("fences", fences_json(fences))
      .end();
}

const char* type_name(wal::RecordType type) {
  static const char* const kNames[] = {"?",        "entry", "entry_copy", "hard_state", "commit",
                                       "truncate", "group", "local",      "removed"};
  const auto number = static_cast<size_t>(type);
  return number < std::size(kNames) ? kNames[number] : "?";
}

void put_entry(Object& out, const wal::RecoveredRecord& record) {
  static const char* const kEntries[] = {"noop", "config", "data"};
  out.put("entry", std::string(record.entry_type < 3 ? kEntries[record.entry_type] : "?"));
  if (record.entry_type != 2) return;
  const auto type = command_type(record.head);
  if (type == CommandType::kWrite || type == CommandType::kZero) {
    const auto range = decode_range(record.head);
    if (!range) return;
    out.put("command", std::string(type == CommandType::kWrite ? "write" : "zero"))
        .put("volume", range->volume)
        .put("epoch", range->epoch)
        .put("chunk", range->chunk)
        .put("first_sector", range->first_sector)
        .put("sectors", range->sectors);
  } else if (type == CommandType::kFence || type == CommandType::kDeleteVolume) {
    const auto fence = decode_command<FenceCommand>(record.head);
    if (!fence) return;
    out.put("command", std::string(type == CommandType::kFence ? "fence" : "delete_volume"))
        .put("volume", fence->volume);
    if (type == CommandType::kFence) out.put("floor", fence->floor).put("ceiling", fence->ceiling);
  } else if (type == CommandType::kDigest) {
    out.put("command", std::string("digest"));
  }
}

// R4: where a payload is that does not stand in the WAL.
void put_blocks(Object& out, const wal::RecoveredRecord& record) {
  const auto external = decode_external(record.annotation);
  if (record.annotation.empty()) return;
  std::vector<std::string> blocks;
  for (uint32_t i = 0; external && i < external->count; ++i)
    blocks.push_back(std::to_string(external->blocks[i]));
  out.raw("blocks", array(blocks));
}

}  // namespace

Result<std::string> inspect_store(const StorePaths& paths) {
  Opened opened;
  if (Outcome outcome = open(opened, paths); !outcome) return outcome.error();
  const chunkstore::ChunkStore& store = *opened.store;
  const chunkstore::Usage usage = store.usage();
  auto log = wal::Wal::inspect(*opened.loop, opened.pool, paths.wal, store.store_id(),
                               [](const wal::RecoveredRecord&) {});
  Object wal;
  if (!log) {
    wal.put("error", log.error().message);
  } else {
    wal.put("generation", log->report.generation)
        .put("start_position", log->start_position)
        .put("end_position", log->end_position)
        .put("capacity_bytes", log->capacity_bytes)
        .put("appends", log->report.appends)
        .put("records", log->report.records)
        .flag("torn_tail", log->report.torn_tail)
        .flag("damaged", log->report.damaged)
        .put("damage", log->report.damage);
  }
  std::vector<std::string> copysets;
  for (const chunkstore::GroupBlob& blob : store.group_blobs())
    if (blob.copyset != 0) copysets.push_back(copyset_json(store, blob));
  return Object()
      .put("store", store.store_id().text())
      .put("cluster", store.cluster_id().text())
      .put("incarnation", store.incarnation())
      .put("checkpoint", store.checkpoint_version())
      .put("blocks_total", usage.blocks_total)
      .put("blocks_mapped", usage.blocks_mapped)
      .put("blocks_free", usage.blocks_free)
      .put("pages_total", usage.pages_total)
      .put("pages_used", usage.pages_total - usage.pages_free)
      .put("pages_lost", store.pages_lost())
      .raw("wal", wal.end())
      .raw("copysets", array(copysets))
      .end();
}

Outcome dump_wal(const StorePaths& paths, const std::function<bool(const std::string&)>& line) {
  Opened opened;
  if (Outcome outcome = open(opened, paths); !outcome) return outcome;
  bool more = true;
  auto log = wal::Wal::inspect(*opened.loop, opened.pool, paths.wal, opened.store->store_id(),
                               [&](const wal::RecoveredRecord& record) {
                                 if (!more) return;
                                 Object out;
                                 out.put("position", wal::Wal::place_position(record.place))
                                     .put("type", std::string(type_name(record.type)))
                                     .put("copyset", record.group)
                                     .put("index", record.index)
                                     .put("term", record.term)
                                     .put("payload_bytes", record.payload_bytes)
                                     .flag("promised", record.promised);
                                 const bool entry = record.type == wal::RecordType::kEntry ||
                                                    record.type == wal::RecordType::kEntryCopy;
                                 if (entry) put_entry(out, record);
                                 if (entry) put_blocks(out, record);
                                 more = line(out.end());
                               });
  if (!log) return log.error();
  if (more)
    line(Object()
             .put("type", std::string("end"))
             .put("start_position", log->start_position)
             .put("end_position", log->end_position)
             .put("generation", log->report.generation)
             .put("appends", log->report.appends)
             .put("records", log->report.records)
             .flag("torn_tail", log->report.torn_tail)
             .flag("damaged", log->report.damaged)
             .put("damage", log->report.damage)
             .end());
  return {};
}

}  // namespace curve::copyset
