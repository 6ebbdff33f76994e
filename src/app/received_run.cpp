#include "app/received_run.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include "config/config_file.h"
#include "config/load_run.h"
#include "scheduler/planner/make_plan.h"

namespace isthmus::app {

Result<ReceivedRun> receive_run(const std::string& spec, std::uint64_t run_id, const std::string& invite,
                                const OwnSettings& own) {
  const auto sent = config::parse_run(spec, "the run's spec");
  if (!sent) return fail("{}; install the coordinator's version", sent.error().front().text());
  if (const std::uint64_t is = planner::make_plan(*sent).run_id; is != run_id)
    return fail("the coordinator sent the spec of run {:016x}, {} is for run {:016x}", is, invite, run_id);
  config::RunSource source{spec, "the run's spec", own.overrides};
  if (!own.host.empty()) {
    const auto host = config::config_file_text(own.host, "a host file");
    if (!host) return fail("{}", host.error().text());
    source.host = config::FileText{*host, own.host};
  }
  auto run = config::parse_run(source);
  if (!run) return fail("{}", run.error().front().text());
  ReceivedRun received{std::move(*run), {}};
  received.plan = planner::make_plan(received.run);
  if (received.plan.run_id != run_id)
    return fail("this machine's settings would make it another run; {}: the run's / here",
                fmt::join(config::differences(*sent, received.run), "; "));
  return received;
}

Duration ask_after(const spec::RunConfig& run, const protocol::Plan& plan) {
  const double bytes = static_cast<double>(plan.token_bytes + plan.forward_bytes + plan.backward_bytes) *
                       (plan.microbatches + plan.evaluation_microbatches);
  return seconds(std::max(2.0, 2.0 * bytes * 8e-6 / run.link.bandwidth_mbps));
}

}  // namespace isthmus::app
