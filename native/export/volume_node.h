// Open volumes and their exports (NBD, FUSE with loop devices) on one native loop thread, for a
// process whose control is elsewhere (Python). Data never passes through the control thread:
// requests name memory of the caller, completions come back by an event queue or by waking a
// waiter. Thread: methods may be called from any thread; those that say so block (without holding
// anything the loop needs).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "native/client/volume_client.h"
#include "native/export/fuse_export.h"
#include "native/export/nbd_device.h"
#include "native/export/nbd_server.h"

namespace curve::exports {

struct Completion {
  uint64_t ticket = 0;
  Code code = Code::kOk;
};

class VolumeNode {
 public:
  static Result<std::unique_ptr<VolumeNode>> start(std::vector<std::byte> secret);
  ~VolumeNode();

  // A handle > 0. Blocks briefly.
  Result<uint64_t> open_volume(std::span<const std::byte> map);
  Outcome update_map(uint64_t volume, std::span<const std::byte> map);
  void close_volume(uint64_t volume);  // blocks until nothing is in flight
  bool fenced(uint64_t volume) const;
  uint64_t size_bytes(uint64_t volume) const;
  client::ClientStats stats(uint64_t volume) const;

  // `memory` stays valid until the completion of `ticket` was taken. Never blocks.
  void submit(uint64_t volume, client::IoType type, uint64_t offset_bytes, uint64_t bytes,
              void* memory, bool no_unmap, uint64_t ticket);
  int fd() const;  // readable while completions wait
  std::vector<Completion> poll(size_t max);
  // The same, but blocks until it is done.
  Code submit_and_wait(uint64_t volume, client::IoType type, uint64_t offset_bytes, uint64_t bytes,
                       void* memory, bool no_unmap);

  // Servers by address; a server may have several exports.
  Result<uint64_t> nbd_listen(const std::string& address, std::string* bound);
  Outcome nbd_add(uint64_t server, const std::string& name, const std::string& description,
                  uint64_t volume, bool read_only);
  void nbd_remove(uint64_t server,
                  const std::string& name);  // blocks until its connections are gone
  void nbd_close(uint64_t server);           // likewise
  NbdStats nbd_stats(uint64_t server) const;

  // A volume as a block device (fuse_export.h, loop_device.h). `fd` -1: a new file system;
  // otherwise the descriptor of one that an earlier process began, which is owned and continued.
  Result<uint64_t> fuse_start(uint64_t volume, const std::string& uuid, bool read_only, int fd);
  int fuse_fd(uint64_t fuse) const;  // of the export: to be duplicated, not closed
  // Makes the device; its number. Blocks.
  Result<uint32_t> fuse_attach(uint64_t fuse, const std::string& uuid, bool read_only);
  void fuse_grew(uint64_t fuse);
  bool fuse_ended(uint64_t fuse) const;
  bool fuse_can_resend(uint64_t fuse) const;
  FuseStats fuse_stats(uint64_t fuse) const;
  void fuse_stop(uint64_t fuse);  // blocks until the device has given back all requests

  // The volume for the kernel's nbd (nbd_device.h): `fd` is our end of the socket that the kernel
  // has the other end of, and is owned. `volume` 0: every request is answered with an error.
  Result<uint64_t> nbd_serve(uint64_t volume, int fd, bool read_only);
  bool nbd_ended(uint64_t device) const;
  NbdDeviceStats nbd_device_stats(uint64_t device) const;
  void nbd_stop(uint64_t device);  // blocks until the volume has given back all requests

  void stop();  // closes everything; blocks

 private:
  template <class Get>
  auto ask_fuse(uint64_t fuse, Get get) const;

  struct State;
  std::unique_ptr<State> state_;
  explicit VolumeNode(std::unique_ptr<State> state);
};

}  // namespace curve::exports
