// Where a job's volume maps come from: `curve internal map-feed`, a child that attaches the volume
// and writes maps (u32 length, then docs/formats/volume-map.md) to its standard output, the first
// at once, newer ones as they come. Its standard input is the other direction of the same socket:
// the end of it detaches. Or a file that holds one map.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "native/client/volume_client.h"

namespace curve::fio {

class MapFeed {
 public:
  MapFeed() = default;
  MapFeed(const MapFeed&) = delete;
  MapFeed& operator=(const MapFeed&) = delete;
  ~MapFeed();  // detaches; may block shortly
  // May block.
  Outcome start(const std::vector<std::string>& command);
  Result<client::VolumeMap> wait_first(int timeout_ms);
  // A newer map, if one came. Does not block.
  std::optional<client::VolumeMap> poll();

 private:
  bool receive(bool wait, int timeout_ms);
  std::optional<std::vector<std::byte>> take_message();
  int socket_ = -1;
  pid_t child_ = -1;
  std::vector<std::byte> buffer_;
};

Result<client::VolumeMap> read_map_file(const std::string& path);

}  // namespace curve::fio
