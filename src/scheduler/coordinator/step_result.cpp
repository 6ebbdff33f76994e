#include "scheduler/coordinator/step_result.h"

#include <cmath>

namespace isthmus::coordinator {

StepResult step_result(const protocol::Plan& plan, StepId step, double clip,
                       const std::vector<protocol::UnitNorm>& norms, bool finite,
                       const std::map<MicrobatchId, protocol::MicrobatchLoss>& losses, const StepGuard& guard,
                       const std::vector<StageId>& absent) {
  StepResult result;
  StepFigures& figures = result.figures;
  double training = 0, validation = 0;
  std::uint64_t validation_tokens = 0;
  for (const auto& [m, loss] : losses) {
    const bool trains = plan.is_training(step, m);
    (trains ? training : validation) += loss.sum;
    (trains ? figures.tokens : validation_tokens) += loss.tokens;
  }
  double norm2 = 0;
  for (const auto& unit : norms) norm2 += unit.norm2;
  figures.grad_norm = std::sqrt(norm2);
  if (figures.tokens > 0) figures.loss = training / static_cast<double>(figures.tokens);
  if (validation_tokens > 0) figures.validation_loss = validation / static_cast<double>(validation_tokens);
  const bool trains = plan.training_count(step) > 0;
  if (trains) result.reason = guard.objection(step, figures, finite, absent);
  result.apply = trains && result.reason.empty();
  if (clip > 0 && result.apply && figures.grad_norm > clip) result.scale = clip / figures.grad_norm;
  return result;
}

std::vector<protocol::UnitNorm> mean_norms(const std::vector<OwnNorms>& replicas) {
  std::vector<protocol::UnitNorm> mean;
  double all = 0;
  for (const auto& replica : replicas) all += replica.microbatches;
  for (const auto& replica : replicas) {
    if (mean.empty())
      for (const auto& unit : replica.norms) mean.push_back({unit.unit, 0});
    // The gradient is multiplied by all / own, and its square counts for own / all.
    if (replica.microbatches > 0 && replica.norms.size() == mean.size())
      for (std::size_t i = 0; i < mean.size(); ++i)
        mean[i].norm2 += replica.norms[i].norm2 * all / replica.microbatches;
  }
  return mean;
}

}  // namespace isthmus::coordinator
