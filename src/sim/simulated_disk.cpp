#include "sim/simulated_disk.h"

#include <ranges>

namespace isthmus::sim {

namespace {

constexpr std::size_t kKeep = 2;

std::map<std::string, store::NamedTensor> by_name(const std::vector<store::NamedTensor>& tensors) {
  std::map<std::string, store::NamedTensor> named;
  for (const auto& tensor : tensors) named[tensor.name] = tensor;
  return named;
}

}  // namespace

Status SimulatedJournal::append(const Key& key, const compress::EncodedTensor& tensor) {
  if (full_()) return fail("disk full");
  entries_[key] = tensor;
  while (entries_.size() > limit_) entries_.erase(entries_.begin());
  return {};
}

std::optional<compress::EncodedTensor> SimulatedJournal::find(const Key& key) const {
  const auto at = entries_.find(key);
  if (at == entries_.end()) return std::nullopt;
  return at->second;
}

void SimulatedJournal::trim(std::uint64_t version) {
  entries_.erase(entries_.begin(), entries_.lower_bound(Key{StepId(version + 1), 0, MicrobatchId(0), false}));
}

void SimulatedCheckpoints::write(const Mark& mark, store::StageTensors tensors, Done done) {
  writing_([this, mark, tensors = std::move(tensors), done = std::move(done)] {
    const bool full = full_();
    if (!full) written_[mark.version] = {mark.timeline, tensors};
    std::size_t more = written_.size() - std::min(written_.size(), kKeep);
    for (auto at = written_.begin(); more > 0; --more)
      at = at->first == mark.whole ? std::next(at) : written_.erase(at);
    done(full ? Status(fail("disk full")) : Status());
  });
}

std::vector<std::uint64_t> SimulatedCheckpoints::versions() const {
  std::vector<std::uint64_t> versions;
  for (const auto version : written_ | std::views::keys) versions.push_back(version);
  return versions;
}

// The tensors stay where they are.
Result<store::LoadedCheckpoint> SimulatedCheckpoints::read(std::uint64_t version) const {
  const auto at = written_.find(version);
  if (at == written_.end()) return fail("there is no checkpoint of version {}", version);
  store::LoadedCheckpoint loaded;
  loaded.version = version;
  loaded.timeline = at->second.timeline;
  loaded.weights.tensors = by_name(at->second.tensors.weights);
  loaded.optimizer.tensors = by_name(at->second.tensors.optimizer);
  return loaded;
}

void SimulatedCheckpoints::forget(std::uint64_t version, std::uint32_t timeline) {
  std::erase_if(written_, [&](const auto& c) { return c.first > version && c.second.timeline < timeline; });
}

}  // namespace isthmus::sim
