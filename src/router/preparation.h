#pragma once

#include <optional>

#include "protocol/effects.h"
#include "router/combination.h"
#include "router/microbatch_flow.h"
#include "router/outer_exchange.h"
#include "router/state_donor.h"
#include "router/worker_context.h"

namespace isthmus::router {

// Whether the coordinator has to hear of it.
enum class News : std::uint8_t { kNone, kSoon, kAtOnce };

// Gets this replica's part of the step ready for the commit: closes its sum once everything is in it, alone or with its
// siblings (router/combination.h), or, where replicas step on their own, with what they agreed on.
class Preparation {
 public:
  Preparation(WorkerContext& context, const MicrobatchFlow& flow, Combination& combination,
              const OuterExchange& exchange, const StateDonor& donor);

  // Another step, attempt or life.
  void clear();
  // Sums of an older view are void; what is in the accumulators is not.
  void epoch_changed();
  News pursue(Time now);
  News done(protocol::PrepareDone result, Time now);

  // The stage's sum, as it stands in the newest view; null: it is not ready.
  const protocol::PrepareDone* ready() const { return state_ == State::kReady ? &*sum_ : nullptr; }
  // … or was ready in that epoch, so that a commit of it can be applied.
  bool ready_in(EpochId epoch) const { return ready() && epoch_ == epoch; }
  EpochId epoch() const { return epoch_; }
  const protocol::PrepareDone& sum() const { return *sum_; }
  // Something of the step is closed.
  bool begun() const { return sum_.has_value(); }
  bool closing_alone() const { return state_ == State::kClosingAlone; }
  // Everything that visits this stage in this step and is this replica's, as far as it knows, is in its sum.
  bool share_is_done() const { return flow_.done().size() == context_.expected(); }

 private:
  enum class State : std::uint8_t {
    kOpen,
    kClosingAlone,  // the only replica's sum is the stage's; nobody has to say so
    kClosedAlone,   // … and good in every epoch in which it still is the only one
    kClosingOwn,    // a replica that steps on its own, for this epoch
    kReady,         // for this epoch
  };
  News pursue_alone(Time now);
  News pursue_own();
  bool agrees_on_its_share() const;

  WorkerContext& context_;
  const MicrobatchFlow& flow_;
  Combination& combination_;
  const OuterExchange& exchange_;
  const StateDonor& donor_;
  State state_ = State::kOpen;
  bool alone_ = false;  // the sum was closed alone
  EpochId epoch_;       // of kClosingOwn and kReady
  std::optional<protocol::PrepareDone> sum_;
};

}  // namespace isthmus::router
