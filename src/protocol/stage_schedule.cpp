#include "protocol/stage_schedule.h"

namespace isthmus::protocol {

namespace {

MicrobatchId take_first(std::set<MicrobatchId>& from) {
  const MicrobatchId m = *from.begin();
  from.erase(from.begin());
  return m;
}

}  // namespace

StageSchedule::StageSchedule(ScheduleKind kind, std::uint32_t credits)
    : credits_(credits), weight_first_(kind == ScheduleKind::kOneForwardOneBackward) {}

void StageSchedule::forward_ready(MicrobatchId m, bool training) { (training ? forward_ : evaluation_).insert(m); }

void StageSchedule::gradient_ready(MicrobatchId m) { gradient_.insert(m); }

std::optional<Task> StageSchedule::next() {
  const auto weight = [&] {
    const MicrobatchId m = weight_.front();
    weight_.pop_front();
    return Task{Operation::kWeightGradient, m};
  };
  if (weight_first_ && !weight_.empty()) return weight();
  if (!gradient_.empty()) return Task{Operation::kInputGradient, take_first(gradient_)};
  if (!forward_.empty() && in_flight_ < credits_) {
    ++in_flight_;
    return Task{Operation::kForward, take_first(forward_)};
  }
  if (!evaluation_.empty()) return Task{Operation::kForward, take_first(evaluation_)};
  if (!weight_.empty()) return weight();
  return std::nullopt;
}

void StageSchedule::input_gradient_done(MicrobatchId m) {
  --in_flight_;
  weight_.push_back(m);
}

bool StageSchedule::cancel_forward(MicrobatchId m) { return forward_.erase(m) != 0 || evaluation_.erase(m) != 0; }

}  // namespace isthmus::protocol
