// The adversarial stand-in for the metaserver: makes volumes, attaches clients (exclusively or
// shared), fences, detaches, deletes, moves leaders; it issues only commands that the real
// metaserver could issue, but repeats, delays and reorders them, and it knows no mercy about when.
// What a fence promises (R12) is told to the workloads when every copyset has applied it. Thread:
// the world's.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "native/sim/plan.h"
#include "native/sim/store_node.h"
#include "native/sim/workload.h"

namespace curve::sim {

struct ClusterShape {
  std::vector<uint32_t> stores;               // nodes
  std::vector<uint32_t> clients;              // nodes
  std::vector<std::vector<size_t>> copysets;  // which stores hold each
  std::vector<std::byte> secret = std::vector<std::byte>(32, std::byte{7});
  uint32_t pool = 1;
  uint64_t volume_bytes = 10ull * kChunkBytes;
  base::Layout layout;
};

class Director {
 public:
  Director(World& world, Verdict& verdict, const Plan& plan, const ClusterShape& shape,
           StoreNodes& stores, Random random);
  ~Director();
  void start();
  // Which stores a volume map names for a copyset; those of the shape when not set.
  std::function<const std::vector<size_t>&(size_t index)> route;
  // They have changed: clients that run get new maps, each in its time.
  void routes_changed();
  // No new attachments; what is under way goes on until idle().
  void stop();
  bool idle() const { return jobs_.empty() && !wants_volume_; }
  // Fresh exclusive attachments of every volume, for the final reads; `attached` for each once it
  // runs.
  void attach_all_afresh(std::function<void(Workload&)> attached);
  std::vector<Workload*> current();    // valid attachments
  std::vector<Workload*> everybody();  // and fenced ones that still run
  const std::vector<std::unique_ptr<VolumeHistory>>& histories() const { return histories_; }
  bool is_deleted(VolumeId volume) const { return deleted_.count(volume) != 0; }
  // As an operator would who needs space: one volume goes, and none takes its place. False: none is
  // left.
  bool give_up_a_volume();

 private:
  struct Volume;
  struct Attachment {
    Epoch epoch = 0;
    uint32_t node = 0;
    bool fencing = false;
    VolumeHistory* history = nullptr;
    const Volume* volume = nullptr;
  };
  struct Volume {
    VolumeId id = 0;
    Epoch next_epoch = 1, floor = 0, ceiling = 0;
    std::vector<Epoch> revoked;
    VolumeHistory* history = nullptr;
    uint64_t size_bytes = 0;
    bool busy = false, shared = false;
  };
  // A command to every copyset, repeated until each has applied it.
  struct Job {
    uint64_t id = 0;
    VolumeId volume = 0;
    bool remove = false;
    Epoch floor = 0, ceiling = 0;
    std::vector<Epoch> revoked;
    std::set<CopysetId> left;
    std::function<void()> done;
  };
  void act();
  void make_volume();
  void add_window(Volume& volume, uint64_t from_bytes, uint64_t to_bytes);
  void resize(Volume& volume);
  void attach(Volume& volume, bool shared);
  void detach(Volume& volume);
  void remove(Volume& volume, bool another);
  void transfer_some();
  void begin_job(Job job);
  void push(uint64_t id);
  void applied(uint64_t id, const std::vector<CopysetId>& copysets);
  void start_client(Volume& volume, Epoch epoch);
  void fence_others(Volume& volume, const std::function<bool(const Attachment&)>& which,
                    bool begin);
  void retire(uint32_t node, uint64_t delay_ns);
  client::VolumeMap map_of(const Volume& volume, Epoch epoch) const;
  Workload* workload(uint32_t node);
  bool free_node(uint32_t* node);

  World& world_;
  Verdict& verdict_;
  const Plan& plan_;
  const ClusterShape& shape_;
  StoreNodes& stores_;
  Random random_;
  bool running_ = false, wants_volume_ = false;
  VolumeId next_volume_ = 100;
  uint64_t next_job_ = 1, map_version_ = 1;
  std::vector<std::unique_ptr<Volume>> volumes_;
  std::vector<std::unique_ptr<VolumeHistory>> histories_;
  std::set<VolumeId> deleted_;
  std::function<void(Workload&)> attached_;
  std::map<uint64_t, Job> jobs_;
  std::map<uint32_t, Attachment> attachments_;  // by client node
};

}  // namespace curve::sim
