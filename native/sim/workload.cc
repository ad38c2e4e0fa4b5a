#include "native/sim/workload.h"

#include <algorithm>
#include <cstring>

namespace curve::sim {

struct Workload::Request {
  client::IoRequest io;
  Workload* owner = nullptr;
  bool busy = false, sweep = false;
  uint64_t first_unit = 0, units = 0;
  uint64_t write = 0;  // the checker's number
  uint64_t begin_ns = 0;
  uint64_t retries = 0;  // of the client when it began
  std::vector<std::byte> data;
  iovec iov[3];
};

namespace {
constexpr uint64_t kUnitsPerBlock = kBlockBytes / kUnitBytes;
constexpr uint64_t kUnitsPerSector = kSectorBytes / kUnitBytes;
}  // namespace

Workload::Workload(World& world, Verdict& verdict, io::Loop& loop, VolumeHistory& history,
                   client::VolumeMap map, std::span<const std::byte> secret,
                   const WorkloadOptions& options, std::string name)
    : world_(world),
      verdict_(verdict),
      loop_(loop),
      history_(history),
      options_(options),
      name_(std::move(name)),
      epoch_(map.epoch),
      random_(loop.random_u64()),
      client_(client::VolumeClient::open(loop, pool_, std::move(map), secret, options.client)) {
  timer_.owner = this;
  timer_.fire = [](io::Timer* timer) { static_cast<Workload*>(timer->owner)->tick(); };
  loop_.arm(&timer_, loop_.now_ns() + 1 + random_.below(kMillisecond));
}

Workload::~Workload() {
  client_.reset();  // before the memory of its requests
  auto& orphans = history_.orphans[epoch_];
  orphans.insert(orphans.end(), refused_writes_.begin(), refused_writes_.end());
  for (const auto& request : requests_) {
    if (request->busy && request->write) history_.orphans[epoch_].push_back(request->write);
  }
}

void Workload::fenced(uint64_t now_ns) {
  fence_expected_ = true;
  fence_ns_ = std::min(fence_ns_, now_ns);
  for (const auto& request : requests_) {
    if (request->busy && request->write) history_.checker.bound_write(request->write, fence_ns_);
  }
  for (uint64_t write : refused_writes_) history_.checker.bound_write(write, fence_ns_);
  refused_writes_.clear();
}

void Workload::take_map(client::VolumeMap map) {
  map_mail_.map = std::move(map);
  map_mail_.owner = this;
  map_mail_.run = [](io::Mail* mail) {
    auto* mine = static_cast<MapMail*>(mail);
    mine->posted = false;
    mine->owner->client_->update_map(std::move(mine->map));
  };
  if (std::exchange(map_mail_.posted, true)) return;
  loop_.post(&map_mail_);
}

// A fenced client goes on for a while, less often: it may not be heard.
void Workload::arm_tick() {
  const uint64_t think = random_.chance(0.3) ? 1 : random_.below(options_.think_ns_max + 1);
  const uint64_t pause = refused_ ? 20 * think + random_.below(kMillisecond) : 0;
  loop_.arm(&timer_, loop_.now_ns() + 1 + think + pause);
}

void Workload::tick() {
  if (!issuing_) return;
  issue();
  waiting_ = inflight_ >= options_.depth;
  if (!waiting_) arm_tick();
}

Workload::Request* Workload::free_request() {
  for (auto& request : requests_) {
    if (!request->busy) return request.get();
  }
  requests_.push_back(std::make_unique<Request>());
  requests_.back()->owner = this;
  return requests_.back().get();
}

// Mostly small; everything from 512 bytes to a megabyte, aligned in every way.
Window Workload::pick_range(uint64_t alignment_units) {
  // Windows beyond the size that this client knows are not there yet (history_.windows[0] always
  // is).
  Window window = history_.windows[random_.below(history_.windows.size())];
  if ((window.first + window.count) * kUnitBytes > client_->size_bytes())
    window = history_.windows[0];
  uint64_t units = 1;
  uint64_t align = alignment_units;
  if (random_.below(100) < options_.large_percent) {
    units = random_.chance(0.3) ? random_.between(1, kIoBytesMax / kUnitBytes)
                                : random_.between(1, 256);
    if (random_.chance(0.3)) {  // whole blocks, some of which go to their place at once (R4)
      align = std::max(align, kUnitsPerBlock);
      units = std::min<uint64_t>((units / kUnitsPerBlock + 1) * kUnitsPerBlock,
                                 kIoBytesMax / kUnitBytes);
    }
  } else if (random_.chance(0.3)) {
    units = random_.between(1, 2 * kUnitsPerSector);
  } else if (random_.chance(0.1)) {
    units = kUnitsPerBlock * random_.between(1, 4);
    align = std::max(align, kUnitsPerBlock);
  } else {
    units =
        kUnitsPerSector * (random_.chance(0.6) ? random_.between(1, 4) : random_.between(1, 24));
    align = std::max(align, kUnitsPerSector);
  }
  units = std::min((units + alignment_units - 1) / alignment_units * alignment_units, window.count);
  uint64_t at = window.first + random_.below(window.count - units + 1);
  at = std::max(window.first, at / align * align);
  return {at, units};
}

void Workload::prepare(Request& request) {
  using client::IoType;
  const uint64_t dice = random_.below(100);
  client::IoRequest& io = request.io;
  io.no_unmap = false;
  if (dice < options_.halves_percent) {
    const Window& window = history_.windows[0];
    const uint64_t at = window.first + random_.below(std::min<uint64_t>(window.count, 64)) / 2 * 2 +
                        options_.parity;
    request.first_unit = at;
    request.units = 1;
    io.type = random_.chance(0.7) ? IoType::kWrite : IoType::kRead;
    return;
  }
  const uint64_t kind = random_.below(100);
  uint64_t align = 1;
  if (kind < options_.zeroes_percent / 2) {
    io.type = IoType::kDiscard;
    align = kUnitsPerSector;
  } else if (kind < options_.zeroes_percent) {
    io.type = IoType::kWriteZeroes;
    io.no_unmap = random_.chance(0.3);
  } else if (kind < 55) {
    io.type = IoType::kRead;
  } else if (kind < 97) {
    io.type = IoType::kWrite;
  } else {
    io.type = IoType::kFlush;
  }
  const Window range = pick_range(align);
  request.first_unit = range.first;
  request.units = range.count;
}

void Workload::issue() {
  Request& request = *free_request();
  request.sweep = false;
  prepare(request);
  submit(request);
}

void Workload::submit(Request& request) {
  using client::IoType;
  client::IoRequest& io = request.io;
  request.busy = true;
  request.begin_ns = world_.now_ns();
  request.write = 0;
  request.retries = client_->stats().retries;
  ++inflight_;
  io.offset_bytes = request.first_unit * kUnitBytes;
  io.bytes = request.units * kUnitBytes;
  io.owner = &request;
  io.code = Code::kOk;
  io.iov = {};
  io.done = [](client::IoRequest* done) {
    auto* finished = static_cast<Request*>(done->owner);
    finished->owner->finished(*finished);
  };
  if (io.type == IoType::kFlush) io.offset_bytes = io.bytes = 0;
  if (io.type == IoType::kDiscard || io.type == IoType::kWriteZeroes) {
    request.write = history_.checker.begin_write(request.first_unit, request.units, true,
                                                 request.begin_ns, name_);
  }
  if (io.type == IoType::kWrite) {
    request.write = history_.checker.begin_write(request.first_unit, request.units, false,
                                                 request.begin_ns, name_);
  }
  if (request.write && fence_ns_ != kForever)
    history_.checker.bound_write(request.write, fence_ns_);
  if (io.type == IoType::kWrite || io.type == IoType::kRead) {
    if (request.data.size() < io.bytes) request.data.resize(io.bytes);
    if (io.type == IoType::kWrite) {
      for (uint64_t i = 0; i < request.units; ++i) {
        fill_unit(request.write, request.first_unit + i,
                  std::span(request.data).subspan(i * kUnitBytes, kUnitBytes));
      }
    } else {
      std::memset(request.data.data(), 0xee, io.bytes);
    }
    // In up to three parts, cut anywhere.
    const size_t one = random_.below(io.bytes + 1), two = one + random_.below(io.bytes - one + 1);
    request.iov[0] = {request.data.data(), one};
    request.iov[1] = {request.data.data() + one, two - one};
    request.iov[2] = {request.data.data() + two, io.bytes - two};
    io.iov = request.iov;
  }
  client_->submit(&io);
}

void Workload::finished(Request& request) {
  --inflight_;
  request.busy = false;
  if (std::exchange(waiting_, false)) arm_tick();
  const Code code = request.io.code;
  world_.trace(world_.running(), "io_done", static_cast<uint64_t>(code), request.first_unit);
  ++verdict_.counts[code == Code::kOk ? "ops" : "ops_refused"];
  verdict_.counts["no_space"] += code == Code::kNoSpace;
  if (code == Code::kOk) {
    if (request.begin_ns > fence_ns_ && request.io.type != client::IoType::kFlush) {
      verdict_.fail("R12 fencing", name_ + " was answered on a request that it began at " +
                                       std::to_string(request.begin_ns / 1000) +
                                       " us, after its fence at " +
                                       std::to_string(fence_ns_ / 1000) + " us");
    }
    if (request.write) finished_write(request);
    if (request.io.type == client::IoType::kRead) finished_read(request);
  } else {
    const bool fenced = code == Code::kFenced || code == Code::kNoVolume;
    if (!(fenced && fence_expected_) && code != Code::kNoSpace && code != Code::kShuttingDown) {
      verdict_.fail("I/O does not fail", name_ + ": " + std::string(code_name(code)));
    }
    if (fenced) refused_ = true;
    // The first copyset's refusal ends everything this client has in flight; where the fence has
    // not arrived a write may still happen, until the attach that fences is answered (R12).
    if (request.write && fenced && fence_ns_ > world_.now_ns()) {
      refused_writes_.push_back(request.write);
    } else if (request.write) {
      history_.checker.bound_write(request.write, std::min(fence_ns_, world_.now_ns()));
    }
  }
  if (request.sweep) next_sweep();
}

void Workload::finished_write(Request& request) {
  const bool sent_again = client_->stats().retries != request.retries;
  history_.checker.end_write(request.write, std::min(world_.now_ns(), fence_ns_), sent_again);
}

void Workload::finished_read(Request& request) {
  const uint64_t end = std::min(world_.now_ns(), fence_ns_);
  if (auto bad =
          history_.checker.read(request.first_unit, std::span(request.data).first(request.io.bytes),
                                request.begin_ns, end, name_)) {
    verdict_.fail("register", *bad);
  }
}

void Workload::read_everything(std::function<void()> done) {
  swept_ = std::move(done);
  sweep_.clear();
  for (uint64_t unit : history_.checker.touched_units()) {
    if (!sweep_.empty() && sweep_.back().first + sweep_.back().count == unit &&
        sweep_.back().count < 2048) {
      ++sweep_.back().count;
    } else {
      sweep_.push_back({unit, 1});
    }
  }
  next_sweep();
}

void Workload::next_sweep() {
  if (sweep_.empty()) {
    if (swept_) std::exchange(swept_, nullptr)();
    return;
  }
  Request& request = *free_request();
  request.sweep = true;
  request.io.type = client::IoType::kRead;
  request.io.no_unmap = false;
  request.first_unit = sweep_.back().first;
  request.units = sweep_.back().count;
  sweep_.pop_back();
  submit(request);
}

std::string Workload::oldest() const {
  const Request* oldest = nullptr;
  for (const auto& request : requests_) {
    if (request->busy && (!oldest || request->begin_ns < oldest->begin_ns)) oldest = request.get();
  }
  if (!oldest) return "none";
  return "type " + std::to_string(static_cast<int>(oldest->io.type)) + " of units " +
         std::to_string(oldest->first_unit) + "+" + std::to_string(oldest->units) + " since " +
         std::to_string(oldest->begin_ns / 1000) + " us";
}

}  // namespace curve::sim
