#include "app/run_record.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>

#include "config/load_run.h"
#include "scheduler/learning_rate.h"

namespace isthmus {

using nlohmann::json;

RunRecord::RunRecord(const RunFolder& folder, const RunConfig& run, const Plan& plan,
                     LineFile metrics, LineFile events)
    : folder_(folder),
      run_(run),
      plan_(plan),
      metrics_(std::move(metrics)),
      events_(std::move(events)) {}

Result<RunRecord> RunRecord::open(const RunFolder& folder, const RunConfig& run, const Plan& plan,
                                  std::uint64_t version, Time start) {
  auto metrics = LineFile::open(folder.metrics());
  if (!metrics) return tl::unexpected(metrics.error());
  auto events = LineFile::open(folder.events());
  if (!events) return tl::unexpected(events.error());
  RunRecord record(folder, run, plan, std::move(*metrics), std::move(*events));
  record.figures_.step = StepId(version);
  record.start_ = record.step_began_ = start;
  const auto text = read_whole(folder.metrics());
  if (!text) return tl::unexpected(text.error());
  record.resume_from(*text);
  return record;
}

void RunRecord::resume_from(const std::string& metrics) {
  std::istringstream lines(metrics);
  for (std::string line; std::getline(lines, line);) {
    const auto j = json::parse(line, nullptr, false);
    if (!j.is_object()) continue;
    seconds_before_ = j.value("seconds", seconds_before_);
    figures_.tokens = j.value("tokens", figures_.tokens);
    figures_.loss = j.value("loss", figures_.loss);
    if (j.contains("validation_loss") && j["validation_loss"].is_number())
      figures_.validation_loss = j["validation_loss"];
  }
}

Status RunRecord::committed(const StepOutcome& outcome, Time now) {
  const StepId step = outcome.commit.step;
  std::uint64_t wire_bytes = 0;
  double slowest = 0;
  for (const auto& [peer, stats] : outcome.stats) {
    const WorkerStats before = std::exchange(last_stats_[peer], stats);
    wire_bytes += stats.boundary_bytes_sent - before.boundary_bytes_sent;
    control_bytes_total_ += stats.control_bytes_sent - before.control_bytes_sent;
    const auto busy = [](const WorkerStats& s) {
      return s.forward_ns + s.input_gradient_ns + s.weight_gradient_ns + s.optimizer_ns;
    };
    slowest = std::max(slowest, static_cast<double>(busy(stats) - busy(before)) * 1e-9);
  }
  const double step_seconds = to_seconds(now - std::exchange(step_began_, now));
  figures_.seconds = seconds_before_ + to_seconds(now - start_);

  if (outcome.validation_loss) {
    figures_.validation_loss = outcome.validation_loss;
    figures_.validation_step = step.value - 1;
    const auto written = metrics_.append(json{{"step", step.value - 1},
                                              {"tokens", figures_.tokens},
                                              {"seconds", figures_.seconds},
                                              {"validation_loss", *outcome.validation_loss}}
                                             .dump());
    if (!written) return written;
  }
  if (step == plan_.final_step()) return {};

  figures_.step = step;
  figures_.loss = outcome.loss;
  figures_.grad_norm = outcome.grad_norm;
  figures_.tokens += outcome.tokens;
  figures_.step_seconds = step_seconds;
  figures_.tokens_per_second = static_cast<double>(outcome.tokens) / step_seconds;
  figures_.wire_bytes = wire_bytes;
  // A step that also evaluates sends more; the share of its training microbatches goes by payload.
  const double forward = static_cast<double>(plan_.token_bytes + plan_.forward_bytes);
  const double trained = plan_.training_count(step) * (forward + static_cast<double>(plan_.backward_bytes));
  const double evaluated = plan_.evaluation_count(step) * forward;
  const auto hops = static_cast<double>(plan_.stages.size() - 1);
  if (hops > 0 && trained > 0 && outcome.tokens > 0)
    figures_.wire_bytes_per_token_hop = static_cast<double>(wire_bytes) * trained /
                                        (trained + evaluated) / hops /
                                        static_cast<double>(outcome.tokens);
  device_bound_seconds_ += slowest;
  stepped_seconds_ += step_seconds;
  stepped_tokens_ += outcome.tokens;
  wire_bytes_total_ += wire_bytes;
  json line = {{"step", step.value},
               {"tokens", figures_.tokens},
               {"loss", outcome.loss},
               {"grad_norm", outcome.grad_norm},
               {"learning_rate", learning_rate(run_, step)},
               {"seconds", figures_.seconds},
               {"step_seconds", step_seconds},
               {"tokens_per_second", figures_.tokens_per_second},
               {"wire_bytes", wire_bytes},
               {"wire_bytes_per_token_hop", figures_.wire_bytes_per_token_hop},
               {"skipped_microbatches", 0},
               {"replayed_microbatches", outcome.replayed}};
  if (!outcome.commit.apply) line["skipped_step"] = true;
  return metrics_.append(line.dump());
}

Status RunRecord::happened(const Happened& event, std::uint64_t time_us) {
  return events_.append(json{{"time_us", time_us},
                             {"event", event.event},
                             {"step", event.step.value},
                             {"peer", event.peer.value},
                             {"reason", event.reason}}
                            .dump());
}

Status RunRecord::ended(const RunEnded& end, Time now) {
  const double seconds = seconds_before_ + to_seconds(now - start_);
  json summary = {
      {"name", run_.run.name},
      {"finished", end.finished},
      {"reason", end.reason},
      {"steps", std::min(end.version, run_.run.steps)},
      {"tokens", figures_.tokens},
      {"loss", figures_.loss},
      {"validation_loss", figures_.validation_loss ? json(*figures_.validation_loss) : json()},
      {"seconds", seconds},
      {"tokens_per_second", stepped_seconds_ > 0 ? static_cast<double>(stepped_tokens_) / stepped_seconds_ : 0.0},
      {"wire_bytes", wire_bytes_total_},
      {"wire_bytes_per_token_hop", figures_.wire_bytes_per_token_hop},
      {"control_bytes", control_bytes_total_},
      {"efficiency", stepped_seconds_ > 0 ? device_bound_seconds_ / stepped_seconds_ : 0.0},
      {"weights_hash", end.weights_hash},
      {"versions", {{"isthmus", ISTHMUS_VERSION}, {"libtorch", ISTHMUS_TORCH_VERSION}}},
      {"config", json::parse(resolved_json(run_))}};
  return write_whole(folder_.summary(), summary.dump(2) + "\n");
}

}  // namespace isthmus
