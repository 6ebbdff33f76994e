#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/bytes.h"
#include "base/ids.h"
#include "spec/run_spec.h"

namespace isthmus::stage {

// A replica that tells its siblings something else than how its weights moved (run.rehearsal), so that a run can be
// seen to bear it.
class RehearsedLiar {
 public:
  explicit RehearsedLiar(const spec::RunSpec& run) : lie_(run.rehearsal.lie), seed_(run.run.seed) {}

  // Of the worker at this place; null: it tells the truth.
  static std::unique_ptr<RehearsedLiar> of(const spec::RunSpec& run, StageId stage, ReplicaId replica);

  // What it is about to tell, before it becomes bytes.
  void distort(std::span<float> update, std::uint64_t version) const;
  // What it tells, by slice. `before`: all updates of the sync before, by slice.
  void replace(std::vector<SharedBytes>& updates, const std::vector<std::vector<SharedBytes>>& before);

 private:
  const std::string lie_;
  const std::uint64_t seed_;
  std::vector<SharedBytes> first_;
};

}  // namespace isthmus::stage
