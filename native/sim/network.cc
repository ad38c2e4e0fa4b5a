#include "native/sim/network.h"

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "native/sim/loop_backend.h"

namespace curve::sim {
namespace {

constexpr size_t kSpareMax = 256;

[[noreturn]] void misuse(const char* what) {
  std::fprintf(stderr, "stream misused: %s\n", what);
  std::abort();
}

}  // namespace

Network::Network(World& world)
    : world_(world), options_(world.options().network), random_(world.random().split("network")) {}
Network::~Network() = default;

void Network::resize(size_t nodes) {
  std::vector<bool> grown(nodes * nodes, false);
  for (size_t from = 0; from < nodes_; ++from) {
    for (size_t to = 0; to < nodes_; ++to) grown[from * nodes + to] = cut_[from * nodes_ + to];
  }
  cut_ = std::move(grown);
  nodes_ = nodes;
}

uint64_t Network::delay() {
  uint64_t ns = random_.between(options_.delay_ns_min, options_.delay_ns_max);
  if (random_.chance(options_.slow_segment_chance)) ns += random_.below(200 * kMillisecond);
  return ns;
}

// --- cuts ---

void Network::cut(uint32_t from, uint32_t to) {
  if (from == to || is_cut(from, to)) return;
  world_.trace(nullptr, "cut", from, to);
  cut_[from * nodes_ + to] = true;
}

void Network::heal(uint32_t from, uint32_t to) {
  if (!is_cut(from, to)) return;
  world_.trace(nullptr, "heal", from, to);
  cut_[from * nodes_ + to] = false;
  for (auto& [id, connection] : connections_) {
    for (Endpoint& end : connection->ends) {
      if (end.node != from || end.other->node != to) continue;
      if (end.held) {
        end.held = false;
        // The next retransmission brings them.
        if (!end.wire.empty())
          end.wire.front().arrival = world_.now_ns() + random_.below(300 * kMillisecond);
        plan_delivery(&end);
      }
      if (end.late_acks) {  // acknowledgements travel with this direction, for what the other end
                            // sent
        end.other->outstanding -= end.late_acks;
        end.late_acks = 0;
        pump(end.other);
      }
    }
  }
}

void Network::heal_all() {
  for (uint32_t from = 0; from < nodes_; ++from) {
    for (uint32_t to = 0; to < nodes_; ++to) heal(from, to);
  }
}

void Network::reset_connections(uint32_t a, uint32_t b) {
  world_.trace(nullptr, "reset", a, b);
  std::vector<Endpoint*> ends;
  for (auto& [id, connection] : connections_) {
    Endpoint& end = connection->ends[0];
    if ((end.node == a && end.other->node == b) || (end.node == b && end.other->node == a))
      ends.push_back(&end);
  }
  for (Endpoint* end : ends) {
    reset_from(end);
    reset_from(end->other);
  }
}

void Network::stall_connections(uint32_t from, uint32_t to, uint64_t until_ns) {
  world_.trace(nullptr, "stall", from, to);
  for (auto& [id, connection] : connections_) {
    for (Endpoint& end : connection->ends) {
      if (end.node == from && end.other->node == to && !end.error) end.stalled_until = until_ns;
    }
  }
}

void Network::end_half_open() {
  std::vector<Endpoint*> gone;
  for (auto& [id, connection] : connections_) {
    for (Endpoint& end : connection->ends) {
      const bool held = end.other->loop && !end.other->error && !end.other->end_arrived;
      if (!end.loop && held && end.wire.empty() && world_.node(end.node).host_up)
        gone.push_back(&end);
    }
  }
  for (Endpoint* end : gone) reset_from(end);
}

void Network::break_connections_at(uint32_t at, uint32_t other) {
  world_.trace(nullptr, "break", at, other);
  std::vector<Endpoint*> ends;
  for (auto& [id, connection] : connections_) {
    for (Endpoint& end : connection->ends) {
      if (end.node == at && end.other->node == other && end.loop && !end.error)
        ends.push_back(&end);
    }
  }
  for (Endpoint* end : ends) {
    io::StreamBackend::Segment segment;
    segment.reset = true;
    push(end, std::move(segment));
    end->error = ECONNRESET;
    end->inbox.clear();
    end->inbox_bytes = end->inbox_offset = 0;
    if (end->send_op) end->loop->complete(std::exchange(end->send_op, nullptr), -ECONNRESET);
    try_receive(end);
  }
}

// --- listening and connecting ---

Result<io::Address> Network::listen(io::LoopBackend* loop, const io::Address& address,
                                    io::Listener* listener) {
  std::string text = address.text;
  if (text.size() >= 2 && text.compare(text.size() - 2, 2, ":0") == 0) {
    text = text.substr(0, text.size() - 1) + std::to_string(next_port_++);
  }
  if (listeners_.count(text)) return Error{Code::kExists, text + " is already in use"};
  listeners_[text] = {loop, listener};
  return io::Address{text};
}

void Network::close_listener(io::LoopBackend* loop, io::Listener* listener) {
  std::erase_if(listeners_, [&](const auto& entry) {
    return entry.second.loop == loop && entry.second.listener == listener;
  });
  // Connections that wait to be accepted are refused.
  auto drop = [&](std::vector<io::LoopBackend::Completion>& queue) {
    for (auto& item : queue) {
      if (item.listener != listener) continue;
      close(item.stream->backend);
      item = {};
    }
  };
  drop(loop->ready);
  drop(loop->running);
}

void Network::connect(io::LoopBackend* loop, io::ConnectOp* op, const io::Address& address) {
  op->stream = nullptr;
  const uint64_t id = next_id_++;
  connecting_[id] = {loop, op, address.text, 0};
  world_.after(delay() + delay(), [this, id] { try_connect(id); });
}

void Network::finish_connect(uint64_t id, int32_t result, io::Stream* stream) {
  const Connecting item = connecting_.at(id);
  connecting_.erase(id);
  item.op->stream = stream;
  world_.trace(item.loop->node, "connect", static_cast<uint64_t>(-result),
               stream ? stream->backend->connection : 0);
  item.loop->complete(item.op, result);
}

void Network::try_connect(uint64_t id) {
  const auto at = connecting_.find(id);
  if (at == connecting_.end()) return;  // cancelled or abandoned
  Connecting& item = at->second;
  const std::string host = item.address.substr(0, item.address.rfind(':'));
  const auto listening = listeners_.find(item.address);
  Node* target =
      listening != listeners_.end() ? listening->second.loop->node : world_.find_node(host);
  const uint32_t from = item.loop->node->id;
  const bool unreachable =
      target && (is_cut(from, target->id) || is_cut(target->id, from) || !target->host_up);
  if (unreachable) {
    if (++item.attempts > 3) return finish_connect(id, -ETIMEDOUT, nullptr);
    world_.after(random_.between(100 * kMillisecond, kSecond), [this, id] { try_connect(id); });
    return;
  }
  if (listening == listeners_.end())
    return finish_connect(id, target ? -ECONNREFUSED : -EHOSTUNREACH, nullptr);
  finish_connect(
      id, 0,
      establish(item.loop, listening->second.loop, listening->second.listener, item.address));
}

void Network::cancel_connect(io::LoopBackend* loop, io::ConnectOp* op) {
  for (auto& [id, item] : connecting_) {
    if (item.loop != loop || item.op != op) continue;
    finish_connect(id, -ECANCELED, nullptr);
    return;
  }
  // Already finished: its `done` comes with what it has.
}

io::Stream* Network::establish(io::LoopBackend* from, io::LoopBackend* to, io::Listener* listener,
                               const std::string& address) {
  const uint64_t id = next_id_++;
  auto connection = std::make_unique<Connection>();
  for (int side = 0; side < 2; ++side) {
    Endpoint& end = connection->ends[side];
    end.stream.backend = &end;
    end.network = this;
    end.loop = side == 0 ? from : to;
    end.node = end.loop->node->id;
    end.connection = id;
    end.other = &connection->ends[1 - side];
    end.window = random_.between(options_.window_bytes_min, options_.window_bytes_max);
    end.peer_name =
        side == 0 ? address : from->node->name + ":" + std::to_string(40000 + id % 20000);
  }
  Connection* made = connection.get();
  connections_.emplace(id, std::move(connection));
  world_.trace(to->node, "accept", id, from->node->id);
  to->ready.push_back({nullptr, listener, &made->ends[1].stream});
  to->wake(world_.now_ns());
  return &made->ends[0].stream;
}

// --- sending ---

void Network::send(Endpoint* end, io::Op* op, std::span<iovec> iov) {
  if (!end->loop) return;
  if (end->send_op) misuse("two sends at once");
  if (iov.size() > 1024) misuse("more than 1024 iovecs");
  if (end->error) return end->loop->complete(op, -EPIPE);
  end->send_op = op;
  end->send_iov = iov;
  end->send_at = end->send_offset = end->sent = 0;
  pump(end);
}

void Network::pump(Endpoint* end) {
  while (end->send_op && end->loop) {
    while (end->send_at < end->send_iov.size() &&
           end->send_offset == end->send_iov[end->send_at].iov_len) {
      ++end->send_at;
      end->send_offset = 0;
    }
    if (end->send_at == end->send_iov.size()) {
      io::Op* op = std::exchange(end->send_op, nullptr);
      end->loop->complete(op, static_cast<int32_t>(end->sent));
      return;
    }
    if (end->outstanding >= end->window) return;  // acknowledge() goes on
    // Small pieces would breed smaller ones (the silly window syndrome, RFC 1122 4.2.3.4).
    if (end->outstanding > 0 && end->window - end->outstanding < end->window / 4) return;
    size_t room = std::min(end->window - end->outstanding,
                           random_.chance(0.3) ? random_.skewed(64u << 10) : 64u << 10);
    io::StreamBackend::Segment segment;
    if (!spare_.empty()) {
      segment.data = std::move(spare_.back());
      spare_.pop_back();
    }
    while (room > 0 && end->send_at < end->send_iov.size()) {
      const iovec& part = end->send_iov[end->send_at];
      const size_t count = std::min(room, part.iov_len - end->send_offset);
      const auto* from = static_cast<const std::byte*>(part.iov_base) + end->send_offset;
      segment.data.insert(segment.data.end(), from, from + count);
      room -= count;
      end->send_offset += count;
      if (end->send_offset == part.iov_len) {
        ++end->send_at;
        end->send_offset = 0;
      }
    }
    end->sent += segment.data.size();
    end->outstanding += segment.data.size();
    push(end, std::move(segment));
  }
}

void Network::push(Endpoint* end, io::StreamBackend::Segment segment) {
  const uint64_t transfer = segment.data.size() * kSecond / options_.bytes_per_second;
  end->last_arrival =
      std::max({end->last_arrival, world_.now_ns() + delay(), end->stalled_until}) + transfer;
  segment.arrival = end->last_arrival;
  end->wire.push_back(std::move(segment));
  plan_delivery(end);
}

void Network::plan_delivery(Endpoint* end) {
  if (end->deliver_planned || end->held || end->wire.empty()) return;
  end->deliver_planned = true;
  const uint64_t id = end->connection;
  const int side = end == &connections_.at(id)->ends[0] ? 0 : 1;
  world_.at(end->wire.front().arrival, [this, id, side] { deliver(id, side); });
}

void Network::deliver(uint64_t connection, int side) {
  const auto at = connections_.find(connection);
  if (at == connections_.end()) return;
  Endpoint* end = &at->second->ends[side];
  end->deliver_planned = false;
  if (is_cut(end->node, end->other->node)) {
    end->held = true;  // heal() goes on
    return;
  }
  if (end->stalled_until > world_.now_ns()) {
    for (auto& segment : end->wire) segment.arrival = std::max(segment.arrival, end->stalled_until);
    end->last_arrival = std::max(end->last_arrival, end->stalled_until);
    return plan_delivery(end);
  }
  while (!end->wire.empty() && end->wire.front().arrival <= world_.now_ns()) {
    io::StreamBackend::Segment segment = std::move(end->wire.front());
    end->wire.pop_front();
    deliver_segment(end->other, std::move(segment));
  }
  plan_delivery(end);
  collect(connection);
}

void Network::deliver_segment(Endpoint* to, io::StreamBackend::Segment segment) {
  Endpoint* from = to->other;
  if (!to->loop) {
    // Nobody there any more. A host that is up says so; a dead one says nothing until it is back.
    if (segment.reset || !from->loop || from->error) return;
    Node& host = world_.node(to->node);
    if (host.host_up) {
      if (!segment.end) reset_from(to);
      return;
    }
    segment.arrival = world_.now_ns() + random_.between(50 * kMillisecond, 500 * kMillisecond);
    from->wire.push_front(std::move(segment));  // retransmission
    return;
  }
  if (segment.reset) {
    world_.trace(to->loop->node, "reset_arrived", to->connection);
    // Some systems let a reader have what came before the reset, others do not.
    if (random_.chance(0.5)) {
      to->inbox.clear();
      to->inbox_bytes = to->inbox_offset = 0;
    }
    break_end(to);
    return;
  }
  if (to->error) return;
  if (segment.end) {
    to->end_arrived = true;
  } else {
    to->inbox_bytes += segment.data.size();
    to->inbox.push_back(std::move(segment));
  }
  try_receive(to);
}

// --- receiving ---

void Network::receive(Endpoint* end, io::Op* op, std::span<std::byte> into, bool all) {
  if (!end->loop) return;
  if (end->receive_op) misuse("two receives at once");
  if (into.empty()) misuse("receive into nothing");
  end->receive_op = op;
  end->receive_into = into;
  end->receive_all = all;
  end->received = 0;
  try_receive(end);
}

void Network::acknowledge(Endpoint* reader, size_t bytes) {
  Endpoint* sender = reader->other;
  if (is_cut(reader->node, sender->node)) {
    reader->late_acks += bytes;
    return;
  }
  sender->outstanding -= std::min(sender->outstanding, bytes);
  pump(sender);
}

void Network::try_receive(Endpoint* end) {
  if (!end->receive_op) return;
  size_t limit = end->receive_into.size() - end->received;
  if (!end->receive_all && end->inbox_bytes > 1 && random_.chance(0.2)) {
    limit = std::min<size_t>(limit, random_.between(1, end->inbox_bytes));
  }
  size_t taken = 0;
  while (taken < limit && !end->inbox.empty()) {
    const std::vector<std::byte>& data = end->inbox.front().data;
    const size_t count = std::min(limit - taken, data.size() - end->inbox_offset);
    std::memcpy(end->receive_into.data() + end->received, data.data() + end->inbox_offset, count);
    taken += count;
    end->received += count;
    end->inbox_offset += count;
    if (end->inbox_offset == data.size()) {
      if (spare_.size() < kSpareMax) {
        spare_.push_back(std::move(end->inbox.front().data));
        spare_.back().clear();
      }
      end->inbox.pop_front();
      end->inbox_offset = 0;
    }
  }
  end->inbox_bytes -= taken;
  const bool enough =
      end->receive_all ? end->received == end->receive_into.size() : end->received > 0;
  const bool over = end->inbox.empty() && (end->end_arrived || end->error);
  if (enough || over) {
    io::Op* op = std::exchange(end->receive_op, nullptr);
    int32_t result = static_cast<int32_t>(end->received);
    if (!enough && end->error) {
      result = -end->error;
    } else if (!enough && end->receive_all && end->received > 0) {
      result = -ECONNRESET;  // ended in the middle of what was asked for
    }
    end->loop->complete(op, result);
  }
  if (taken) acknowledge(end, taken);
}

// --- the end of connections ---

// This end finds the connection broken: operations fail, the other direction is void.
void Network::break_end(Endpoint* end) {
  end->error = ECONNRESET;
  std::erase_if(end->wire,
                [](const io::StreamBackend::Segment& segment) { return !segment.reset; });
  if (!end->loop) return;
  if (end->send_op) {
    end->loop->complete(std::exchange(end->send_op, nullptr), -ECONNRESET);
  }
  try_receive(end);
}

// A reset travels from this end to the other. Sometimes it overtakes what is on the wire.
void Network::reset_from(Endpoint* end) {
  if (random_.chance(0.5)) {
    end->wire.clear();
    end->last_arrival = 0;
  }
  io::StreamBackend::Segment segment;
  segment.reset = true;
  push(end, std::move(segment));
}

void Network::close(Endpoint* end) {
  if (!end->loop) return;
  io::LoopBackend* loop = end->loop;
  world_.trace(loop->node, "close", end->connection);
  if (end->receive_op) loop->complete(std::exchange(end->receive_op, nullptr), -ECANCELED);
  if (end->send_op) loop->complete(std::exchange(end->send_op, nullptr), -ECANCELED);
  end->loop = nullptr;
  if (!end->error) {
    if (end->inbox_bytes > 0) {
      reset_from(end);  // unread bytes are lost, and TCP says so
    } else {
      io::StreamBackend::Segment segment;
      segment.end = true;
      push(end, std::move(segment));
    }
  }
  end->inbox.clear();
  end->inbox_bytes = 0;
  // Not collected here: the caller may still be inside this connection.
  const uint64_t id = end->connection;
  world_.after(kSecond, [this, id] { collect(id); });
}

void Network::collect(uint64_t id) {
  const auto at = connections_.find(id);
  if (at == connections_.end()) return;
  for (const Endpoint& end : at->second->ends) {
    if (end.loop || end.deliver_planned) return;
    if (!end.wire.empty() && end.other->loop) return;
  }
  connections_.erase(at);
}

void Network::kill_end(Endpoint* end, bool silent) {
  end->loop = nullptr;
  end->receive_op = end->send_op = nullptr;
  end->inbox.clear();
  end->inbox_bytes = 0;
  if (!end->other->loop || end->error) return;
  if (silent) {
    // What had not left the machine is gone.
    const size_t keep = random_.below(end->wire.size() + 1);
    while (end->wire.size() > keep) end->wire.pop_back();
    return;
  }
  if (random_.chance(0.5)) {
    reset_from(end);
  } else {
    io::StreamBackend::Segment segment;
    segment.end = true;
    push(end, std::move(segment));
  }
}

void Network::crash(Node& node, CrashKind kind) {
  io::LoopBackend* loop = node.loop->backend();
  for (auto& [id, connection] : connections_) {
    for (Endpoint& end : connection->ends) {
      if (end.loop == loop) kill_end(&end, kind == CrashKind::kPower && random_.chance(0.7));
    }
  }
}

void Network::abandon(io::LoopBackend* loop) {
  std::erase_if(listeners_, [loop](const auto& entry) { return entry.second.loop == loop; });
  std::erase_if(connecting_, [loop](const auto& entry) { return entry.second.loop == loop; });
  for (auto& [id, connection] : connections_) {
    for (Endpoint& end : connection->ends) {
      if (end.loop == loop) kill_end(&end, false);
    }
  }
}

}  // namespace curve::sim

namespace curve::io {

void Stream::receive(Op* op, std::span<std::byte> into, bool all) {
  backend->network->receive(backend, op, into, all);
}
void Stream::send(Op* op, std::span<iovec> iov) { backend->network->send(backend, op, iov); }
void Stream::close() { backend->network->close(backend); }
std::string Stream::peer() const { return backend->peer_name; }

}  // namespace curve::io
