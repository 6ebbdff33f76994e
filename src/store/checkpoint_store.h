#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "base/result.h"
#include "store/safetensors.h"

namespace isthmus::store {

// A copy of a stage's weights and optimizer state, taken at one moment.
struct StageTensors {
  std::vector<NamedTensor> weights;
  std::vector<NamedTensor> optimizer;
  std::shared_ptr<const void> owner;  // of the bytes that the tensors point to
};

struct LoadedCheckpoint {
  std::uint64_t version = 0;
  std::uint32_t timeline = 0;  // rollbacks of the run before it
  SafetensorsFile weights;
  SafetensorsFile optimizer;
};

// Checkpoints of one stage, where they last. Owned by whoever runs the worker's jobs.
class CheckpointStore {
 public:
  virtual ~CheckpointStore() = default;

  // Begins to write a checkpoint and returns; `done` is called once, from any thread. One is written at a time: this
  // waits for the one before. On error the earlier ones are untouched.
  // Once it is there, older ones make room, but not `whole`.
  struct Mark {
    std::uint64_t version = 0;
    std::uint32_t timeline = 0;
    std::uint64_t whole = 0;  // the newest version that every stage of the run has written; 0: none
  };
  using Done = std::function<void(Status)>;
  virtual void write(const Mark& mark, StageTensors tensors, Done done) = 0;
  // Until nothing is being written.
  virtual void wait() = 0;
  // Those that are whole, oldest first.
  virtual std::vector<std::uint64_t> versions() const = 0;
  // Errors: there is none, or it is damaged.
  virtual Result<LoadedCheckpoint> read(std::uint64_t version) const = 0;
  // Removes those of an earlier timeline above this version: they belong to a past that did not happen.
  virtual void forget(std::uint64_t version, std::uint32_t timeline) = 0;
};

}  // namespace isthmus::store
