// Connections to the stores: dialled at open, again with back-off when they are lost, each time
// with a higher counter (R13).
#include <algorithm>

#include "native/base/log.h"
#include "native/client/state.h"

namespace curve::client {

Link* VolumeClientState::find_link(const StoreId& store) const {
  for (const auto& link : links) {
    if (link->store == store && !link->retired) return link.get();
  }
  return nullptr;
}

void VolumeClientState::adopt_stores() {
  link_of_store.clear();
  for (const StoreAddress& store : map.stores) {
    Link* link = find_link(store.store);
    if (!link) {
      links.push_back(std::make_unique<Link>());
      link = links.back().get();
      link->state = this;
      link->store = store.store;
      link->redial.owner = link;
      link->redial.fire = [](io::Timer* timer) {
        auto* l = static_cast<Link*>(timer->owner);
        l->state->dial(l);
      };
    }
    link_of_store.push_back(link);
    if (link->address == store.address) continue;
    link->address = store.address;
    if (link->connection) {
      link->connection->close();  // dialled again by link_closed()
    } else {
      link->backoff_ns = 0;
      dial(link);
    }
  }
  for (const auto& link : links) {
    const bool wanted =
        std::find(link_of_store.begin(), link_of_store.end(), link.get()) != link_of_store.end();
    if (wanted || link->retired) continue;
    link->retired = true;
    loop.disarm(&link->redial);
    if (link->connection) link->connection->close();
  }
}

void VolumeClientState::dial(Link* link) {
  if (link->connection || link->retired || closing || fenced) return;
  loop.disarm(&link->redial);
  wire::ConnectionHandler handler;
  handler.owner = link;
  handler.opened = [](void* owner, wire::Connection* connection) {
    auto* l = static_cast<Link*>(owner);
    l->state->link_opened(l, connection);
    return true;
  };
  handler.frame = [](void* owner, wire::Connection*, wire::Frame& frame) {
    auto* l = static_cast<Link*>(owner);
    l->state->on_reply(l, frame);
  };
  handler.closed = [](void* owner, wire::Connection*, Code, int) {
    auto* l = static_cast<Link*>(owner);
    l->state->link_closed(l);
  };
  link->connection =
      wire::Connection::dial(loop, pool, link->address, identity, link->store, ++dials, handler);
}

void VolumeClientState::link_opened(Link* link, wire::Connection* connection) {
  link->connection = connection;
  link->open = true;
  link->backoff_ns = 0;
  if (link->dialled_before) ++stats.reconnects;
  link->dialled_before = true;
  // Whoever looks for a leader asks here, too; at the first contact whoever should find it here.
  for (const auto& copyset : copysets) {
    if (copyset->leader || replica_of(copyset.get(), link->store) != link) continue;
    if (copyset->searching || copyset->preferred == link) probe(copyset.get(), link);
  }
}

void VolumeClientState::link_closed(Link* link) {
  const bool was_open = link->open;
  link->connection = nullptr;
  link->open = false;
  for (const auto& copyset : copysets) {
    if (copyset->leader == link) copyset->leader = nullptr;
  }
  while (Piece* piece = link->inflight.front()) {
    ++stats.retries;
    recall(piece);
    search(piece->copyset);
  }
  if (closing) {
    loop.arm(&later, loop.now_ns());
    return;
  }
  if (link->retired || fenced) return;
  // The first dial after a loss is at once: the process may have been restarted already.
  const uint64_t wait = was_open ? 0 : link->backoff_ns;
  link->backoff_ns = std::clamp(link->backoff_ns * 2, options.retry_min_ns, options.retry_max_ns);
  loop.arm(&link->redial, loop.now_ns() + wait);
}

}  // namespace curve::client
