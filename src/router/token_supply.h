#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>

#include "router/worker_context.h"

namespace isthmus::router {

// The token ids that a head reads. Only the coordinator has the shards, and it is as far away as anybody: what the next
// steps need is asked for while this one runs, so that none of them waits. Of each step behind, a head expects the
// training microbatches that it has now; evaluations all read the same, so they are asked for once and kept. At most
// protocol::samples_max() of them, here or asked for. Only at the first stage; one per worker.
class TokenSupply {
 public:
  explicit TokenSupply(WorkerContext& context) : context_(context) {}

  // `own`: the training microbatches of the step that run here; if nobody else serves the stage, all do. Asks for what
  // was not asked for yet, and drops what is of other steps.
  void want(StepId step, const std::set<MicrobatchId>& own, Time now);
  // Nothing is wanted any more.
  void clear() { samples_.clear(); }

  // What the step's microbatch reads, sealed; null: it is not here. Valid until the next call that is not const.
  const compress::EncodedTensor* find(StepId step, MicrobatchId m) const;

  // False if nobody asked for it, it is here already, or it cannot be what was asked for.
  bool received(const protocol::TokenIds& ids);
  // The connection to the coordinator was made anew: what was asked, or answered, may be lost.
  void ask_anew(Time now);
  // Asks again for what has not come for long.
  void tick(Time now);
  Time next_due() const;

  std::size_t size() const { return samples_.size(); }

 private:
  struct Asked {
    Time at = kNever;  // not yet
    std::optional<compress::EncodedTensor> ids;
  };
  void ask(Time now);
  bool is_due(const Asked& asked, Time now) const {
    return !asked.ids && (asked.at == kNever || asked.at + context_.identity.ask_after <= now);
  }

  WorkerContext& context_;
  std::map<protocol::Sample, Asked> samples_;
};

}  // namespace isthmus::router
