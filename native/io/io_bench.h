// Shared by the files of io_bench.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "native/base/histogram.h"
#include "native/io/io.h"

namespace curve::io {

[[noreturn]] void bench_fail(const std::string& why);
std::unique_ptr<Loop> bench_loop();
double cpu_seconds(int who);  // RUSAGE_*
uint64_t bench_now_ns();
void bench_report(const std::string& what, const base::Histogram& latency, double seconds,
                  double cpu);

struct ReplicateOptions {
  std::string directory;
  bool read = false;
  uint32_t depth = 1;
  uint64_t seconds = 1;
  uint64_t file_bytes = 1u << 30;
};
void bench_replicate(const ReplicateOptions& options);

}  // namespace curve::io
