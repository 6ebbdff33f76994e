#include "scheduler/coordinator/trust.h"

#include <fmt/format.h>

#include <algorithm>

namespace isthmus::coordinator {

std::string Trust::objection(const Decisions& decisions, PeerId peer, StageId stage) const {
  const auto at = decisions.peers.find(peer);
  if (at == decisions.peers.end() || at->second.trusted) return {};
  const bool is_end = stage.value == 0 || stage.value + 1 == stages;
  if (owner_ends && is_end)
    return fmt::format("stage {} is for machines that the run's owner trusts (`isthmus invite --trusted`)", stage);
  const auto history = decisions.served.find(at->second.identity);
  if (stages_per_identity == 0 || history == decisions.served.end() || history->second.contains(stage)) return {};
  const std::size_t most = std::min<std::size_t>(stages_per_identity, std::max(stages, 2u) - 1);
  if (history->second.size() < most) return {};
  return fmt::format(
      "it has served stage {} already, and an identity may see {} of the run's {} (trust.stages_per_identity)",
      *history->second.begin(), most, stages);
}

std::set<StageId> Trust::barred(const Decisions& decisions, PeerId peer) const {
  std::set<StageId> barred;
  const auto at = decisions.peers.find(peer);
  if (at == decisions.peers.end() || at->second.trusted) return barred;
  for (StageId stage(0); stage.value < stages; ++stage.value)
    if (!allows(decisions, peer, stage)) barred.insert(stage);
  return barred;
}

}  // namespace isthmus::coordinator
