#include "app/token_server.h"

#include <utility>

#include "scheduler/planner/make_plan.h"
#include "stage/emulated_stage.h"

namespace isthmus::app {

Result<TokenServer> TokenServer::open(const spec::RunConfig& run) {
  std::optional<data::TokenSource> source;
  if (!run.emulated.devices) {
    auto opened = data::TokenSource::open(run);
    if (!opened) return tl::unexpected(opened.error());
    source.emplace(std::move(*opened));
  }
  return TokenServer(run, std::move(source));
}

TokenServer::TokenServer(const spec::RunConfig& run, std::optional<data::TokenSource> source)
    : run_(run), plan_(planner::make_plan(run)), source_(std::move(source)), desk_(plan_, run.uplink()) {}

Bytes TokenServer::draw(const protocol::Sample& sample) const {
  if (!source_) return stage::emulated_tokens(run_, plan_, sample);
  return sample.step == protocol::kHeldOut ? source_->evaluation(sample.microbatch)
                                           : source_->training(sample.step, sample.microbatch);
}

std::vector<std::pair<PeerId, protocol::TokenIds>> TokenServer::answers(const coordinator::Decisions& decisions,
                                                                        Time now) {
  std::vector<std::pair<PeerId, protocol::TokenIds>> answers;
  for (const auto& [to, sample] : desk_.answers(decisions, now))
    answers.emplace_back(to, protocol::token_ids(sample, draw(sample)));
  return answers;
}

}  // namespace isthmus::app
