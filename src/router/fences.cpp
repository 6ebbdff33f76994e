#include "router/fences.h"

namespace isthmus::router {

Fence judge(const WorkerContext& context, std::uint64_t version, PeerId from, const protocol::StepTag& tag) {
  const protocol::View& view = context.view;
  if (tag.to != context.session) return Fence::kRefuse;  // for another life of this worker
  if (tag.epoch > view.epoch) return Fence::kHold;
  // Its step is over, or belongs to a past that did not happen: epochs order the steps, numbers alone do not.
  if (tag.step != view.step || tag.attempt != view.attempt) return Fence::kRefuse;
  if (!context.live() || view.step.value != version + 1) return Fence::kRefuse;
  const protocol::Member* sender = view.find(tag.from);
  return sender && sender->peer == from ? Fence::kPass : Fence::kRefuse;  // no member, or another's session
}

bool is_neighbour(const WorkerContext& context, MicrobatchId m, StageId sender, int way) {
  const StageId own = context.identity.stage;
  const protocol::StepPaths& paths = context.paths;
  if (m.value >= context.plan.count(context.view.step) || !paths.visits(m, own)) return false;
  if (way > 0) return !context.is_head() && paths.previous(m, own) == sender;
  return !context.is_tail() && paths.next(m, own) == sender;
}

}  // namespace isthmus::router
