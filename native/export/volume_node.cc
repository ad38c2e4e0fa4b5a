#include "native/export/volume_node.h"

#include <unistd.h>

#include <map>
#include <utility>

#include "native/export/loop_device.h"
#include "native/io/adopt.h"
#include "native/io/loop_thread.h"

namespace curve::exports {

namespace {

// A request of the control side.
struct ControlIo {
  client::IoRequest request;
  iovec iov{};
  uint64_t ticket = 0;
  io::EventQueue<Completion>* events = nullptr;  // null: somebody waits
  std::mutex* mutex = nullptr;
  std::condition_variable* condition = nullptr;
  bool* done = nullptr;
  Code* code = nullptr;
};

void control_done(client::IoRequest* request) {
  std::unique_ptr<ControlIo> mine(static_cast<ControlIo*>(request->owner));
  if (mine->events) return mine->events->push({mine->ticket, request->code});
  std::lock_guard lock(*mine->mutex);
  *mine->code = request->code;
  *mine->done = true;
  mine->condition->notify_one();
}

}  // namespace

struct VolumeNode::State {
  std::vector<std::byte> secret;
  std::unique_ptr<io::LoopThread> thread;
  base::BufferPool pool;
  std::map<uint64_t, std::unique_ptr<client::VolumeClient>> volumes;  // loop thread only
  std::map<uint64_t, std::unique_ptr<NbdServer>> servers;             // loop thread only
  std::map<uint64_t, std::unique_ptr<FuseExport>> fuses;              // loop thread only
  std::map<uint64_t, std::unique_ptr<NbdDevice>> nbds;                // loop thread only
  io::EventQueue<Completion> events;
  uint64_t next_id = 1;  // loop thread only
  bool stopped = false;
  bool fuse_prepared = false, nbd_prepared = false;  // loop thread only

  void wait(const std::function<void()>& task) const { thread->call_and_wait(task); }
  // Starts something on the loop that calls its argument when it has ended; blocks until then.
  void wait_for(const std::function<void(std::function<void()>)>& task) {
    std::mutex mutex;
    std::condition_variable condition;
    bool done = false;
    thread->call([&] {
      task([&] {
        std::lock_guard lock(mutex);
        done = true;
        condition.notify_one();
      });
    });
    std::unique_lock lock(mutex);
    condition.wait(lock, [&] { return done; });
  }
  client::VolumeClient* find(uint64_t volume) {
    auto it = volumes.find(volume);
    return it == volumes.end() ? nullptr : it->second.get();
  }
};

VolumeNode::VolumeNode(std::unique_ptr<State> state) : state_(std::move(state)) {}

VolumeNode::~VolumeNode() { stop(); }

Result<std::unique_ptr<VolumeNode>> VolumeNode::start(std::vector<std::byte> secret) {
  auto loop = io::make_loop();
  if (!loop) return loop.error();
  auto state = std::make_unique<State>();
  state->secret = std::move(secret);
  state->thread = std::make_unique<io::LoopThread>(std::move(*loop));
  state->thread->run();
  return std::unique_ptr<VolumeNode>(new VolumeNode(std::move(state)));
}

Result<uint64_t> VolumeNode::open_volume(std::span<const std::byte> bytes) {
  auto map = client::decode_volume_map(bytes);
  if (!map) return map.error();
  uint64_t id = 0;
  state_->wait([&] {
    id = state_->next_id++;
    state_->volumes[id] = client::VolumeClient::open(state_->thread->loop(), state_->pool,
                                                     std::move(*map), state_->secret);
  });
  return id;
}

Outcome VolumeNode::update_map(uint64_t volume, std::span<const std::byte> bytes) {
  auto map = client::decode_volume_map(bytes);
  if (!map) return map.error();
  state_->wait([&] {
    if (auto* open = state_->find(volume)) open->update_map(std::move(*map));
  });
  return {};
}

void VolumeNode::close_volume(uint64_t volume) {
  state_->wait_for([&](std::function<void()> ended) {
    client::VolumeClient* open = state_->find(volume);
    if (!open) return ended();
    open->close([this, volume, ended] {
      // Not from inside its own callback.
      state_->thread->call([this, volume, ended] {
        state_->volumes.erase(volume);
        ended();
      });
    });
  });
}

bool VolumeNode::fenced(uint64_t volume) const {
  bool out = false;
  state_->wait([&] {
    if (auto* open = state_->find(volume)) out = open->fenced();
  });
  return out;
}

uint64_t VolumeNode::size_bytes(uint64_t volume) const {
  uint64_t out = 0;
  state_->wait([&] {
    if (auto* open = state_->find(volume)) out = open->size_bytes();
  });
  return out;
}

client::ClientStats VolumeNode::stats(uint64_t volume) const {
  client::ClientStats out;
  state_->wait([&] {
    if (auto* open = state_->find(volume)) out = open->stats();
  });
  return out;
}

namespace {

void start_io(client::VolumeClient* volume, ControlIo* io, client::IoType type, uint64_t offset,
              uint64_t bytes, void* memory, bool no_unmap) {
  io->request.type = type;
  io->request.no_unmap = no_unmap;
  io->request.offset_bytes = offset;
  io->request.bytes = bytes;
  io->request.owner = io;
  io->request.done = control_done;
  if (type == client::IoType::kRead || type == client::IoType::kWrite) {
    io->iov = {memory, static_cast<size_t>(bytes)};
    io->request.iov = {&io->iov, 1};
  } else if (type == client::IoType::kBlockStatus) {
    io->request.status_bits = static_cast<uint8_t*>(memory);
  }
  if (!volume) {
    io->request.code = Code::kNotFound;
    return control_done(&io->request);
  }
  volume->submit(&io->request);
}

}  // namespace

void VolumeNode::submit(uint64_t volume, client::IoType type, uint64_t offset, uint64_t bytes,
                        void* memory, bool no_unmap, uint64_t ticket) {
  auto* io = new ControlIo;
  io->ticket = ticket;
  io->events = &state_->events;
  state_->thread->call(
      [=, this] { start_io(state_->find(volume), io, type, offset, bytes, memory, no_unmap); });
}

Code VolumeNode::submit_and_wait(uint64_t volume, client::IoType type, uint64_t offset,
                                 uint64_t bytes, void* memory, bool no_unmap) {
  std::mutex mutex;
  std::condition_variable condition;
  bool done = false;
  Code code = Code::kOk;
  auto* io = new ControlIo;
  io->mutex = &mutex;
  io->condition = &condition;
  io->done = &done;
  io->code = &code;
  state_->thread->call(
      [=, this] { start_io(state_->find(volume), io, type, offset, bytes, memory, no_unmap); });
  std::unique_lock lock(mutex);
  condition.wait(lock, [&] { return done; });
  return code;
}

int VolumeNode::fd() const { return state_->events.fd(); }
std::vector<Completion> VolumeNode::poll(size_t max) { return state_->events.take(max); }

Result<uint64_t> VolumeNode::nbd_listen(const std::string& address, std::string* bound) {
  Result<uint64_t> out = uint64_t{0};
  state_->wait([&] {
    auto server = NbdServer::listen(state_->thread->loop(), state_->pool, {address});
    if (!server) {
      out = server.error();
      return;
    }
    *bound = (*server)->address().text;
    const uint64_t id = state_->next_id++;
    state_->servers[id] = std::move(*server);
    out = id;
  });
  return out;
}

Outcome VolumeNode::nbd_add(uint64_t server, const std::string& name,
                            const std::string& description, uint64_t volume, bool read_only) {
  Code code = Code::kNotFound;
  state_->wait([&] {
    auto it = state_->servers.find(server);
    client::VolumeClient* device = state_->find(volume);
    if (it == state_->servers.end() || !device) return;
    NbdExport what;
    what.name = name;
    what.description = description;
    what.device = device;
    what.read_only = read_only;
    code = it->second->add_export(what);
  });
  if (code == Code::kOk) return {};
  return Error{code, code == Code::kExists ? "an export named " + name + " is there already"
                                           : "no such server or volume"};
}

void VolumeNode::nbd_remove(uint64_t server, const std::string& name) {
  state_->wait_for([&](std::function<void()> ended) {
    auto it = state_->servers.find(server);
    if (it == state_->servers.end()) return ended();
    it->second->remove_export(name, ended);
  });
}

void VolumeNode::nbd_close(uint64_t server) {
  state_->wait_for([&](std::function<void()> ended) {
    auto it = state_->servers.find(server);
    if (it == state_->servers.end()) return ended();
    it->second->close([this, server, ended] {
      state_->thread->call([this, server, ended] {
        state_->servers.erase(server);
        ended();
      });
    });
  });
}

NbdStats VolumeNode::nbd_stats(uint64_t server) const {
  NbdStats out;
  state_->wait([&] {
    auto it = state_->servers.find(server);
    if (it != state_->servers.end()) out = it->second->stats();
  });
  return out;
}

// ---- FUSE ----

Result<uint64_t> VolumeNode::fuse_start(uint64_t volume, const std::string& uuid, bool read_only,
                                        int fd) {
  const bool resumed = fd >= 0;
  if (!resumed) {
    auto opened = open_fuse();
    if (!opened) return opened.error();
    fd = *opened;
  }
  uint64_t id = 0;
  state_->wait([&] {
    client::VolumeClient* device = state_->find(volume);
    if (!device) return;
    if (!std::exchange(state_->fuse_prepared, true)) FuseExport::prepare(state_->pool);
    id = state_->next_id++;
    state_->fuses[id] = std::make_unique<FuseExport>(
        state_->thread->loop(), state_->pool, fd, loop_file_name(uuid), device, read_only, resumed);
  });
  if (id != 0) return id;
  close(fd);
  return Error{Code::kNotFound, "no such volume"};
}

template <class Get>
auto VolumeNode::ask_fuse(uint64_t fuse, Get get) const {
  decltype(get(std::declval<FuseExport&>())) out{};
  state_->wait([&] {
    auto it = state_->fuses.find(fuse);
    if (it != state_->fuses.end()) out = get(*it->second);
  });
  return out;
}

int VolumeNode::fuse_fd(uint64_t fuse) const {
  return ask_fuse(fuse, [](FuseExport& e) { return e.fd(); });
}
bool VolumeNode::fuse_ended(uint64_t fuse) const {
  return ask_fuse(fuse, [](FuseExport& e) { return e.ended(); });
}
bool VolumeNode::fuse_can_resend(uint64_t fuse) const {
  return ask_fuse(fuse, [](FuseExport& e) { return e.can_resend(); });
}
FuseStats VolumeNode::fuse_stats(uint64_t fuse) const {
  return ask_fuse(fuse, [](FuseExport& e) { return e.stats(); });
}
void VolumeNode::fuse_grew(uint64_t fuse) {
  ask_fuse(fuse, [](FuseExport& e) { return e.grew(), true; });
}

Result<uint32_t> VolumeNode::fuse_attach(uint64_t fuse, const std::string& uuid, bool read_only) {
  const int fd = fuse_fd(fuse);
  if (fd <= 0) return Error{Code::kNotFound, "no such export"};
  return attach_loop(fd, uuid, read_only);
}

void VolumeNode::fuse_stop(uint64_t fuse) {
  state_->wait_for([&](std::function<void()> ended) {
    auto it = state_->fuses.find(fuse);
    if (it == state_->fuses.end()) return ended();
    it->second->close([this, fuse, ended] {
      state_->thread->call([this, fuse, ended] {
        state_->fuses.erase(fuse);
        ended();
      });
    });
  });
}

// ---- the kernel's nbd ----

Result<uint64_t> VolumeNode::nbd_serve(uint64_t volume, int fd, bool read_only) {
  uint64_t id = 0;
  state_->wait([&] {
    client::VolumeClient* device = state_->find(volume);
    if (!device && volume != 0) return;
    if (!std::exchange(state_->nbd_prepared, true)) NbdDevice::prepare(state_->pool);
    io::Stream* stream = io::adopt_stream(state_->thread->loop(), fd, "kernel");
    id = state_->next_id++;
    state_->nbds[id] = std::make_unique<NbdDevice>(state_->thread->loop(), state_->pool, stream,
                                                   device, read_only);
  });
  if (id != 0) return id;
  close(fd);
  return Error{Code::kNotFound, "no such volume"};
}

bool VolumeNode::nbd_ended(uint64_t device) const {
  bool out = true;
  state_->wait([&] {
    auto it = state_->nbds.find(device);
    if (it != state_->nbds.end()) out = it->second->ended();
  });
  return out;
}

NbdDeviceStats VolumeNode::nbd_device_stats(uint64_t device) const {
  NbdDeviceStats out;
  state_->wait([&] {
    auto it = state_->nbds.find(device);
    if (it != state_->nbds.end()) out = it->second->stats();
  });
  return out;
}

void VolumeNode::nbd_stop(uint64_t device) {
  state_->wait_for([&](std::function<void()> ended) {
    auto it = state_->nbds.find(device);
    if (it == state_->nbds.end()) return ended();
    it->second->close([this, device, ended] {
      state_->thread->call([this, device, ended] {
        state_->nbds.erase(device);
        ended();
      });
    });
  });
}

void VolumeNode::stop() {
  if (state_->stopped) return;
  state_->stopped = true;
  std::vector<uint64_t> servers, volumes, fuses, nbds;
  state_->wait([&] {
    for (const auto& [id, fuse] : state_->fuses) fuses.push_back(id);
    for (const auto& [id, nbd] : state_->nbds) nbds.push_back(id);
    for (const auto& [id, server] : state_->servers) servers.push_back(id);
    for (const auto& [id, volume] : state_->volumes) volumes.push_back(id);
  });
  for (uint64_t id : servers) nbd_close(id);
  for (uint64_t id : fuses) fuse_stop(id);
  for (uint64_t id : nbds) nbd_stop(id);
  for (uint64_t id : volumes) close_volume(id);
  state_->thread->stop_and_join();
  state_->thread->loop().abandon();
}

}  // namespace curve::exports
