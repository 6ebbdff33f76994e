#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/ids.h"
#include "protocol/plan.h"
#include "protocol/report.h"
#include "scheduler/coordinator/decisions.h"
#include "scheduler/coordinator/step_guard.h"

namespace isthmus::coordinator {

// What a finished step comes to, and what every stage does with its gradient.
struct StepResult {
  StepFigures figures;
  double scale = 1;    // of the gradient: the clip of the whole model's norm
  bool apply = false;  // false: nothing to train, or a bad step
  std::string reason;  // why a step that trains is not applied
};

// `norms`: of every unit of the model, in the order of the layers, so that their sum is the same for every layout.
// `finite`: what all stages say of their gradients. `clip`: largest norm, 0 = none. `absent`: stages that the step went
// without. Pure: the coordinator and whoever else runs a step decide alike.
StepResult step_result(const protocol::Plan& plan, StepId step, double clip,
                       const std::vector<protocol::UnitNorm>& norms, bool finite,
                       const std::map<MicrobatchId, protocol::MicrobatchLoss>& losses, const StepGuard& guard,
                       const std::vector<StageId>& absent);

// Squared norms, per unit, of a stage's gradient whose replicas step on their own: each has one of its own
// microbatches, which counts as if it were of all, for its share of them.
struct OwnNorms {
  std::uint32_t microbatches = 0;
  std::vector<protocol::UnitNorm> norms;
};
std::vector<protocol::UnitNorm> mean_norms(const std::vector<OwnNorms>& replicas);

}  // namespace isthmus::coordinator
