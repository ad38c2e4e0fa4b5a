// Where --trace goes: the world's events and the system's log lines, with virtual time and node, on
// stderr.
#pragma once

#include <cstdio>
#include <string>
#include <string_view>

#include "native/base/log.h"
#include "native/sim/world.h"

namespace curve::sim {

inline void trace_to_stderr(World& world, bool wanted) {
  if (!wanted) {
    world.capture_log([](const Node*, std::string_view) {});
    return;
  }
  base::set_log_level(base::LogLevel::kDebug);
  world.set_trace_sink([](const std::string& line) { std::fprintf(stderr, "%s\n", line.c_str()); });
  world.capture_log([&world](const Node* node, std::string_view line) {
    std::fprintf(stderr, "%12.6f %-8s log %.*s\n", static_cast<double>(world.now_ns()) / 1e9,
                 node ? node->name.c_str() : "-", static_cast<int>(line.size()), line.data());
  });
}

}  // namespace curve::sim
