#include "lab/local_run.h"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <exception>
#include <limits>

#include "base/version.h"
#include "config/load_run.h"
#include "lab/local_pipeline.h"
#include "process/clock.h"
#include "record/line_file.h"

namespace isthmus::lab {

using nlohmann::json;

namespace {

constexpr Duration kTell = std::chrono::milliseconds(250);

// JSON has no NaN: the writer makes it null.
double number_or_nan(const json& value) {
  return value.is_null() ? std::numeric_limits<double>::quiet_NaN() : value.get<double>();
}

void tell(const LocalRunOptions& options, const json& line) {
  if (options.progress_fd < 0) return;
  const std::string text = line.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
  [[maybe_unused]] const auto n = ::write(options.progress_fd, text.data(), text.size());
}

void add_summary(const LocalPipeline& pipeline, LocalRunResult& result) {
  const protocol::Plan& plan = pipeline.plan();
  for (const auto& stage : plan.stages) result.parameters += stage.parameters;
  const auto steps = static_cast<double>(plan.steps);
  const double microbatches = steps * plan.microbatches;
  const double tokens = microbatches * plan.tokens_per_microbatch;
  if (const auto hops = static_cast<double>(plan.stages.size() - 1); hops > 0) {
    result.forward_bytes = static_cast<double>(pipeline.traffic().forward) / tokens / hops;
    result.backward_bytes = static_cast<double>(pipeline.traffic().backward) / tokens / hops;
    result.token_bytes = static_cast<double>(pipeline.traffic().tokens) / tokens / hops;
  }
  for (const auto& time : pipeline.times()) {
    result.stages.push_back({to_seconds(time.forward) / microbatches, to_seconds(time.input_gradient) / microbatches,
                             to_seconds(time.weight_gradient) / microbatches, to_seconds(time.update) / steps});
    result.compute_seconds += to_seconds(time.forward + time.input_gradient + time.weight_gradient + time.update);
  }
  result.tokens_per_second = tokens / result.compute_seconds;
}

Result<LocalRunResult> compute(const spec::RunConfig& run, const LocalRunOptions& options) {
  auto pipeline = LocalPipeline::open(run, options.absence);
  if (!pipeline) return tl::unexpected(pipeline.error());
  LocalRunResult result;
  result.config = json::parse(config::resolved_json(run));
  result.absence = options.absence;
  std::uint64_t tokens = 0;
  Time told{};
  while (pipeline->last_step() < pipeline->plan().final_step()) {
    const auto step = pipeline->run_step();
    if (!step) return tl::unexpected(step.error());
    // An evaluation runs with the weights before the step.
    if (const auto& loss = step->figures.validation_loss) {
      if (!result.curve.empty()) result.curve.back().validation_loss = *loss;
      result.validation_loss = *loss;
    }
    if (pipeline->plan().training_count(pipeline->last_step()) == 0) continue;
    tokens += step->figures.tokens;
    result.curve.push_back({pipeline->last_step().value, tokens, step->figures.loss, std::nullopt,
                            pipeline->traffic().total(), !step->apply});
    if (const Time now = process::monotonic_now(); now - told >= kTell) {
      told = now;
      tell(options, {{"step", pipeline->last_step().value}, {"loss", step->figures.loss}});
    }
  }
  add_summary(*pipeline, result);
  return result;
}

Status run_and_write(const spec::RunConfig& run, const LocalRunOptions& options) {
  try {
    const auto result = compute(run, options);
    if (!result) return tl::unexpected(result.error());
    return record::write_whole(options.result, to_json(*result).dump() + "\n");
  } catch (const std::exception& error) {  // libtorch's
    return fail("computation failed: {}", error.what());
  }
}

}  // namespace

json to_json(const LocalRunResult& result) {
  json curve = json::array();
  for (const auto& point : result.curve) {
    json entry = {{"step", point.step}, {"tokens", point.tokens}, {"loss", point.loss}, {"bytes", point.bytes}};
    if (point.validation_loss) entry["validation_loss"] = *point.validation_loss;
    if (point.skipped) entry["skipped_step"] = true;
    curve.push_back(std::move(entry));
  }
  json stages = json::array();
  for (const auto& stage : result.stages)
    stages.push_back({{"forward_seconds", stage.forward_seconds},
                      {"input_gradient_seconds", stage.input_gradient_seconds},
                      {"weight_gradient_seconds", stage.weight_gradient_seconds},
                      {"update_seconds", stage.update_seconds}});
  json absent;
  if (const auto& absence = result.absence)
    absent = {{"stage", absence->stage}, {"from", absence->from}, {"steps", absence->steps}};
  return {{"validation_loss", result.validation_loss},
          {"absent", std::move(absent)},
          {"bytes_per_token_hop",
           {{"forward", result.forward_bytes}, {"backward", result.backward_bytes}, {"token_ids", result.token_bytes}}},
          {"parameters", result.parameters},
          {"compute_seconds", result.compute_seconds},
          {"tokens_per_second", result.tokens_per_second},
          {"stages", std::move(stages)},
          {"curve", std::move(curve)},
          {"versions", {{"isthmus", kVersion}, {"libtorch", kTorchVersion}}},
          {"config", result.config}};
}

Result<LocalRunResult> local_run_result(const json& j) {
  try {
    LocalRunResult result;
    result.config = j.at("config");
    if (const json absent = j.value("absent", json()); !absent.is_null())
      result.absence = config::Absence{absent.at("stage"), absent.at("from"), absent.at("steps")};
    result.validation_loss = number_or_nan(j.at("validation_loss"));
    const json& bytes = j.at("bytes_per_token_hop");
    result.forward_bytes = bytes.at("forward");
    result.backward_bytes = bytes.at("backward");
    result.token_bytes = bytes.at("token_ids");
    result.parameters = j.at("parameters");
    result.compute_seconds = j.at("compute_seconds");
    result.tokens_per_second = j.at("tokens_per_second");
    for (const auto& s : j.at("stages"))
      result.stages.push_back({s.at("forward_seconds"), s.at("input_gradient_seconds"), s.at("weight_gradient_seconds"),
                               s.at("update_seconds")});
    for (const auto& p : j.at("curve")) {
      LocalRunResult::Point point{p.at("step"), p.at("tokens"), number_or_nan(p.at("loss")),
                                  std::nullopt, p.at("bytes"),  p.value("skipped_step", false)};
      if (p.contains("validation_loss")) point.validation_loss = number_or_nan(p["validation_loss"]);
      result.curve.push_back(point);
    }
    return result;
  } catch (const json::exception& error) {
    return fail("not the result of a run: {}", error.what());
  }
}

int run_locally(const spec::RunConfig& run, const LocalRunOptions& options) {
  const Status done = run_and_write(run, options);
  if (done) return 0;
  tell(options, {{"error", done.error().message}});
  if (options.progress_fd < 0) spdlog::error("{}", done.error().message);
  return 1;
}

}  // namespace isthmus::lab
