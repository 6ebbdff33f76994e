#include "scheduler/coordinator/token_desk.h"

#include <algorithm>

namespace isthmus::coordinator {

namespace {

// So much of the uplink's time leaves at once: fewer turns of the process, and a first answer that waits for nothing.
constexpr Duration kAtOnce = std::chrono::milliseconds(20);

bool is_head(const Decisions& decisions, PeerId peer) {
  const auto place = decisions.place_of(peer);
  return place && place->stage == StageId(0);
}

}  // namespace

TokenDesk::TokenDesk(const protocol::Plan& plan, double bytes_per_second)
    : plan_(plan), each_(seconds(static_cast<double>(plan.token_bytes) / bytes_per_second)) {}

bool TokenDesk::asked(const Decisions& decisions, PeerId from, const protocol::TokenRequest& request) {
  if (!is_head(decisions, from) || request.step.value > decisions.step.value + protocol::kStepsAhead) return false;
  Waiting& waiting = waiting_[from];
  bool all = true;
  for (MicrobatchId m(0); m.value < request.microbatches.count(); m = MicrobatchId(m.value + 1)) {
    if (!request.microbatches.contains(m)) continue;
    const protocol::Sample sample{request.step, m};
    if (waiting.known.contains(sample)) continue;
    if (sample.exists_in(plan_) && waiting.samples.size() < protocol::samples_max(plan_)) {
      waiting.known.insert(sample);
      waiting.samples.push_back(sample);
    } else {
      all = false;
    }
  }
  if (waiting.samples.empty()) waiting_.erase(from);
  return all;
}

std::vector<TokenDesk::Answer> TokenDesk::answers(const Decisions& decisions, Time now) {
  std::vector<Answer> answers;
  if (next_due() > now) return answers;
  std::erase_if(waiting_, [&](const auto& entry) { return !is_head(decisions, entry.first); });
  free_at_ = std::max(free_at_, now);
  while (!waiting_.empty() && free_at_ < now + kAtOnce) {
    auto next = waiting_.upper_bound(last_);
    if (next == waiting_.end()) next = waiting_.begin();
    last_ = next->first;
    Waiting& waiting = next->second;
    answers.push_back({last_, waiting.samples.front()});
    waiting.known.erase(waiting.samples.front());
    waiting.samples.pop_front();
    if (waiting.samples.empty()) waiting_.erase(next);
    free_at_ += each_;
  }
  return answers;
}

}  // namespace isthmus::coordinator
