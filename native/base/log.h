// One structured line per event on stderr (JSON objects), for things people must know: never per
// I/O. Any thread.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <variant>

namespace curve::base {

enum class LogLevel : uint8_t { kDebug, kInfo, kWarning, kError };
struct LogField {
  std::string_view name;
  std::variant<uint64_t, int64_t, std::string> value;
};
// {"time":...,"level":"warning","event":"wal_torn_tail","position":123,...}
void log(LogLevel level, std::string_view event, std::initializer_list<LogField> fields = {});
// Lines below this level are dropped (default kInfo); a sink gets all of them.
void set_log_level(LogLevel least);
// Where lines go; nullptr: stderr. The simulation collects them with virtual time (lines for a sink
// carry no "time").
using LogSink = void (*)(void* owner, LogLevel level, std::string_view line);
void set_log_sink(LogSink sink, void* owner);

}  // namespace curve::base
