#include "record/run_record.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>

#include "base/version.h"
#include "config/load_run.h"
#include "protocol/step_paths.h"
#include "spec/learning_rate.h"

namespace isthmus::record {

using nlohmann::json;

RunRecord::RunRecord(const RunFolder& folder, const spec::RunConfig& run, const protocol::Plan& plan, LineFile metrics,
                     LineFile events)
    : folder_(folder), run_(run), plan_(plan), metrics_(std::move(metrics)), events_(std::move(events)) {}

Result<RunRecord> RunRecord::open(const RunFolder& folder, const spec::RunConfig& run, const protocol::Plan& plan,
                                  std::uint64_t version, Time start) {
  auto metrics = LineFile::open(folder.metrics());
  if (!metrics) return tl::unexpected(metrics.error());
  auto events = LineFile::open(folder.events());
  if (!events) return tl::unexpected(events.error());
  RunRecord record(folder, run, plan, std::move(*metrics), std::move(*events));
  record.figures_.step = StepId(version);
  record.start_ = record.step_began_ = start;
  const auto text = read_whole(folder.metrics(), kLogBytesMax);
  if (!text) return tl::unexpected(text.error());
  record.resume_from(*text);
  return record;
}

void RunRecord::resume_from(const std::string& metrics) {
  seconds_before_ = 0;
  figures_.tokens = 0;
  figures_.loss.reset();
  figures_.validation_loss.reset();
  stepped_tokens_ = wire_bytes_total_ = 0;
  stepped_seconds_ = 0;
  std::istringstream lines(metrics);
  for (std::string line; std::getline(lines, line);) {
    const auto j = json::parse(line, nullptr, false);
    if (!j.is_object()) continue;
    seconds_before_ = j.value("seconds", seconds_before_);
    figures_.tokens = j.value("tokens", figures_.tokens);
    if (j.contains("loss")) {
      // One that was not finite is written as null.
      figures_.loss = j["loss"].is_number() ? j["loss"].get<double>() : std::nan("");
      stepped_seconds_ += j.value("step_seconds", 0.0);
      wire_bytes_total_ += j.value("wire_bytes", std::uint64_t{0});
      figures_.step = StepId(j.value("step", std::uint64_t{0}));
    }
    if (j.contains("validation_loss") && j["validation_loss"].is_number())
      figures_.validation_loss = j["validation_loss"];
  }
}

Status RunRecord::take_up(const std::vector<coordinator::LogRecord>& log) {
  std::size_t first = 0;
  for (std::size_t i = 0; i < log.size(); ++i)
    if (std::holds_alternative<coordinator::InitRecord>(log[i]) ||
        std::holds_alternative<coordinator::RollbackRecord>(log[i]))
      first = i;
  for (std::size_t i = first; i < log.size(); ++i) {
    const auto* commit = std::get_if<coordinator::CommitRecord>(&log[i]);
    if (!commit || commit->commit.step <= figures_.step || plan_.training_count(commit->commit.step) == 0) continue;
    figures_.step = commit->commit.step;
    figures_.loss = commit->figures.loss;
    figures_.grad_norm = commit->figures.grad_norm;
    figures_.tokens += commit->figures.tokens;
    json line = {{"step", figures_.step.value},
                 {"tokens", figures_.tokens},
                 {"loss", commit->figures.loss},
                 {"grad_norm", figures_.grad_norm},
                 {"learning_rate", spec::learning_rate(run_, figures_.step)},
                 {"seconds", seconds_before_},
                 {"replayed_microbatches", commit->figures.replayed}};
    if (!commit->commit.apply) line["skipped_step"] = true;
    if (const auto written = metrics_.append(line.dump()); !written) return written;
  }
  return {};
}

Status RunRecord::rolled_back(std::uint64_t version) {
  const auto kept = metrics_until(folder_.metrics(), version);
  if (!kept) return tl::unexpected(kept.error());
  if (auto written = write_whole(folder_.metrics(), *kept); !written) return written;
  auto metrics = LineFile::open(folder_.metrics());
  if (!metrics) return tl::unexpected(metrics.error());
  metrics_ = std::move(*metrics);
  const double seconds = seconds_before_;
  resume_from(*kept);
  seconds_before_ = seconds;  // the time is spent all the same
  figures_.step = StepId(version);
  return {};
}

Status RunRecord::committed(const coordinator::StepOutcome& outcome, Time now) {
  const StepId step = outcome.commit.step;
  std::uint64_t wire_bytes = 0;
  double slowest = 0;
  for (const auto& [peer, stats] : outcome.stats) {
    protocol::WorkerStats before = std::exchange(last_stats_[peer], stats);
    // A worker that took another's place counts from zero.
    if (stats.control_bytes_sent < before.control_bytes_sent) before = protocol::WorkerStats();
    wire_bytes += stats.boundary_bytes_sent - before.boundary_bytes_sent;
    control_bytes_total_ += stats.control_bytes_sent - before.control_bytes_sent;
    sync_bytes_total_ += stats.sync_bytes_sent - before.sync_bytes_sent;
    state_bytes_total_ += stats.state_bytes_sent - before.state_bytes_sent;
    const auto busy = [](const protocol::WorkerStats& s) {
      return s.forward_ns + s.input_gradient_ns + s.weight_gradient_ns + s.optimizer_ns;
    };
    slowest = std::max(slowest, static_cast<double>(busy(stats) - busy(before)) * 1e-9);
  }
  const double step_seconds = to_seconds(now - std::exchange(step_began_, now));
  figures_.seconds = seconds_before_ + to_seconds(now - start_);

  if (outcome.figures.validation_loss) {
    figures_.validation_loss = outcome.figures.validation_loss;
    figures_.validation_step = std::min(step.value - 1, plan_.steps);
    const auto written = metrics_.append(json{
        {"step", figures_.validation_step},
        {"tokens", figures_.tokens},
        {"seconds", figures_.seconds},
        {"validation_loss",
         *outcome.figures.validation_loss}}.dump());
    if (!written) return written;
  }
  if (plan_.training_count(step) == 0) return {};

  figures_.step = step;
  figures_.loss = outcome.figures.loss;
  figures_.grad_norm = outcome.figures.grad_norm;
  figures_.tokens += outcome.figures.tokens;
  figures_.step_seconds = step_seconds;
  figures_.tokens_per_second = static_cast<double>(outcome.figures.tokens) / step_seconds;
  figures_.wire_bytes = wire_bytes;
  // A step that also evaluates sends more; the share of its training microbatches goes by payload.
  const double forward = static_cast<double>(plan_.token_bytes + plan_.forward_bytes);
  const double trained = plan_.training_count(step) * (forward + static_cast<double>(plan_.backward_bytes));
  const double evaluated = plan_.evaluation_count(step) * forward;
  const auto hops = static_cast<double>(plan_.stages.size() - 1);
  if (hops > 0 && trained > 0 && outcome.figures.tokens > 0)
    figures_.wire_bytes_per_token_hop = static_cast<double>(wire_bytes) * trained / (trained + evaluated) / hops /
                                        static_cast<double>(outcome.figures.tokens);
  device_bound_seconds_ += slowest;
  stepped_seconds_ += step_seconds;
  stepped_tokens_ += outcome.figures.tokens;
  wire_bytes_total_ += wire_bytes;
  const protocol::StepPaths paths(plan_, step, outcome.commit.absent);
  std::vector<std::uint32_t> coverage;
  for (std::uint32_t s = 0; s < plan_.stages.size(); ++s) coverage.push_back(paths.training_count(StageId(s)));
  json line = {{"step", step.value},
               {"tokens", figures_.tokens},
               {"loss", outcome.figures.loss},
               {"grad_norm", outcome.figures.grad_norm},
               {"learning_rate", spec::learning_rate(run_, step)},
               {"seconds", figures_.seconds},
               {"step_seconds", step_seconds},
               {"tokens_per_second", figures_.tokens_per_second},
               {"wire_bytes", wire_bytes},
               {"wire_bytes_per_token_hop", figures_.wire_bytes_per_token_hop},
               {"skipped_microbatches", paths.skipped()},
               {"skip_ratio", paths.skip_ratio()},
               {"coverage", coverage},
               {"replayed_microbatches", outcome.figures.replayed}};
  if (!outcome.commit.apply) line["skipped_step"] = true;
  return metrics_.append(line.dump());
}

Status RunRecord::happened(const coordinator::Happened& happened, std::uint64_t time_us) {
  json line = {{"time_us", time_us},
               {"event", coordinator::name_of(happened.event)},
               {"step", happened.step.value},
               {"peer", coordinator::peer_of(happened.event).value},
               {"reason", coordinator::text_of(happened.event)}};
  // What programs would otherwise read out of the words.
  std::visit(
      [&](const auto& e) {
        if constexpr (requires { e.place; }) {
          line["stage"] = e.place.stage.value;
          line["replica"] = e.place.replica.value;
        }
        if constexpr (requires { e.stage; }) line["stage"] = e.stage.value;
        if constexpr (std::is_same_v<std::decay_t<decltype(e)>, coordinator::events::Joining>) {
          if (e.version) line["version"] = *e.version;
        } else if constexpr (requires { e.version; }) {
          line["version"] = e.version;
        }
      },
      happened.event);
  return events_.append(line.dump());
}

Status RunRecord::ended(const coordinator::RunEnded& end, Time now) {
  const double seconds = seconds_before_ + to_seconds(now - start_);
  json summary = {
      {"name", run_.run.name},
      {"finished", end.finished},
      {"reason", end.reason},
      {"steps", std::min(end.version, run_.run.steps)},
      {"tokens", figures_.tokens},
      {"loss", figures_.loss ? json(*figures_.loss) : json()},
      {"validation_loss", figures_.validation_loss ? json(*figures_.validation_loss) : json()},
      {"seconds", seconds},
      {"tokens_per_second", stepped_seconds_ > 0 ? static_cast<double>(stepped_tokens_) / stepped_seconds_ : 0.0},
      {"wire_bytes", wire_bytes_total_},
      {"wire_bytes_per_token_hop", figures_.wire_bytes_per_token_hop},
      {"control_bytes", control_bytes_total_},
      {"sync_bytes", sync_bytes_total_},
      {"state_bytes", state_bytes_total_},
      {"efficiency", stepped_seconds_ > 0 ? device_bound_seconds_ / stepped_seconds_ : 0.0},
      {"weights_hash", end.weights_hash},
      {"versions", {{"isthmus", kVersion}, {"libtorch", kTorchVersion}}},
      {"config", json::parse(config::resolved_json(run_))}};
  return write_whole(folder_.summary(), summary.dump(2) + "\n");
}

}  // namespace isthmus::record
