#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "spec/run_config.h"

namespace isthmus::stage {

// A run's model from a checkpoint, to be read only: its stages in this process one after the other, with the boundary
// codec between them, so that it computes what was trained. On the CPU. One thread.
class CheckpointModel {
 public:
  // Sets the process's number of compute threads: pipeline.threads, or one, because sums depend on it and the same text
  // should come on every machine. Errors: a checkpoint that is not whole.
  static Result<CheckpointModel> open(const spec::RunConfig& run, const std::string& folder, std::uint64_t version);
  CheckpointModel(CheckpointModel&&) noexcept;
  ~CheckpointModel();

  // Logits of the token that follows on `ids`, one for each id of the vocabulary. REQUIRES: 1 to model.context ids,
  // each below model.vocabulary.
  Result<std::vector<float>> next(std::span<const std::uint32_t> ids);

 private:
  struct Stages;
  explicit CheckpointModel(std::unique_ptr<Stages> stages);
  std::unique_ptr<Stages> stages_;
};

}  // namespace isthmus::stage
