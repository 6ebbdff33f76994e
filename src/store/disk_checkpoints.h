#pragma once

#include <cstdint>
#include <thread>
#include <vector>

#include "store/checkpoint.h"
#include "store/checkpoint_store.h"

namespace isthmus::store {

// Checkpoints of one stage in a folder. Each is written by a thread of its own while the owner goes on.
class DiskCheckpoints : public CheckpointStore {
 public:
  // `keep`: how many versions stay at least.
  DiskCheckpoints(CheckpointPlace place, std::uint32_t keep) : place_(std::move(place)), keep_(keep) {}
  ~DiskCheckpoints() override { wait(); }
  DiskCheckpoints(const DiskCheckpoints&) = delete;

  void write(const Mark& mark, StageTensors tensors, Done done) final;
  void wait() final;
  std::vector<std::uint64_t> versions() const override { return checkpoint_versions(place_.folder, place_.stage); }
  Result<LoadedCheckpoint> read(std::uint64_t version) const override { return read_checkpoint(place_, version); }
  void forget(std::uint64_t version, std::uint32_t timeline) override { forget_checkpoints(place_, version, timeline); }

 protected:
  // On the thread that writes. Whoever overrides it waits before it goes.
  virtual Status put(const Mark& mark, const StageTensors& tensors) {
    auto written = write_checkpoint(place_, mark.version, mark.timeline, tensors.weights, tensors.optimizer);
    if (written) prune_checkpoints(place_, keep_, mark.whole);
    return written;
  }

 private:
  const CheckpointPlace place_;
  const std::uint32_t keep_;
  std::thread writing_;  // of the newest one
};

}  // namespace isthmus::store
