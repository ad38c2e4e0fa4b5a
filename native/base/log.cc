// One JSON object per line, one write(2) per line, so that lines of several threads do not mix. Any
// thread.
#include "native/base/log.h"

#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <ctime>

namespace curve::base {
namespace {

// Two words that belong together; set at start-up, before there are threads that log.
std::atomic<LogSink> sink_call{nullptr};
std::atomic<void*> sink_owner{nullptr};
std::atomic<LogLevel> level_min{LogLevel::kInfo};

void append_escaped(std::string& out, std::string_view text) {
  for (char c : text) {
    if (c == '"' || c == '\\') {
      out.push_back('\\');
      out.push_back(c);
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char code[8];
      std::snprintf(code, sizeof code, "\\u%04x", static_cast<unsigned>(c));
      out += code;
    } else {
      out.push_back(c);
    }
  }
}

void append_string(std::string& out, std::string_view text) {
  out.push_back('"');
  append_escaped(out, text);
  out.push_back('"');
}

void append_time(std::string& out) {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  tm parts{};
  gmtime_r(&now.tv_sec, &parts);
  char text[64];
  const size_t length = std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &parts);
  std::snprintf(text + length, sizeof text - length, ".%06ldZ", now.tv_nsec / 1000);
  append_string(out, text);
}

std::string_view level_name(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "debug";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarning:
      return "warning";
    case LogLevel::kError:
      return "error";
  }
  return "error";
}

void append_value(std::string& out, const LogField& field) {
  if (const auto* text = std::get_if<std::string>(&field.value)) {
    append_string(out, *text);
  } else if (const auto* number = std::get_if<uint64_t>(&field.value)) {
    out += std::to_string(*number);
  } else {
    out += std::to_string(std::get<int64_t>(field.value));
  }
}

}  // namespace

void log(LogLevel level, std::string_view event, std::initializer_list<LogField> fields) {
  const LogSink call = sink_call.load(std::memory_order_acquire);
  if (!call && level < level_min.load(std::memory_order_relaxed)) return;
  std::string line = "{";
  if (!call) {  // a sink adds its own time
    line += "\"time\":";
    append_time(line);
    line += ",";
  }
  line += "\"level\":";
  append_string(line, level_name(level));
  line += ",\"event\":";
  append_string(line, event);
  for (const LogField& field : fields) {
    line.push_back(',');
    append_string(line, field.name);
    line.push_back(':');
    append_value(line, field);
  }
  line += "}";
  if (call) {
    call(sink_owner.load(std::memory_order_acquire), level, line);
    return;
  }
  line.push_back('\n');
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, line.data(), line.size());
}

void set_log_sink(LogSink sink, void* owner) {
  sink_call.store(nullptr, std::memory_order_release);
  sink_owner.store(owner, std::memory_order_release);
  sink_call.store(sink, std::memory_order_release);
}

void set_log_level(LogLevel least) { level_min.store(least, std::memory_order_relaxed); }

}  // namespace curve::base
