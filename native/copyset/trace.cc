#include "native/copyset/trace.h"

#include <algorithm>

#include "native/copyset/server_state.h"
#include "native/wire/codec.h"

namespace curve::copyset {

Trace::Trace(io::Loop& loop, const StoreId& self, const TraceRequest& request,
             std::function<void(TraceReport)> done)
    : loop_(loop), self_(self), done_(std::move(done)) {
  report_.volume = request.volume;
  report_.stages.resize(kTraceStages);
  end_.owner = this;
  end_.fire = [](io::Timer* timer) { static_cast<Trace*>(timer->owner)->finish(); };
  loop.arm(&end_, loop.now_ns() + std::min(request.duration_ns, kTraceNsMax));
}

Trace::~Trace() {
  if (end_.armed()) loop_.disarm(&end_);
  for (Request* request : open_) request->traced = false;
}

bool Trace::wants(const Request& request) const {
  return request.type == wire::FrameType::kWrite && request.body.volume == report_.volume;
}

void Trace::proposed(Request* request) {
  request->traced = true;
  request->times = {};
  request->times.proposed_ns = loop_.precise_now_ns();
  open_.push_back(request);
}

void Trace::look() {
  const uint64_t now = loop_.precise_now_ns();
  for (Request* request : open_) {
    if (!request->copyset->group) continue;  // removed: it is about to be dropped
    const raft::Group& raft = request->copyset->group->raft();
    RequestTimes& times = request->times;
    const auto note = [now](uint64_t& at, bool happened) {
      if (at == 0 && happened) at = now;
    };
    note(times.durable_ns, raft.durable_index() >= request->index);
    note(times.committed_ns, raft.commit() >= request->index);
    if (times.followed_ns != 0) continue;
    const raft::Config& config = raft.config();
    for (uint8_t i = 0; i < config.count; ++i) {
      const raft::Member& member = config.members[i];
      if (member.store != self_ && member.role == raft::MemberRole::kVoter)
        note(times.followed_ns, raft.match_of(member.store) >= request->index);
    }
  }
}

void Trace::record(TraceStage stage, uint64_t from_ns, uint64_t to_ns) {
  report_.stages[static_cast<size_t>(stage)].record(to_ns > from_ns ? to_ns - from_ns : 0);
}

void Trace::answered(const Request& request, const StoreId& client) {
  const uint64_t now = loop_.precise_now_ns();
  const RequestTimes& times = request.times;
  const uint64_t committed = times.committed_ns ? times.committed_ns : now;
  ++report_.writes;
  record(TraceStage::kQueue, request.received_ns, times.proposed_ns);
  // Side by side; what the majority did not need may still be under way.
  if (times.durable_ns) record(TraceStage::kLog, times.proposed_ns, times.durable_ns);
  if (times.followed_ns) record(TraceStage::kFollower, times.proposed_ns, times.followed_ns);
  record(TraceStage::kCommit, times.proposed_ns, committed);
  record(TraceStage::kAnswer, committed, now);
  if (awaited_.size() < kAwaitedMax) awaited_[{client, request.tag}] = now - request.received_ns;
}

void Trace::client_part(const StoreId& client, uint64_t tag, const wire::TraceBody& body) {
  const auto it = awaited_.find({client, tag});
  if (it == awaited_.end()) return;
  ++report_.whole;
  record(TraceStage::kClient, 0, body.queue_ns);
  record(TraceStage::kNetwork, it->second, body.away_ns);
  record(TraceStage::kTotal, 0, body.queue_ns + body.away_ns);
  awaited_.erase(it);
}

void Trace::forget(Request* request) {
  request->traced = false;
  std::erase(open_, request);
}

void Trace::finish() {
  const auto done = std::move(done_);
  done(std::move(report_));
}

// ---- the server's part

void StoreServer::trace(const TraceRequest& request, std::function<void(TraceReport)> done) {
  State& state = *state_;
  TraceReport refused;
  refused.volume = request.volume;
  refused.code = state.stopping || state.out_of_service ? Code::kShuttingDown
                 : state.trace                          ? Code::kBusy
                                                        : Code::kOk;
  if (refused.code != Code::kOk) return done(std::move(refused));
  state.trace = std::make_unique<Trace>(state.loop, state.identity.id, request,
                                        [&state, done = std::move(done)](TraceReport report) {
                                          state.trace.reset();
                                          done(std::move(report));
                                        });
}

void StoreServer::State::trace_frame(const Session& session, const wire::Frame& frame) {
  wire::TraceBody body;
  if (!wire::load_body(frame.body, body))
    return session.connection->refuse(Code::kInvalid, "a TRACE frame is too short");
  if (trace) trace->client_part(session.client, frame.tag, body);
}

}  // namespace curve::copyset
