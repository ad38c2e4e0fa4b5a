// Writes that find the log full (no room in the WAL, a window of raft, a hand-over of leadership
// under way) wait here for room and are not bounced to their client. So do fences and other control
// commands, before all writes: an attachment is not to be put off for as long as clients are busy
// (R12 promises when it is answered, promise 3 that it is).
//
// Invariants: each copyset's writes wait in the order in which they came, and a later one does not
// overtake them. Nothing here is proposed: a write that waits dies with its connection (R13), and
// leadership, term and epoch are checked again when it goes on (R12, R13). The number and the bytes
// of those that wait are bounded; beyond that the client is told kBusy.
#include <algorithm>

#include "native/base/mutant.h"
#include "native/copyset/server_state.h"

namespace curve::copyset {
namespace {
// Each is sent again now and then: more would be the same ones.
constexpr size_t kControlWaitingMax = 64;
}  // namespace

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
  wake_later(copyset);
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

void StoreServer::State::propose_control(Copyset& copyset, std::span<const std::byte> head,
                                         Proposal* proposal) {
  const Code code = copyset.waiting_control.empty() ? try_control(copyset, head, proposal)
                    : copyset.waiting_control.size() < kControlWaitingMax ? Code::kBusy
                                                                          : Code::kNotLeader;
  if (code == Code::kOk) return;
  if (code != Code::kBusy || CURVE_MUTANT("r12_fences_wait_for_writes"))
    return proposal->finished(proposal, code);
  copyset.waiting_control.push_back({{head.begin(), head.end()}, proposal});
  wake_later(copyset);
}

Code StoreServer::State::try_control(Copyset& copyset, std::span<const std::byte> head,
                                     Proposal* proposal) {
  if (stopping || out_of_service) return Code::kShuttingDown;
  if (!copyset.group || !copyset.group->is_leader()) return Code::kNotLeader;
  const Code code = replica->may_propose(*copyset.group, 0, head.size());
  if (code != Code::kOk) return code;
  replica::EntryRef entry = replica->take_entry();
  entry->head.assign(head.begin(), head.end());
  entry->context = proposal;
  replica->propose(*copyset.group, entry);
  return Code::kOk;
}

void StoreServer::State::wake_control(Copyset& copyset) {
  while (!copyset.waiting_control.empty()) {
    const WaitingControl first = std::move(copyset.waiting_control.front());
    const Code code = try_control(copyset, first.head, first.proposal);
    if (code == Code::kBusy) {
      copyset.waiting_control.front() = first;
      return;
    }
    copyset.waiting_control.pop_front();
    if (code != Code::kOk) first.proposal->finished(first.proposal, code);
  }
}

void StoreServer::State::wake_later(Copyset& copyset) {
  if (std::find(waiting_copysets.begin(), waiting_copysets.end(), &copyset) ==
      waiting_copysets.end()) {
    waiting_copysets.push_back(&copyset);
  }
}

// Each turn: the first of each copyset tries again, then those behind it as long as there is room;
// and each turn another copyset is the first, for what they share is the room of one log.
void StoreServer::State::wake_waiting() {
  for (size_t i = 0; i < waiting_copysets.size(); ++i) wake_control(*waiting_copysets[i]);
  if (waiting_copysets.size() > 1)
    std::rotate(waiting_copysets.begin(), waiting_copysets.begin() + 1, waiting_copysets.end());
  for (size_t i = 0; i < waiting_copysets.size();) {
    Copyset& copyset = *waiting_copysets[i];
    if (!copyset.waiting_control.empty()) {
      ++i;
      continue;
    }
    while (!copyset.waiting.empty()) {
      Request* request = copyset.waiting.front();
      leave_waiting(request);
      copyset.woken = request;
      resume(request);
      copyset.woken = nullptr;
      if (!copyset.waiting.empty() && copyset.waiting.front() == request) break;  // still no room
    }
    if (!copyset.waiting.empty() || !copyset.waiting_control.empty()) {
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
