#include "native/copyset/store_node.h"

#include <atomic>

#include "native/io/loop_thread.h"

namespace curve::copyset {

struct StoreNode::State {
  std::unique_ptr<io::LoopThread> thread;
  base::BufferPool pool;
  std::unique_ptr<StoreServer> server;
  io::EventQueue<StoreEvent> events;
  std::string address;
  std::atomic<uint64_t> next_ticket{1};
  bool stopped = false;
};

StoreNode::StoreNode(std::unique_ptr<State> state) : state_(std::move(state)) {}
StoreNode::~StoreNode() { stop(); }

Outcome StoreNode::format(const StorePaths& paths, const StoreFormat& format) {
  auto loop = io::make_loop();
  if (!loop) return loop.error();
  return StoreServer::format(**loop, paths, format);
}

Result<bool> StoreNode::exists(const StorePaths& paths) {
  auto loop = io::make_loop();
  if (!loop) return loop.error();
  return StoreServer::exists(**loop, paths);
}

Result<std::unique_ptr<StoreNode>> StoreNode::open(const StorePaths& paths,
                                                   const std::string& listen,
                                                   std::span<const std::byte> secret,
                                                   const ServerOptions& options) {
  auto loop = io::make_loop();
  if (!loop) return loop.error();
  auto state = std::make_unique<State>();
  state->thread = std::make_unique<io::LoopThread>(std::move(*loop));
  auto server = StoreServer::open(state->thread->loop(), state->pool, paths, secret, options);
  if (!server) return server.error();
  state->server = std::move(*server);
  auto bound = state->server->listen({listen});
  if (!bound) return bound.error();
  state->address = bound->text;
  StoreServer::prepare(state->pool);
  State* raw = state.get();
  state->server->on_failure([raw](Code, std::string sentence) {
    raw->events.push({.type = StoreEventType::kStopped, .error = std::move(sentence)});
  });
  return std::unique_ptr<StoreNode>(new StoreNode(std::move(state)));
}

void StoreNode::start() {
  state_->thread->call([this] { state_->server->start(); });
  state_->thread->run();
}

void StoreNode::stop() {
  State& state = *state_;
  if (state.stopped) return;
  state.stopped = true;
  if (state.thread->running()) {
    std::mutex mutex;
    std::condition_variable condition;
    bool done = false;
    state.thread->call([&] {
      state.server->stop([&] {
        std::lock_guard lock(mutex);
        done = true;
        condition.notify_one();
      });
    });
    {
      std::unique_lock lock(mutex);
      condition.wait_for(lock, std::chrono::seconds(10), [&] { return done; });
    }
    state.thread->stop_and_join();
  }
  state.thread->loop().abandon();
  state.server.reset();
  state.events.push({.type = StoreEventType::kStopped});
}

int StoreNode::fd() const { return state_->events.fd(); }
std::vector<StoreEvent> StoreNode::poll(size_t max) { return state_->events.take(max); }
const std::string& StoreNode::address() const { return state_->address; }
StoreId StoreNode::store_id() const { return state_->server->store_id(); }
Incarnation StoreNode::incarnation() const { return state_->server->incarnation(); }

StoreId StoreNode::cluster_id() const { return state_->server->cluster_id(); }
bool StoreNode::direct_io() const { return state_->server->direct_io(); }

void StoreNode::set_peer(const StoreId& store, const std::string& address) {
  state_->thread->call([this, store, address] { state_->server->set_peer(store, {address}); });
}

uint64_t StoreNode::form(std::vector<replica::Genesis> copysets) {
  const uint64_t ticket = state_->next_ticket++;
  state_->thread->call([this, ticket, copysets = std::move(copysets)] {
    struct Call {
      size_t left;
      StoreEvent event;
    };
    auto call = std::make_shared<Call>();
    call->left = copysets.size() + 1;
    call->event = {.type = StoreEventType::kFormDone, .ticket = ticket};
    auto answered = [this, call] {
      if (--call->left == 0) state_->events.push(std::move(call->event));
    };
    for (const replica::Genesis& genesis : copysets) {
      state_->server->form(genesis, [call, answered, id = genesis.group](Code code) {
        if (code == Code::kOk) call->event.done.push_back(id);
        answered();
      });
    }
    answered();
  });
  return ticket;
}

uint64_t StoreNode::fence(VolumeId volume, Epoch floor, Epoch ceiling, std::vector<Epoch> revoked,
                          std::vector<CopysetId> copysets) {
  const uint64_t ticket = state_->next_ticket++;
  state_->thread->call([=, this, revoked = std::move(revoked), copysets = std::move(copysets)] {
    state_->server->fence(volume, floor, ceiling, revoked, copysets,
                          [this, ticket](FenceResult result) {
                            state_->events.push({.type = StoreEventType::kFenceDone,
                                                 .ticket = ticket,
                                                 .done = std::move(result.applied),
                                                 .not_leader = std::move(result.not_leader),
                                                 .no_space = std::move(result.no_space)});
                          });
  });
  return ticket;
}

uint64_t StoreNode::delete_volume(VolumeId volume, std::vector<CopysetId> copysets) {
  const uint64_t ticket = state_->next_ticket++;
  state_->thread->call([=, this, copysets = std::move(copysets)] {
    state_->server->delete_volume(volume, copysets, [this, ticket](FenceResult result) {
      state_->events.push({.type = StoreEventType::kDeleteDone,
                           .ticket = ticket,
                           .done = std::move(result.applied),
                           .not_leader = std::move(result.not_leader),
                           .no_space = std::move(result.no_space)});
    });
  });
  return ticket;
}

uint64_t StoreNode::transfer(CopysetId copyset, const StoreId& to) {
  const uint64_t ticket = state_->next_ticket++;
  state_->thread->call([=, this] {
    const Code code = state_->server->transfer(copyset, to);
    StoreEvent event{.type = StoreEventType::kTransferDone, .ticket = ticket};
    event.applied = code == Code::kOk;
    event.leader = state_->server->leader_of(copyset);
    state_->events.push(std::move(event));
  });
  return ticket;
}

uint64_t StoreNode::join(std::vector<CopysetId> copysets) {
  const uint64_t ticket = state_->next_ticket++;
  state_->thread->call([this, ticket, copysets = std::move(copysets)] {
    state_->server->join(copysets, [this, ticket](std::vector<CopysetId> joined) {
      state_->events.push(
          {.type = StoreEventType::kFormDone, .ticket = ticket, .done = std::move(joined)});
    });
  });
  return ticket;
}

uint64_t StoreNode::change_members(const MemberOrder& order) {
  const uint64_t ticket = state_->next_ticket++;
  state_->thread->call([=, this] {
    state_->server->change_members(order, [this, ticket](MemberOutcome outcome) {
      StoreEvent event{.type = StoreEventType::kMembersDone, .ticket = ticket};
      event.error = std::move(outcome.busy);
      event.applied = outcome.applied;
      event.leader = outcome.leader;
      event.config_index = outcome.config_index;
      event.config = outcome.config;
      state_->events.push(std::move(event));
    });
  });
  return ticket;
}

uint64_t StoreNode::remove_replica(CopysetId copyset, Index config_index, Term leader_term) {
  const uint64_t ticket = state_->next_ticket++;
  state_->thread->call([=, this] {
    state_->server->remove_replica(
        copyset, {config_index, leader_term}, [this, ticket](bool removed) {
          StoreEvent event{.type = StoreEventType::kRemoveDone, .ticket = ticket};
          event.applied = removed;
          state_->events.push(std::move(event));
        });
  });
  return ticket;
}

void StoreNode::set_limits(const SyncLimits& limits) {
  state_->thread->call([this, limits] { state_->server->set_limits(limits); });
}

void StoreNode::checkpoint() {
  state_->thread->call([this] { state_->server->checkpoint_now([](Code) {}); });
}

void StoreNode::scrub(uint64_t bytes_per_second) {
  state_->thread->call([=, this] { state_->server->scrub(bytes_per_second); });
}

uint64_t StoreNode::check(const CheckRequest& request) {
  const uint64_t ticket = state_->next_ticket++;
  state_->thread->call([=, this] {
    state_->server->check_volume(request, [this, ticket](CheckReport report) {
      state_->events.push(
          {.type = StoreEventType::kCheckDone, .ticket = ticket, .report = std::move(report)});
    });
  });
  return ticket;
}

uint64_t StoreNode::trace(const TraceRequest& request) {
  const uint64_t ticket = state_->next_ticket++;
  state_->thread->call([=, this] {
    state_->server->trace(request, [this, ticket](TraceReport report) {
      state_->events.push(
          {.type = StoreEventType::kTraceDone, .ticket = ticket, .trace = std::move(report)});
    });
  });
  return ticket;
}

ServerStatus StoreNode::status(bool with_copysets) {
  ServerStatus out;
  if (state_->stopped) return out;
  if (!state_->thread->running()) return state_->server->status(with_copysets);
  state_->thread->call_and_wait([&] { out = state_->server->status(with_copysets); });
  return out;
}

uint64_t StoreNode::mapped_blocks(VolumeId volume) {
  uint64_t out = 0;
  if (state_->stopped || !state_->thread->running()) return out;
  state_->thread->call_and_wait([&] { out = state_->server->mapped_blocks(volume); });
  return out;
}

}  // namespace curve::copyset
