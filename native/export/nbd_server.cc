// See nbd_server.h: the listener, the exports, and who is connected.
#include "native/export/nbd_server.h"

#include <cassert>
#include <map>

#include "native/base/log.h"
#include "native/export/nbd_session.h"

namespace curve::exports {

struct NbdServer::State final : io::Listener, NbdSessions {
  State(io::Loop& the_loop, base::BufferPool& the_pool, const NbdOptions& the_options)
      : loop(the_loop), pool(the_pool), options(the_options) {
    later.owner = this;
    later.fire = [](io::Timer* timer) { static_cast<State*>(timer->owner)->report(); };
  }

  struct Removal {
    uint64_t export_id;
    std::function<void()> removed;
  };

  io::Loop& loop;
  base::BufferPool& pool;
  NbdOptions options;
  io::Address address;
  std::map<std::string, NbdExport, std::less<>> exports;
  base::List<NbdSession> sessions;
  std::vector<Removal> removals;
  std::function<void()> closed;
  io::Timer later;
  bool closing = false;
  uint64_t last_id = 0;

  void accepted(io::Stream* stream) override {
    if (closing || stats.connections >= options.connections_max) {
      if (!closing)
        base::log(base::LogLevel::kWarning, "nbd_too_many_connections", {{"peer", stream->peer()}});
      return stream->close();
    }
    ++stats.connections;
    sessions.push_back(new NbdSession(loop, pool, options, stream, *this));
  }
  const NbdExport* find(std::string_view name) override {
    if (name.empty() && exports.size() == 1) return &exports.begin()->second;
    const auto at = exports.find(name);
    return at == exports.end() ? nullptr : &at->second;
  }
  std::vector<const NbdExport*> all() override {
    std::vector<const NbdExport*> out;
    for (const auto& [name, what] : exports) out.push_back(&what);
    return out;
  }
  void ended(NbdSession* session) override {
    --stats.connections;
    delete session;
    loop.arm(&later, loop.now_ns());
  }
  bool used(uint64_t export_id) {
    for (NbdSession* s = sessions.front(); s; s = sessions.next(s)) {
      if (s->export_id() == export_id) return true;
    }
    return false;
  }
  // Tells who waits for devices that nobody uses any more.
  void report() {
    for (size_t i = 0; i < removals.size();) {
      if (used(removals[i].export_id)) {
        ++i;
        continue;
      }
      const auto removed = std::move(removals[i].removed);
      removals.erase(removals.begin() + static_cast<ptrdiff_t>(i));
      if (removed) removed();
    }
    if (!closing || !closed || !sessions.empty()) return;
    const auto run = std::exchange(closed, nullptr);
    run();
  }
};

NbdServer::NbdServer(std::unique_ptr<State> state) : state_(std::move(state)) {}

Result<std::unique_ptr<NbdServer>> NbdServer::listen(io::Loop& loop, base::BufferPool& pool,
                                                     const io::Address& address,
                                                     const NbdOptions& options) {
  auto state = std::make_unique<State>(loop, pool, options);
  auto bound = loop.listen(address, state.get());
  if (!bound) return bound.error();
  state->address = *bound;
  return std::unique_ptr<NbdServer>(new NbdServer(std::move(state)));
}

NbdServer::~NbdServer() {
  State& s = *state_;
  assert(s.sessions.empty() || s.loop.abandoned());
  while (NbdSession* session = s.sessions.front()) delete session;
  s.loop.disarm(&s.later);
  if (!s.closing) s.loop.close_listener(&s);
}

const io::Address& NbdServer::address() const { return state_->address; }
NbdStats NbdServer::stats() const { return state_->stats; }

Code NbdServer::add_export(const NbdExport& what) {
  assert(what.device);
  const auto [at, added] = state_->exports.emplace(what.name, what);
  if (added) at->second.id = ++state_->last_id;
  return added ? Code::kOk : Code::kExists;
}

void NbdServer::remove_export(const std::string& name, std::function<void()> removed) {
  State& s = *state_;
  uint64_t id = UINT64_MAX;  // nobody's
  if (const auto at = s.exports.find(name); at != s.exports.end()) {
    id = at->second.id;
    s.exports.erase(at);
  }
  for (NbdSession* session = s.sessions.front(); session; session = s.sessions.next(session)) {
    if (session->export_id() == id) session->close();
  }
  s.removals.push_back({id, std::move(removed)});
  s.loop.arm(&s.later, s.loop.now_ns());
}

void NbdServer::close(std::function<void()> closed) {
  State& s = *state_;
  s.closed = std::move(closed);
  if (!s.closing) s.loop.close_listener(&s);
  s.closing = true;
  for (NbdSession* session = s.sessions.front(); session; session = s.sessions.next(session))
    session->close();
  s.loop.arm(&s.later, s.loop.now_ns());
}

}  // namespace curve::exports
