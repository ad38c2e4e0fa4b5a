// Names of the codes, for logs and messages. Any thread.
#include "native/base/status.h"

namespace curve {

std::string_view code_name(Code code) {
  switch (code) {
    case Code::kOk:
      return "ok";
    case Code::kNotLeader:
      return "not_leader";
    case Code::kWrongTerm:
      return "wrong_term";
    case Code::kFenced:
      return "fenced";
    case Code::kNoVolume:
      return "no_volume";
    case Code::kNoSpace:
      return "no_space";
    case Code::kInvalid:
      return "invalid";
    case Code::kBadChecksum:
      return "bad_checksum";
    case Code::kBusy:
      return "busy";
    case Code::kNoCopyset:
      return "no_copyset";
    case Code::kShuttingDown:
      return "shutting_down";
    case Code::kIo:
      return "io_error";
    case Code::kCorrupt:
      return "corrupt";
    case Code::kTimeout:
      return "timeout";
    case Code::kDisconnected:
      return "disconnected";
    case Code::kUnauthenticated:
      return "unauthenticated";
    case Code::kVersion:
      return "unknown_version";
    case Code::kNotFound:
      return "not_found";
    case Code::kExists:
      return "exists";
    case Code::kLocked:
      return "locked";
    case Code::kReadOnly:
      return "read_only";
    case Code::kCancelled:
      return "cancelled";
    case Code::kDropped:
      return "dropped";
  }
  return "unknown";  // a number from the wire that this version does not know
}

}  // namespace curve
