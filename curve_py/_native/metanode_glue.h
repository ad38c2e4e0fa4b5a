// metanode::MetaNode for Cython.
#pragma once

#include "curve_py/_native/glue.h"
#include "native/metanode/metanode.h"

namespace curve::glue {

inline bool meta_open(const std::string& directory, const StoreId& id, const std::string& listen,
                      const std::vector<StoreId>& member_ids, const std::vector<std::string>& member_addresses,
                      const std::string& secret, bool bootstrap, uint64_t wal_bytes,
                      std::unique_ptr<metanode::MetaNode>& into, Error& error) {
  metanode::Options options;
  options.directory = directory;
  options.id = id;
  options.listen = listen;
  for (size_t i = 0; i < member_ids.size(); ++i) options.members.push_back({member_ids[i], member_addresses[i]});
  options.secret = to_bytes(secret);
  options.bootstrap = bootstrap;
  if (wal_bytes) options.wal_bytes = wal_bytes;
  return take(metanode::MetaNode::open(std::move(options)), into, error);
}

inline Outcome meta_snapshot_write(metanode::MetaNode& node, const char* data, size_t bytes) {
  return node.snapshot_write({reinterpret_cast<const std::byte*>(data), bytes});
}
inline int event_type(const metanode::Event& event) { return static_cast<int>(event.type); }

}  // namespace curve::glue
