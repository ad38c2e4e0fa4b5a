// Making and opening a store. Everything here may block; it runs before the store serves. See
// docs/formats/store.md, where the table of what is found and what is done stands.
//
// Invariants: nothing found on disk is trusted before its checksum and its bounds were checked; no
// size read from disk leads to an allocation larger than the file itself; what open() relies on is
// durable before it returns.
#include <algorithm>
#include <cerrno>
#include <cstring>

#include "native/base/bytes.h"
#include "native/base/log.h"
#include "native/base/mutant.h"
#include "native/chunkstore/store_state.h"

namespace curve::chunkstore {

using State = ChunkStore::State;

namespace {

constexpr uint32_t kReservePercentMax = 50;
constexpr uint64_t kReserveBlocksMin = 136;  // halves for four leaders: one write of 1 MiB each
constexpr size_t kScanBytes = 4u << 20;      // of one sequential read

Error io_error(const std::string& path, const std::string& what, uint64_t offset, int error) {
  return {Code::kIo, path + ": " + what + " at offset " + std::to_string(offset) + ": " +
                         std::strerror(-error) + "; check the device"};
}

// Why a structure is not valid.
struct Flaw {
  std::string expected, found;
  bool none() const { return expected.empty(); }
};

template <class T>
Flaw flaw_of(const T& found, uint64_t magic) {
  if (found.magic != magic) return {"magic " + hex(magic), "magic " + hex(found.magic)};
  if (const uint32_t crc = seal_of(found); crc != found.crc)
    return {"checksum " + hex(crc), "checksum " + hex(found.crc)};
  return {};
}

Flaw flaw_of(const RootHeader& found, const StoreId& store, uint32_t copy) {
  if (Flaw flaw = flaw_of(found, kRootMagic); !flaw.none()) return flaw;
  if (found.store != store) return {"store " + store.text(), "store " + found.store.text()};
  if (found.copy != copy)
    return {"copy " + std::to_string(copy), "copy " + std::to_string(found.copy)};
  return {};
}

bool same_store(const Superblock& a, const Superblock& b) {
  return a.store == b.store && a.cluster == b.cluster && a.bytes == b.bytes &&
         a.blob_bytes == b.blob_bytes && a.format_version == b.format_version;
}

struct Aligned {  // start-up only
  explicit Aligned(size_t bytes)
      : data(static_cast<std::byte*>(std::aligned_alloc(4096, bytes))), size(bytes) {
    if (data == nullptr) std::abort();
    std::memset(data, 0, bytes);
  }
  ~Aligned() { std::free(data); }
  Aligned(const Aligned&) = delete;
  Aligned& operator=(const Aligned&) = delete;
  std::span<std::byte> span() { return {data, size}; }
  template <class T>
  T& as(size_t number = 0) {
    return reinterpret_cast<T*>(data)[number];
  }
  std::byte* data;
  size_t size;
};

// One after the other, `first` first: where a copy is bad it must be that one, so that at any
// moment one is whole.
Outcome write_superblocks(io::File& file, const std::string& path, Superblock superblock,
                          int first) {
  superblock.crc = seal_of(superblock);
  Aligned bytes(kStructBytes);
  bytes.as<Superblock>() = superblock;
  for (int copy : {first, 1 - first}) {
    const uint64_t offset = kSuperblockOffsets[copy];
    if (int error = file.write_sync(offset, bytes.span()))
      return io_error(path, "cannot write the superblock", offset, error);
    if (int error = file.sync_sync())
      return io_error(path, "cannot sync the superblock", offset, error);
  }
  return {};
}

// The store that is in the file; none where formatting never wrote a superblock. R1: one that is
// only damaged is a store too. A first copy that is torn with no second one was being formatted.
struct FoundStore {
  bool complete = false;
  std::string name;
};

Result<FoundStore> find_store(io::File& file, const std::string& path) {
  if (file.size_bytes() < kRootsOffset) return FoundStore{};
  Aligned block(kStructBytes);
  FoundStore found;
  for (uint64_t offset : kSuperblockOffsets) {
    if (int error = file.read_sync(offset, block.span()))
      return io_error(path, "cannot read the superblock", offset, error);
    const auto& copy = block.as<Superblock>();
    const bool whole = flaw_of(copy, kSuperblockMagic).none();
    if (whole || (copy.magic == kSuperblockMagic && offset == kSuperblockOffsets[1]))
      found = {true, whole ? "store " + copy.store.text() : "a damaged store"};
    if (whole) break;
  }
  return found;
}

Outcome no_store_in(io::File& file, const std::string& path) {
  auto found = find_store(file, path);
  if (!found) return found.error();
  if (!found->complete) return {};
  return Error{Code::kExists, path + ": holds " + found->name +
                                  " already; remove it, or format with force, which destroys it"};
}

}  // namespace

Outcome ChunkStore::check_free(io::Loop& loop, const std::string& path) {
  auto file = io::File::open(loop, path, {});
  if (!file && file.error().code == Code::kNotFound) return {};
  if (!file) return file.error();
  if (CURVE_MUTANT("r1_format_again")) return {};
  return no_store_in(*file, path);
}

Result<bool> ChunkStore::exists(io::Loop& loop, const std::string& path) {
  auto file = io::File::open(loop, path, {.read_only = true, .lock = false});
  if (!file && file.error().code == Code::kNotFound) return false;
  if (!file) return file.error();
  auto found = find_store(*file, path);
  if (!found) return found.error();
  return found->complete;
}

Outcome ChunkStore::erase(io::Loop& loop, const std::string& path) {
  auto file = io::File::open(loop, path, {});
  if (!file && file.error().code == Code::kNotFound) return {};
  if (!file) return file.error();
  if (file->size_bytes() < kRootsOffset) return {};
  Aligned zeros(kStructBytes);
  for (uint64_t offset : kSuperblockOffsets)
    if (int error = file->write_sync(offset, zeros.span()))
      return io_error(path, "cannot erase the superblock", offset, error);
  if (int error = file->sync_sync())
    return io_error(path, "cannot erase the superblocks", kSuperblockOffsets[0], error);
  return {};
}

Outcome ChunkStore::format(io::Loop& loop, const std::string& path, const FormatOptions& options) {
  if (options.store.is_none()) return Error{Code::kInvalid, path + ": a store needs an id"};
  if (options.reserve_percent > kReservePercentMax)
    return Error{Code::kInvalid, path + ": reserve_percent is " +
                                     std::to_string(options.reserve_percent) + ", at most " +
                                     std::to_string(kReservePercentMax)};
  auto file = io::File::open(loop, path, {.create = true});
  if (!file) return file.error();
  const uint64_t bytes = options.bytes ? options.bytes : file->size_bytes();
  auto geometry = plan_geometry(bytes, options.blob_bytes);
  if (!geometry) return Error{geometry.error().code, path + ": " + geometry.error().message};
  if (!CURVE_MUTANT("r1_format_again"))
    if (auto none = no_store_in(*file, path); !none) return none;
  if (options.zeroed || file->size_bytes() < geometry->bytes)
    if (int error = options.zeroed ? file->allocate_zeroed_sync(geometry->bytes)
                                   : file->allocate_sync(geometry->bytes))
      return io_error(path, "cannot allocate space", geometry->bytes, error);

  // Root 1 in slot 1, nothing in slot 0; then the superblocks: a store exists once it is complete.
  Aligned headers(kRootHeaderBytes);
  if (int error = file->write_sync(geometry->root_offset(0), headers.span()))
    return io_error(path, "cannot write root slot 0", geometry->root_offset(0), error);
  for (uint32_t copy = 0; copy < 2; ++copy) {
    auto& header = headers.as<RootHeader>(copy);
    header.magic = kRootMagic;
    header.format_version = kFormatVersion;
    header.store = options.store;
    header.version = 1;
    header.copy = copy;
    header.crc = seal_of(header);
  }
  if (int error = file->write_sync(geometry->root_offset(1), headers.span()))
    return io_error(path, "cannot write root slot 1", geometry->root_offset(1), error);
  if (int error = file->sync_sync())
    return io_error(path, "cannot sync the roots", kRootsOffset, error);
  Superblock superblock{};
  superblock.magic = kSuperblockMagic;
  superblock.format_version = kFormatVersion;
  superblock.store = options.store;
  superblock.cluster = options.cluster;
  superblock.bytes = geometry->bytes;
  superblock.blob_bytes = geometry->blob_bytes;
  superblock.blocks = geometry->blocks;
  superblock.blocks_offset = geometry->blocks_offset;
  superblock.pages = geometry->pages;
  superblock.reserve_percent = options.reserve_percent;
  return write_superblocks(*file, path, superblock, 0);
}

Result<std::unique_ptr<ChunkStore>> ChunkStore::open(io::Loop& loop, base::BufferPool& pool,
                                                     const std::string& path, bool read_only) {
  auto state = std::make_unique<State>(loop, pool);
  state->path = path;
  state->read_only = read_only;
  auto file = io::File::open(loop, path, {.read_only = read_only});
  if (!file) return file.error();
  state->file = std::move(*file);
  for (auto step :
       {&State::read_superblock, &State::read_root, &State::read_pages, &State::start_incarnation})
    if (auto outcome = (state.get()->*step)(); !outcome) return outcome.error();
  return std::unique_ptr<ChunkStore>(new ChunkStore(std::move(state)));
}

Outcome State::read_superblock() {
  if (file.size_bytes() < kStoreBytesMin)
    return Error{Code::kCorrupt, path + ": is no store: it has " +
                                     std::to_string(file.size_bytes()) +
                                     " bytes, a store has at least " +
                                     std::to_string(kStoreBytesMin) + "; format it first"};
  Aligned bytes(kStructBytes);
  Superblock copies[2];
  Flaw flaws[2];
  for (int copy = 0; copy < 2; ++copy) {
    if (int error = file.read_sync(kSuperblockOffsets[copy], bytes.span()))
      return io_error(path, "cannot read the superblock", kSuperblockOffsets[copy], error);
    copies[copy] = bytes.as<Superblock>();
    flaws[copy] = flaw_of(copies[copy], kSuperblockMagic);
  }
  if (copies[0].magic == 0 && copies[1].magic == 0)
    return Error{Code::kCorrupt,
                 path + ": is no store: there is no superblock at offset 0 nor at offset " +
                     std::to_string(kSuperblockOffsets[1]) + "; format it first"};
  const bool both = flaws[0].none() && flaws[1].none();
  if (!flaws[0].none() && !flaws[1].none())
    return damage(path, "superblock (both copies)", kSuperblockOffsets[0], flaws[0].expected,
                  flaws[0].found);
  if (both && !same_store(copies[0], copies[1]))
    return damage(path, "superblock copy 1", kSuperblockOffsets[1],
                  "store " + copies[0].store.text() + " as in copy 0",
                  "store " + copies[1].store.text() + " or other sizes");
  // The higher incarnation: a start that was cut between the two copies used neither.
  const bool second = both ? copies[1].incarnation > copies[0].incarnation : !flaws[0].none();
  superblock = copies[second];
  superblock_first = second ? 0 : 1;
  if (!both)  // start_incarnation() writes both
    base::log(base::LogLevel::kWarning, "store_superblock_healed",
              {{"path", path}, {"offset", kSuperblockOffsets[!second]}});
  return check_superblock(kSuperblockOffsets[second]);
}

Outcome State::check_superblock(uint64_t offset) {
  const std::string where = path + ": superblock at offset " + std::to_string(offset);
  if (superblock.format_version != kFormatVersion)
    return Error{Code::kVersion,
                 where + ": format version " + std::to_string(superblock.format_version) +
                     ", this program knows version " + std::to_string(kFormatVersion) +
                     "; use the program that made it"};
  if (superblock.features & ~kFeaturesKnown)
    return Error{Code::kVersion, where + ": features " + hex(superblock.features) +
                                     ", this program knows " + hex(kFeaturesKnown) +
                                     "; use a newer program"};
  auto plan = plan_geometry(superblock.bytes, superblock.blob_bytes);
  if (!plan || plan->bytes != superblock.bytes || plan->blob_bytes != superblock.blob_bytes ||
      plan->blocks != superblock.blocks || plan->blocks_offset != superblock.blocks_offset ||
      plan->pages != superblock.pages || superblock.reserve_percent > kReservePercentMax ||
      superblock.store.is_none())
    return damage(path, "superblock", offset, "sizes that fit together",
                  std::to_string(superblock.bytes) + " bytes, " +
                      std::to_string(superblock.blocks) + " blocks, " +
                      std::to_string(superblock.pages) + " pages");
  geometry = *plan;
  if (file.size_bytes() < geometry.bytes)
    return damage(path, "file", file.size_bytes(),
                  "a size of " + std::to_string(geometry.bytes) + " bytes",
                  std::to_string(file.size_bytes()));
  // R8: in a small store still a few of the largest writes.
  const auto kept = [&](uint64_t all) {
    const uint64_t least = superblock.reserve_percent == 0 ? 0 : kReserveBlocksMin;
    return std::max(all * superblock.reserve_percent / 100, std::min(least, all / 16));
  };
  space = BlockSpace(geometry.blocks, kept(geometry.blocks));
  map = PageMap(geometry.pages);
  pages_kept = kept(geometry.pages);
  names.resize(geometry.pages);
  dirty = BitTree(geometry.pages);
  return {};
}

// The newest valid copy of the header in a root slot. A slot without one was never written, or was
// torn in its own write.
Outcome State::read_root_slot(uint32_t slot, FoundRoot& out) {
  Aligned bytes(kRootHeaderBytes);
  const uint64_t offset = geometry.root_offset(slot);
  if (int error = file.read_sync(offset, bytes.span()))
    return io_error(path, "cannot read the checkpoint root", offset, error);
  for (uint32_t copy = 0; copy < 2; ++copy) {
    const auto& header = bytes.as<RootHeader>(copy);
    const Flaw flaw = flaw_of(header, superblock.store, copy);
    if (!flaw.none()) {
      if (copy == 0) out.expected = flaw.expected, out.found = flaw.found;
      continue;
    }
    out.copies[copy] = header.version;
    if (!out.valid || out.header.version < header.version) out.header = header;
    out.valid = true;
  }
  return {};
}

// A root's header is written twice, in one write, after its body and pages are durable. So
// - a slot with a valid copy holds that root, and a body or page that does not fit is damage;
// - a slot without one was torn in its own write, or never written: nobody was told of it, and the
// other slot is the answer. One damaged sector leaves the other copy. Whoever was told of a newer
// root than the one found (the WAL's anchor moves only after the root is durable) sees it by
// comparing checkpoint_version().
Outcome State::read_root() {
  FoundRoot roots[2];
  for (uint32_t slot = 0; slot < 2; ++slot)
    if (auto outcome = read_root_slot(slot, roots[slot]); !outcome) return outcome;
  if (!roots[0].valid && !roots[1].valid)
    return damage(path, "checkpoint root (both slots)", geometry.root_offset(1), roots[1].expected,
                  roots[1].found);
  root_slot =
      !roots[0].valid || (roots[1].valid && roots[1].header.version > roots[0].header.version);
  const RootHeader& header = roots[root_slot].header;
  const FoundRoot& other = roots[1 - root_slot];
  const uint64_t offset = geometry.root_offset(root_slot);
  if (header.format_version != kFormatVersion)
    return Error{Code::kVersion, path + ": checkpoint root at offset " + std::to_string(offset) +
                                     ": format version " + std::to_string(header.format_version) +
                                     ", this program knows version " +
                                     std::to_string(kFormatVersion) +
                                     "; use the program that made it"};
  if (other.valid && header.version != other.header.version + 1)
    return damage(path, "checkpoint root", geometry.root_offset(1 - root_slot),
                  "version " + std::to_string(header.version - 1),
                  "version " + std::to_string(other.header.version));
  if (header.version == 0 || header.pages > geometry.pages ||
      header.blob_bytes > geometry.blob_bytes ||
      header.body_bytes != header.pages * sizeof(PageName) + header.blob_bytes ||
      header.blobs > header.blob_bytes / sizeof(BlobHead))
    return damage(path, "checkpoint root", offset, "sizes that fit together",
                  std::to_string(header.pages) + " pages, " + std::to_string(header.blob_bytes) +
                      " bytes of blobs");
  if (auto outcome = read_root_body(header, offset + kRootHeaderBytes); !outcome) return outcome;
  return heal_root(roots[root_slot], offset);
}

Outcome State::read_root_body(const RootHeader& header, uint64_t offset) {
  version = header.version;

  Aligned body((header.body_bytes + kStructBytes - 1) / kStructBytes * kStructBytes + kStructBytes);
  for (uint64_t at = 0; at < header.body_bytes; at += kScanBytes) {
    const size_t part = std::min<size_t>(kScanBytes, body.size - kStructBytes - at);
    if (int error = file.read_sync(offset + at, body.span().subspan(at, part)))
      return io_error(path, "cannot read the body of the checkpoint root", offset + at, error);
  }
  const auto content = body.span().first(header.body_bytes);
  if (const uint32_t crc = base::crc32c(content); crc != header.body_crc)
    return damage(path, "body of checkpoint root " + std::to_string(version), offset,
                  "checksum " + hex(header.body_crc), "checksum " + hex(crc));
  base::Reader reader(content);
  if (header.pages)
    std::memcpy(names.data(), reader.raw(header.pages * sizeof(PageName)).data(),
                header.pages * sizeof(PageName));
  for (uint32_t i = 0; i < header.blobs && reader.ok(); ++i) {
    const auto head = reader.get<BlobHead>();
    const auto blob = reader.raw(head.bytes);
    blobs.push_back({head.copyset, {blob.begin(), blob.end()}});
  }
  if (!reader.done())
    return damage(
        path, "body of checkpoint root " + std::to_string(version), offset,
        std::to_string(header.blobs) + " blobs in " + std::to_string(header.blob_bytes) + " bytes",
        "others");
  blob_bytes = header.blob_bytes;
  return {};
}

// A copy of the header is bad, or its write was torn: it alone is written again (the good one must
// survive a crash here) before anything relies on this root. start_incarnation() syncs.
Outcome State::heal_root(const FoundRoot& root, uint64_t offset) {
  if (read_only) return {};
  Aligned bytes(kStructBytes);
  for (uint32_t copy = 0; copy < 2; ++copy) {
    if (root.copies[copy] == root.header.version) continue;
    auto& fresh = bytes.as<RootHeader>() = root.header;
    fresh.copy = copy;
    fresh.crc = seal_of(fresh);
    const uint64_t at = offset + copy * kStructBytes;
    base::log(base::LogLevel::kWarning, "store_root_healed", {{"path", path}, {"offset", at}});
    if (int error = file.write_sync(at, bytes.span()))
      return io_error(path, "cannot write the checkpoint root", at, error);
  }
  return {};
}

Outcome State::read_pages() {
  uint32_t end = geometry.pages;
  while (end > 0 && !names[end - 1].used()) --end;
  Aligned bytes(kScanBytes);
  constexpr uint32_t kPerRead = kScanBytes / kStructBytes;
  for (uint32_t slot = 0; slot < 2; ++slot) {
    for (uint32_t first = 0; first < end; first += kPerRead) {
      uint32_t from = first, to = std::min(end, first + kPerRead);
      const auto wanted = [&](uint32_t number) {
        return names[number].used() && names[number].slot() == slot;
      };
      while (from < to && !wanted(from)) ++from;
      while (to > from && !wanted(to - 1)) --to;
      if (from == to) continue;
      const uint64_t offset = geometry.page_offset(from, slot);
      if (file.read_sync(offset, bytes.span().first(size_t{to - from} * kStructBytes))) {
        if (auto outcome = read_pages_singly(from, to, slot); !outcome) return outcome;
        continue;
      }
      for (uint32_t number = from; number < to; ++number)
        if (wanted(number))
          if (auto outcome = load_page(number, bytes.as<PageSlot>(number - from)); !outcome)
            return outcome;
    }
  }
  return {};
}

// A part that the device would not give as a whole.
Outcome State::read_pages_singly(uint32_t from, uint32_t to, uint32_t slot) {
  Aligned bytes(kStructBytes);
  for (uint32_t number = from; number < to; ++number) {
    if (!names[number].used() || names[number].slot() != slot) continue;
    const uint64_t offset = geometry.page_offset(number, slot);
    if (int error = file.read_sync(offset, bytes.span())) {
      lose_page(number, io_error(path, "cannot read a metadata page", offset, error));
      continue;
    }
    if (auto outcome = load_page(number, bytes.as<PageSlot>()); !outcome) return outcome;
  }
  return {};
}

// What it mapped must come from the peers; its place in the pool is free.
void State::lose_page(uint32_t number, const Error& error) {
  ++pages_lost;
  names[number] = {};
  base::log(base::LogLevel::kError, "store_page_lost", {{"what", error.message}});
}

// Not what the root names: damage, and the page is lost. Named, and yet senseless: no damage of a
// device does that, and the store is refused.
Outcome State::load_page(uint32_t number, const PageSlot& found) {
  const PageName name = names[number];
  const auto bad = [&](const std::string& expected, const std::string& seen) {
    return damage(path, "metadata page " + std::to_string(number),
                  geometry.page_offset(number, name.slot()), expected, seen);
  };
  const auto lost = [&](const std::string& expected, const std::string& seen) {
    lose_page(number, bad(expected, seen));
    return Outcome{};
  };
  if (found.magic != kPageMagic)
    return lost("magic " + hex(kPageMagic), "magic " + hex(found.magic));
  if (const uint32_t crc = seal_of(found); crc != found.crc)
    return lost("checksum " + hex(crc), "checksum " + hex(found.crc));
  if (base::crc32c(std::as_bytes(std::span(&found, 1))) != name.crc &&
      !CURVE_MUTANT("r5_accept_older_slot"))
    return lost("version " + std::to_string(name.version_low()) + " (low 30 bits) that root " +
                    std::to_string(version) + " names",
                "another page, of version " + std::to_string(found.version));
  if (found.format_version != kFormatVersion || found.number != number ||
      found.slot != name.slot() || found.page >= kPagesPerChunk || found.volume == 0)
    return bad("page " + std::to_string(number) + " in slot " + std::to_string(name.slot()),
               "page " + std::to_string(found.number) + " in slot " + std::to_string(found.slot) +
                   ", part " + std::to_string(found.page) + " of a chunk of volume " +
                   std::to_string(found.volume));
  const PageId id{found.copyset, {found.volume, found.chunk}, found.page};
  if (!map.create_at(number, id))
    return bad("a part of a chunk that no other page holds",
               "part " + std::to_string(id.page) + " of chunk " + std::to_string(found.chunk) +
                   " of volume " + std::to_string(found.volume) + " a second time");
  Page& page = map.page(number);
  page.index = found.index;
  for (uint32_t slot = 0; slot < kBlocksPerPage; ++slot) {
    const uint32_t physical = found.physical[slot];
    const uint16_t written = found.written[slot];
    if (physical == 0 && written == 0) continue;
    const std::string where = "block " + std::to_string(slot) + " of the page";
    if (physical == 0 || written == 0 || slot >= blocks_in_page(id.page))
      return bad(where + " mapped and written, or neither",
                 "physical block " + std::to_string(physical) + ", written " + hex(written));
    if (physical > geometry.blocks)
      return bad(where + " at a physical block of 1.." + std::to_string(geometry.blocks),
                 std::to_string(physical));
    if (space.references(physical) > 0)
      return bad(where + " at a physical block of its own",
                 "block " + std::to_string(physical) + ", which is mapped twice");
    space.retake(physical);
    space.reference(physical);
    Entry& entry = map.insert(page, slot);
    entry.physical = physical;
    entry.written = written;
    entry.crc = found.crcs[slot];
  }
  return {};
}

// R9. Both copies carry the new incarnation before anybody hears of it; the sync also makes durable
// what was read.
Outcome State::start_incarnation() {
  if (read_only) return {};
  ++superblock.incarnation;
  return write_superblocks(file, path, superblock, superblock_first);
}

}  // namespace curve::chunkstore
