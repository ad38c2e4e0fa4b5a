// Writes that find the log full (no room in the WAL, a window of raft, a hand-over of leadership
// under way) wait here for room and are not bounced to their client.
//
// Invariants: each copyset's writes wait in the order in which they came, and a later one does not
// overtake them. Nothing here is proposed: a write that waits dies with its connection (R13), and
// leadership, term and epoch are checked again when it goes on (R12, R13). The number and the bytes
// of those that wait are bounded; beyond that the client is told kBusy.
#include <algorithm>

#include "native/copyset/server_state.h"

namespace curve::copyset {

void StoreServer::State::wait_for_room(Request* request) {
  Copyset& copyset = *request->copyset;
  const bool again = copyset.woken == request;
  const uint64_t bytes = request->buffer.size();
  if (!again) {
    if (waiting_requests >= options.waiting_requests_max ||
        waiting_bytes + bytes > options.waiting_bytes_max) {
      ++counters.bounced;
      return answer(request, Code::kBusy);
    }
    ++counters.waited;
  }
  if (std::find(waiting_copysets.begin(), waiting_copysets.end(), &copyset) ==
      waiting_copysets.end()) {
    waiting_copysets.push_back(&copyset);
  }
  request->waiting = true;
  ++waiting_requests;
  waiting_bytes += bytes;
  again ? copyset.waiting.push_front(request) : copyset.waiting.push_back(request);
}

void StoreServer::State::leave_waiting(Request* request) {
  request->waiting = false;
  --waiting_requests;
  waiting_bytes -= request->buffer.size();
  std::deque<Request*>& queue = request->copyset->waiting;
  queue.front() == request ? queue.pop_front() : void(std::erase(queue, request));
}

// Each turn: the first of each copyset tries again, then those behind it as long as there is room.
void StoreServer::State::wake_waiting() {
  for (size_t i = 0; i < waiting_copysets.size();) {
    Copyset& copyset = *waiting_copysets[i];
    while (!copyset.waiting.empty()) {
      Request* request = copyset.waiting.front();
      leave_waiting(request);
      copyset.woken = request;
      resume(request);
      copyset.woken = nullptr;
      if (!copyset.waiting.empty() && copyset.waiting.front() == request) break;  // still no room
    }
    if (!copyset.waiting.empty()) {
      ++i;
      continue;
    }
    waiting_copysets[i] = waiting_copysets.back();
    waiting_copysets.pop_back();
  }
}

void StoreServer::State::resume(Request* request) {
  if (!request->merging) return dispatch(request);
  // What it was merged with still is the newest appended value: it holds the chunk (R14).
  Code code = check_leader(request);
  if (code == Code::kOk)
    code = request->copyset->fences.check(request->body.volume, request->body.epoch);
  if (code != Code::kOk) return answer(request, code);
  propose_range(request);
}

}  // namespace curve::copyset
