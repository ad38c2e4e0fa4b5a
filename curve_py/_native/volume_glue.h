// exports::VolumeNode for Cython.
#pragma once

#include "curve_py/_native/glue.h"
#include "native/export/device_node.h"
#include "native/export/loop_device.h"
#include "native/export/nbd_session.h"
#include "native/export/volume_node.h"

namespace curve::glue {

inline bool node_start(const std::string& secret, std::unique_ptr<exports::VolumeNode>& into, Error& error) {
  return take(exports::VolumeNode::start(to_bytes(secret)), into, error);
}
inline bool node_open_volume(exports::VolumeNode& node, const std::string& map, uint64_t& into, Error& error) {
  const auto bytes = to_bytes(map);
  return take(node.open_volume(bytes), into, error);
}
inline Outcome node_update_map(exports::VolumeNode& node, uint64_t volume, const std::string& map) {
  const auto bytes = to_bytes(map);
  return node.update_map(volume, bytes);
}
inline bool node_nbd_listen(exports::VolumeNode& node, const std::string& address, std::string& bound, uint64_t& into,
                            Error& error) {
  return take(node.nbd_listen(address, &bound), into, error);
}
inline bool node_fuse_start(exports::VolumeNode& node, uint64_t volume, const std::string& uuid, bool read_only, int fd,
                            uint64_t& into, Error& error) {
  return take(node.fuse_start(volume, uuid, read_only, fd), into, error);
}
inline bool node_fuse_attach(exports::VolumeNode& node, uint64_t fuse, const std::string& uuid, bool read_only,
                             uint32_t& into, Error& error) {
  return take(node.fuse_attach(fuse, uuid, read_only), into, error);
}
inline bool node_nbd_serve(exports::VolumeNode& node, uint64_t volume, int fd, bool read_only, uint64_t& into,
                           Error& error) {
  return take(node.nbd_serve(volume, fd, read_only), into, error);
}
inline int node_submit_and_wait(exports::VolumeNode& node, uint64_t volume, int type, uint64_t offset, uint64_t bytes,
                                void* memory, bool no_unmap) {
  return code_number(node.submit_and_wait(volume, static_cast<client::IoType>(type), offset, bytes, memory, no_unmap));
}
inline void node_submit(exports::VolumeNode& node, uint64_t volume, int type, uint64_t offset, uint64_t bytes, void* memory,
                        bool no_unmap, uint64_t ticket) {
  node.submit(volume, static_cast<client::IoType>(type), offset, bytes, memory, no_unmap, ticket);
}

}  // namespace curve::glue
