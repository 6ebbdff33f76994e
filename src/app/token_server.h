#pragma once

#include <optional>
#include <utility>
#include <vector>

#include "base/result.h"
#include "data/token_source.h"
#include "protocol/message.h"
#include "protocol/plan.h"
#include "scheduler/coordinator/token_desk.h"
#include "spec/run_config.h"

namespace isthmus::app {

// The token ids of a run, for its heads: of the shards, which lie with the coordinator alone, or of emulated devices,
// whose samples only name themselves. One thread.
class TokenServer {
 public:
  // Errors: a shard that is missing, broken, or not the run's; the message names the file.
  static Result<TokenServer> open(const spec::RunConfig& run);

  // Who gets which, and when.
  coordinator::TokenDesk& desk() { return desk_; }
  // What leaves now.
  std::vector<std::pair<PeerId, protocol::TokenIds>> answers(const coordinator::Decisions& decisions, Time now);

 private:
  TokenServer(const spec::RunConfig& run, std::optional<data::TokenSource> source);
  Bytes draw(const protocol::Sample& sample) const;

  spec::RunSpec run_;
  protocol::Plan plan_;
  std::optional<data::TokenSource> source_;  // none: devices are emulated
  coordinator::TokenDesk desk_;
};

}  // namespace isthmus::app
