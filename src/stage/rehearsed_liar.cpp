#include "stage/rehearsed_liar.h"

#include <cmath>
#include <limits>

#include "base/counter_random.h"

namespace isthmus::stage {

std::unique_ptr<RehearsedLiar> RehearsedLiar::of(const spec::RunSpec& run, StageId stage, ReplicaId replica) {
  std::uint32_t peer = replica.value + 1;
  for (std::uint32_t s = 0; s < stage.value; ++s) peer += run.pipeline.stage[s].replicas;
  return peer == run.rehearsal.liar ? std::make_unique<RehearsedLiar>(run) : nullptr;
}

void RehearsedLiar::distort(std::span<float> update, std::uint64_t version) const {
  if (lie_ == "not_finite") {
    for (float& x : update) x = std::numeric_limits<float>::quiet_NaN();
  } else if (lie_ == "scale") {
    for (float& x : update) x *= 100;
  } else if (lie_ == "noise") {
    // As large as the truth, so that its size gives nothing away.
    double norm2 = 0;
    for (const float x : update) norm2 += double{x} * x;
    const auto deviation = static_cast<float>(std::sqrt(norm2 / static_cast<double>(update.size())));
    const CounterRandom random(seed_ + version, "noise for an update");
    for (std::size_t i = 0; i < update.size(); ++i) update[i] = deviation * static_cast<float>(random.normal(i));
  }
}

void RehearsedLiar::replace(std::vector<SharedBytes>& updates, const std::vector<std::vector<SharedBytes>>& before) {
  if (lie_ == "stale") {
    if (first_.empty()) first_ = updates;
    // The last sync's updates have another form.
    const auto sizes = [](const std::vector<SharedBytes>& all) {
      std::vector<std::size_t> sizes;
      for (const auto& update : all) sizes.push_back(update->size());
      return sizes;
    };
    if (sizes(first_) == sizes(updates)) updates = first_;
  } else if (lie_ == "copy") {
    for (std::size_t slice = 0; slice < updates.size() && slice < before.size(); ++slice)
      for (const auto& update : before[slice])
        if (update->size() == updates[slice]->size() && update != updates[slice]) {
          updates[slice] = update;
          break;
        }
  }
}

}  // namespace isthmus::stage
