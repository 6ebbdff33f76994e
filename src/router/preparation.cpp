#include "router/preparation.h"

#include <utility>

namespace isthmus::router {

Preparation::Preparation(WorkerContext& context, const MicrobatchFlow& flow, Combination& combination,
                         const OuterExchange& exchange, const StateDonor& donor)
    : context_(context), flow_(flow), combination_(combination), exchange_(exchange), donor_(donor) {}

void Preparation::clear() {
  state_ = State::kOpen;
  alone_ = false;
  epoch_ = {};
  sum_.reset();
}

void Preparation::epoch_changed() {
  epoch_ = {};
  if (state_ == State::kClosingAlone) return;
  if (!alone_) sum_.reset();
  state_ = sum_ ? State::kClosedAlone : State::kOpen;
}

News Preparation::pursue(Time now) {
  if (!context_.live()) return News::kNone;
  if (context_.local()) return pursue_own();
  if (context_.own_stage().size() == 1) return pursue_alone(now);
  // It has company now: what it closed alone is only its own part.
  if (alone_) clear();
  if (!context_.view.preparing || combination_.started()) return News::kNone;
  if (!agrees_on_its_share()) return News::kSoon;
  combination_.start(now);
  return News::kNone;
}

// The only live replica of a stage needs nobody to combine with, so its sum is the stage's as soon as its own done set
// is full; waiting for the coordinator to say so would cost a round trip a step.
News Preparation::pursue_alone(Time now) {
  if (!share_is_done() || state_ == State::kClosingAlone) return News::kNone;
  if (!sum_) {
    state_ = State::kClosingAlone;
    context_.run(protocol::RunPrepare{context_.job_tag(), EpochId(0), {}, true, donor_.is_followed(now)});
    return News::kNone;
  }
  if (state_ == State::kReady && epoch_ == context_.view.epoch) return News::kNone;
  state_ = State::kReady;
  epoch_ = context_.view.epoch;
  return News::kAtOnce;  // everybody waits for it
}

// A replica that steps on its own closes its own sum, and at a sync has what all of them agreed on.
News Preparation::pursue_own() {
  const protocol::View& view = context_.view;
  const bool closing = state_ == State::kClosingOwn || state_ == State::kReady;
  if (!view.preparing || (closing && epoch_ == view.epoch)) return News::kNone;
  if (!agrees_on_its_share()) return News::kSoon;
  if (context_.syncs() && !exchange_.complete()) return News::kNone;
  state_ = State::kClosingOwn;
  epoch_ = view.epoch;
  context_.run(protocol::RunPrepare{context_.job_tag(), view.epoch, {}, true, false, context_.syncs()});
  return News::kNone;
}

bool Preparation::agrees_on_its_share() const {
  const auto& owners = context_.view.owners;
  const auto mine = owners.find(context_.session);
  return mine == owners.end() ? flow_.done().size() == 0 : mine->second == flow_.done();
}

// Of epoch 0: closed alone; the sum is good in any epoch in which the replica is still the only one.
News Preparation::done(protocol::PrepareDone result, Time now) {
  const bool alone = result.epoch == EpochId(0);
  const bool current = result.tag == context_.job_tag() && context_.live();
  if (current && alone && state_ == State::kClosingAlone) state_ = State::kOpen;
  if (current && alone && share_is_done() && context_.own_stage().size() == 1) {
    sum_ = std::move(result);
    alone_ = true;
    state_ = State::kClosedAlone;
  } else if (current && !alone && result.epoch == context_.view.epoch) {
    sum_ = std::move(result);
    state_ = State::kReady;
    epoch_ = sum_->epoch;
    return News::kAtOnce;
  }
  return pursue(now);
}

}  // namespace isthmus::router
