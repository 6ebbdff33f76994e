#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <utility>

#include "base/bytes.h"
#include "store/checkpoint_store.h"
#include "store/journal.h"

namespace isthmus::sim {

// A journal that outlives its worker's process and breaks as it is told: `full` says whether it takes nothing now.
class SimulatedJournal final : public store::Journal {
 public:
  SimulatedJournal(std::uint64_t entries, std::function<bool()> full) : limit_(entries), full_(std::move(full)) {}

  Status append(const Key& key, const compress::EncodedTensor& tensor) override;
  Status sync() override { return {}; }
  std::optional<compress::EncodedTensor> find(const Key& key) const override;
  void trim(std::uint64_t version) override;
  void clear() { entries_.clear(); }

 private:
  const std::uint64_t limit_;  // entries; the oldest make room
  const std::function<bool()> full_;
  std::map<Key, compress::EncodedTensor> entries_;
};

// Checkpoints of one stage on a worker's disk.
class SimulatedCheckpoints final : public store::CheckpointStore {
 public:
  // Calls back when a checkpoint has been written as far as it goes, later; with it the cluster takes its time.
  using Writing = std::function<void(std::function<void()> written)>;
  SimulatedCheckpoints(Writing writing, std::function<bool()> full)
      : writing_(std::move(writing)), full_(std::move(full)) {}

  void write(const Mark& mark, store::StageTensors tensors, Done done) override;
  // Whoever gives a job that waits has waited already.
  void wait() override {}
  std::vector<std::uint64_t> versions() const override;
  Result<store::LoadedCheckpoint> read(std::uint64_t version) const override;
  void forget(std::uint64_t version, std::uint32_t timeline) override;

 private:
  struct Written {
    std::uint32_t timeline = 0;
    store::StageTensors tensors;
  };
  const Writing writing_;
  const std::function<bool()> full_;
  std::map<std::uint64_t, Written> written_;
};

}  // namespace isthmus::sim
