// libFuzzer target: everything that is decoded from one piece of bytes. The first byte chooses the
// decoder, the rest is what it gets. What decodes is encoded again where there is an encoder, and
// must then decode to the same bytes.
#include <cstdlib>
#include <cstring>
#include <vector>

#include "native/base/bytes.h"
#include "native/base/crc32c.h"
#include "native/client/volume_client.h"
#include "native/copyset/commands.h"
#include "native/copyset/fences.h"
#include "native/raft/group.h"
#include "native/replica/codec.h"
#include "native/replica/replica.h"
#include "native/wal/format.h"

namespace {

using Bytes = std::span<const std::byte>;

void same(const std::vector<std::byte>& a, const std::vector<std::byte>& b) {
  if (a != b) std::abort();
}

void config(Bytes bytes) {
  auto decoded = curve::raft::decode_config(bytes);
  if (!decoded) return;
  const auto once = curve::raft::encode_config(*decoded);
  auto again = curve::raft::decode_config(once);
  if (!again) std::abort();
  same(once, curve::raft::encode_config(*again));
}

void group_blob(Bytes bytes) {
  auto decoded = curve::replica::decode_group_blob(bytes);
  if (!decoded) return;
  const auto once = curve::replica::encode_group_blob(*decoded);
  auto again = curve::replica::decode_group_blob(once);
  if (!again) std::abort();
  same(once, curve::replica::encode_group_blob(*again));
}

void beat(Bytes bytes) {
  curve::raft::Beat beat;
  if (!curve::replica::decode_beat(bytes, beat)) return;
  std::vector<std::byte> out;
  curve::replica::encode_beat(beat, out);
  if (out.size() > bytes.size()) std::abort();
}

void beat_reply(Bytes bytes) {
  curve::raft::BeatReply reply;
  curve::replica::Room room;
  if (!curve::replica::decode_beat_reply(bytes, reply, room)) return;
  std::vector<std::byte> out;
  curve::replica::encode_beat_reply(reply, room, out);
  if (out.size() > bytes.size()) std::abort();
}

void fences(Bytes bytes) {
  curve::copyset::Fences fences;
  curve::base::Reader reader(bytes);
  if (!fences.merge(reader)) return;
  for (const auto& [volume, fence] : fences.all()) {
    if (fence.ceiling < fence.floor) std::abort();  // R12: never a range that admits by wrapping
    (void)fences.check(volume, fence.floor);
  }
  std::vector<std::byte> once;
  curve::base::Writer writer(once);
  fences.encode(writer);
  curve::copyset::Fences again;
  curve::base::Reader second(once);
  if (!again.merge(second)) std::abort();
}

void commands(Bytes bytes) {
  (void)curve::copyset::command_type(bytes);
  if (auto range = curve::copyset::decode_range(bytes)) {
    if (range->first_sector + uint64_t{range->sectors} > curve::kSectorsPerChunk) std::abort();
  }
}

void log_header(Bytes bytes) {
  using namespace curve::wal;
  AppendHeader header;
  std::vector<std::byte> sector(bytes.begin(), bytes.end());
  sector.resize((sector.size() + 4095) / 4096 * 4096 + 4096);
  if (sector.size() >= sizeof(AppendHeader)) {
    std::memcpy(&header, sector.data(), sizeof(header));
    header.magic = kAppendMagic;
    if (header.used_bytes >= sizeof(header) && header.used_bytes <= sector.size()) {
      header.crc = 0;
      std::memcpy(sector.data(), &header, sizeof(header));
      header.crc = curve::base::crc32c(Bytes(sector).first(header.used_bytes));
      std::memcpy(sector.data(), &header, sizeof(header));
      // A heap block of exactly that size: the sanitizer sees each byte beyond it.
      const std::vector<std::byte> exact(sector.begin(), sector.begin() + header.used_bytes);
      if (check_append(exact)) {
        RecordReader reader(exact);
        RecordView view;
        while (reader.next(&view)) {
          if (view.head_content.size() > exact.size()) std::abort();
        }
      }
    }
  }
  (void)decode_anchor(sector);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::vector<std::byte> copy(reinterpret_cast<const std::byte*>(data + 1),
                                    reinterpret_cast<const std::byte*>(data + size));
  switch (data[0] % 8) {
    case 0:
      (void)curve::client::decode_volume_map(copy);
      break;
    case 1:
      config(copy);
      break;
    case 2:
      group_blob(copy);
      break;
    case 3:
      beat(copy);
      break;
    case 4:
      beat_reply(copy);
      break;
    case 5:
      fences(copy);
      break;
    case 6:
      commands(copy);
      break;
    case 7:
      log_header(copy);
      break;
  }
  return 0;
}
