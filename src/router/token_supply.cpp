#include "router/token_supply.h"

#include <algorithm>
#include <utility>

namespace isthmus::router {

namespace {

using protocol::kHeldOut;
using protocol::Sample;

}  // namespace

void TokenSupply::want(StepId step, const std::set<MicrobatchId>& own, Time now) {
  if (!context_.is_head()) return;
  const protocol::Plan& plan = context_.plan;
  const auto stage = context_.own_stage();
  const bool alone = std::ranges::all_of(stage, [&](const auto* m) { return m->session == context_.session; });
  const auto before = std::exchange(samples_, {});
  const auto keep = [&](const Sample& sample) {
    const auto at = before.find(sample);
    samples_.emplace(sample, at == before.end() ? Asked() : at->second);
  };
  bool evaluates = before.contains({kHeldOut, MicrobatchId(0)});
  for (StepId s = step; s.value <= step.value + protocol::kStepsAhead; s = StepId(s.value + 1)) {
    evaluates = evaluates || plan.evaluation_count(s) > 0;
    for (MicrobatchId m(0); m.value < plan.training_count(s); m = MicrobatchId(m.value + 1))
      if (alone || own.contains(m)) keep({s, m});
  }
  for (MicrobatchId m(0); evaluates && m.value < plan.evaluation_microbatches; m = MicrobatchId(m.value + 1))
    keep({kHeldOut, m});
  ask(now);
}

const compress::EncodedTensor* TokenSupply::find(StepId step, MicrobatchId m) const {
  const auto at = samples_.find(Sample::of(context_.plan, step, m));
  return at == samples_.end() || !at->second.ids ? nullptr : &*at->second.ids;
}

bool TokenSupply::received(const protocol::TokenIds& ids) {
  const auto at = samples_.find(ids.sample);
  if (at == samples_.end() || at->second.at == kNever || at->second.ids) return false;
  if (!ids.tensor.values->empty() || ids.tensor.tokens->size() != context_.plan.token_bytes) return false;
  at->second.ids = ids.tensor;
  return true;
}

void TokenSupply::ask_anew(Time now) {
  for (auto& [sample, asked] : samples_) asked.at = kNever;
  ask(now);
}

void TokenSupply::tick(Time now) {
  if (next_due() <= now) ask(now);
}

// A message for each step. It is answered in this order: held-out ids are for the end of a step.
void TokenSupply::ask(Time now) {
  std::map<StepId, DoneSet> wanted;
  for (auto& [sample, asked] : samples_) {
    if (!is_due(asked, now)) continue;
    asked.at = now;
    const std::uint32_t count =
        sample.step == kHeldOut ? context_.plan.evaluation_microbatches : context_.plan.microbatches;
    wanted.try_emplace(sample.step, count).first->second.insert(sample.microbatch);
  }
  auto held_out = wanted.extract(kHeldOut);
  for (auto& [step, microbatches] : wanted)
    context_.run(protocol::SendMessage{kCoordinator, protocol::TokenRequest{step, std::move(microbatches)}});
  if (held_out)
    context_.run(protocol::SendMessage{kCoordinator, protocol::TokenRequest{kHeldOut, std::move(held_out.mapped())}});
}

Time TokenSupply::next_due() const {
  Time due = kNever;
  for (const auto& [sample, asked] : samples_)
    if (!asked.ids) due = std::min(due, asked.at == kNever ? Time{} : asked.at + context_.identity.ask_after);
  return due;
}

}  // namespace isthmus::router
