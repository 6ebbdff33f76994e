#include "lab/sweep_results.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "scheduler/planner/make_plan.h"
#include "scheduler/planner/step_simulation.h"
#include "spec/boundary_form.h"

namespace isthmus::lab {

using nlohmann::json;

namespace {

Spread spread_of(const std::vector<double>& values) {
  Spread spread{0, values.front(), values.front()};
  for (const double v : values) {
    spread.mean += v / static_cast<double>(values.size());
    spread.least = std::min(spread.least, v);
    spread.most = std::max(spread.most, v);
  }
  return spread;
}

// In percent.
double gap(const LocalRunResult& run, const LocalRunResult& reference) {
  return (run.validation_loss / reference.validation_loss - 1) * 100;
}

// Over the seeds that both rows have.
std::optional<Spread> gap_of(const SweepRuns& runs, std::size_t row, std::optional<std::size_t> reference) {
  if (!reference) return std::nullopt;
  std::vector<double> gaps;
  for (std::size_t s = 0; s < runs[row].size(); ++s)
    if (runs[row][s] && runs[*reference][s]) gaps.push_back(gap(*runs[row][s], *runs[*reference][s]));
  if (gaps.empty()) return std::nullopt;
  return spread_of(gaps);
}

// Stretches into which the steps of a run are divided.
constexpr std::size_t kStretches = 16;

// In percent, of the steps [first, end) that neither skipped; nothing if there are none.
std::optional<double> training_gap(const LocalRunResult& run, const LocalRunResult& reference, std::size_t first,
                                   std::size_t end) {
  double sum = 0, other = 0;
  for (std::size_t i = first; i < std::min({end, run.curve.size(), reference.curve.size()}); ++i) {
    if (run.curve[i].skipped || reference.curve[i].skipped) continue;
    sum += run.curve[i].loss;
    other += reference.curve[i].loss;
  }
  if (other == 0) return std::nullopt;
  return (sum / other - 1) * 100;
}

std::vector<SweepRow::TrainingGap> training_gaps_of(const SweepRuns& runs, std::size_t row,
                                                    std::optional<std::size_t> reference, std::size_t steps) {
  std::vector<SweepRow::TrainingGap> gaps;
  if (!reference || *reference == row) return gaps;
  const std::size_t stretches = std::min(steps, kStretches);
  for (std::size_t i = 0; i < stretches; ++i) {
    const std::size_t first = steps * i / stretches, end = steps * (i + 1) / stretches;
    std::vector<double> percent;
    for (std::size_t s = 0; s < runs[row].size(); ++s)
      if (const auto &run = runs[row][s], &other = runs[*reference][s]; run && other)
        if (const auto gap = training_gap(*run, *other, first, end)) percent.push_back(*gap);
    gaps.push_back({first + 1, end, percent.size(), percent.empty() ? Spread{} : spread_of(percent)});
  }
  return gaps;
}

std::vector<SweepRow::Evaluation> evaluations_of(const std::vector<const LocalRunResult*>& runs) {
  std::vector<SweepRow::Evaluation> evaluations;
  const auto hops = static_cast<double>(std::max<std::size_t>(1, runs.front()->stages.size() - 1));
  for (std::size_t p = 0; p < runs.front()->curve.size(); ++p) {
    const auto& point = runs.front()->curve[p];
    if (!point.validation_loss) continue;
    std::vector<double> losses;
    for (const auto* run : runs)
      if (p < run->curve.size() && run->curve[p].validation_loss) losses.push_back(*run->curve[p].validation_loss);
    evaluations.push_back({point.step, point.tokens, static_cast<double>(point.bytes) / hops, spread_of(losses)});
  }
  return evaluations;
}

json json_of(const Spread& spread) {
  return {{"mean", spread.mean}, {"least", spread.least}, {"most", spread.most}, {"half_range", spread.half_range()}};
}

json json_of(const config::SweepConfig::Link& link) {
  return {{"bandwidth_mbps", link.bandwidth_mbps}, {"latency_ms", link.latency_ms}};
}

}  // namespace

double predicted_step_seconds(const spec::RunConfig& run, const config::SweepConfig::Link& link,
                              const LocalRunResult& result) {
  planner::StepSimulationInput input;
  input.plan = planner::make_plan(run);
  input.link.bits_per_second = link.bandwidth_mbps * 1e6;
  input.link.latency = seconds(link.latency_ms * 1e-3);
  double update = 0;
  for (std::size_t s = 0; s < input.plan.stages.size(); ++s) {
    const auto& measured = result.stages.at(s);
    const protocol::OperationCosts costs{seconds(measured.forward_seconds), seconds(measured.input_gradient_seconds),
                                         seconds(measured.weight_gradient_seconds)};
    input.costs.insert(input.costs.end(), input.plan.stages[s].replicas, costs);
    update = std::max(update, measured.update_seconds);
  }
  // The next step begins when the slowest optimizer is done.
  input.commit += seconds(update);
  return to_seconds(planner::simulate_step(input).step);
}

SweepResults sweep_results(const config::SweepConfig& sweep, const SweepRuns& runs) {
  SweepResults results;
  results.name = sweep.name;
  results.links = sweep.links;
  results.seeds = sweep.seeds;
  if (sweep.baseline) results.baseline = sweep.row[*sweep.baseline].name;
  const spec::RunConfig& first = sweep.row.front().runs.front();
  results.steps = first.run.steps;
  const protocol::Plan plan = planner::make_plan(first);
  results.tokens = plan.steps * plan.microbatches * plan.tokens_per_microbatch;
  results.uniform_loss = std::log(static_cast<double>(first.model.vocabulary));
  for (std::size_t r = 0; r < sweep.row.size(); ++r) {
    const spec::RunConfig& run = sweep.row[r].runs.front();
    SweepRow& row = results.rows.emplace_back();
    row.name = sweep.row[r].name;
    row.codec = run.boundary.codec;
    row.values = run.boundary.values;
    row.columns = spec::boundary_form(run.boundary.codec).narrow ? run.boundary.rank : run.model.hidden;
    if (const auto reference = sweep.row[r].reference) row.reference = sweep.row[*reference].name;
    std::vector<const LocalRunResult*> there;
    for (const auto& result : runs[r])
      if (result) there.push_back(&*result);
    row.seeds = there.size();
    if (there.empty()) continue;
    row.forward_bytes = there.front()->forward_bytes;
    row.backward_bytes = there.front()->backward_bytes;
    row.token_bytes = there.front()->token_bytes;
    const auto dense = sweep.row[r].reference ? *sweep.row[r].reference : sweep.baseline.value_or(r);
    if (const double payload = row.forward_bytes + row.backward_bytes; payload > 0)
      row.dense_ratio = 4.0 * sweep.row[dense].runs.front().model.hidden / payload;
    row.parameters = there.front()->parameters;
    std::vector<double> losses;
    for (const auto* result : there) losses.push_back(result->validation_loss);
    row.validation_loss = spread_of(losses);
    row.reference_gap = gap_of(runs, r, sweep.row[r].reference);
    row.baseline_gap = gap_of(runs, r, sweep.baseline);
    for (const auto& link : sweep.links) {
      std::vector<double> steps;
      for (const auto* result : there) steps.push_back(predicted_step_seconds(run, link, *result));
      row.step_seconds.push_back(spread_of(steps).mean);
    }
    row.evaluations = evaluations_of(there);
    row.training_gaps = training_gaps_of(runs, r, sweep.row[r].reference, results.steps);
  }
  return results;
}

std::string results_lines(const config::SweepConfig& sweep, const SweepRuns& runs) {
  std::string lines;
  for (std::size_t r = 0; r < sweep.row.size(); ++r)
    for (std::size_t s = 0; s < sweep.seeds.size(); ++s) {
      const auto& result = runs[r][s];
      if (!result) continue;
      json line = to_json(*result);
      line["row"] = sweep.row[r].name;
      line["seed"] = sweep.seeds[s];
      const auto add_gap = [&](const char* key, std::optional<std::size_t> to) {
        if (to && runs[*to][s]) line[key] = {{"row", sweep.row[*to].name}, {"percent", gap(*result, *runs[*to][s])}};
      };
      add_gap("reference_gap", sweep.row[r].reference);
      add_gap("baseline_gap", sweep.baseline);
      for (const auto& link : sweep.links) {
        json predicted = json_of(link);
        const double step = predicted_step_seconds(sweep.row[r].runs[s], link, *result);
        predicted["predicted_step_seconds"] = step;
        predicted["predicted_seconds"] = step * static_cast<double>(result->curve.size());
        line["links"].push_back(std::move(predicted));
      }
      lines += line.dump() + "\n";
    }
  return lines;
}

json results_json(const SweepResults& results) {
  json rows = json::array();
  for (const auto& row : results.rows) {
    json entry = {{"row", row.name},
                  {"codec", row.codec},
                  {"values", row.values},
                  {"columns", row.columns},
                  {"seeds", row.seeds}};
    if (row.seeds > 0) {
      entry["bytes_per_token_hop"] = {
          {"forward", row.forward_bytes}, {"backward", row.backward_bytes}, {"token_ids", row.token_bytes}};
      entry["dense_ratio"] = row.dense_ratio;
      entry["parameters"] = row.parameters;
      entry["validation_loss"] = json_of(row.validation_loss);
      if (row.reference_gap) entry["reference_gap_percent"] = json_of(*row.reference_gap);
      if (row.baseline_gap) entry["baseline_gap_percent"] = json_of(*row.baseline_gap);
      if (!row.reference.empty()) entry["reference"] = row.reference;
      entry["predicted_step_seconds"] = row.step_seconds;
      for (const auto& stretch : row.training_gaps) {
        if (stretch.seeds == 0) continue;
        json gap = json_of(stretch.percent);
        gap["seeds"] = stretch.seeds;
        gap["first_step"] = stretch.first_step;
        gap["last_step"] = stretch.last_step;
        entry["training_gap_percent"].push_back(std::move(gap));
      }
    }
    rows.push_back(std::move(entry));
  }
  json links = json::array();
  for (const auto& link : results.links) links.push_back(json_of(link));
  json out = {{"sweep", results.name},    {"seeds", results.seeds},    {"steps", results.steps},
              {"tokens", results.tokens}, {"links", std::move(links)}, {"rows", std::move(rows)}};
  if (!results.baseline.empty()) out["baseline"] = results.baseline;
  return out;
}

std::string loss_text(const Spread& loss, std::size_t seeds) {
  if (!std::isfinite(loss.mean)) return "diverged";
  return seeds > 1 ? fmt::format("{:.4f} ± {:.4f}", loss.mean, loss.half_range()) : fmt::format("{:.4f}", loss.mean);
}

std::string gap_text(const std::optional<Spread>& gap, std::size_t seeds) {
  if (!gap) return "–";
  if (!std::isfinite(gap->mean)) return "diverged";
  // + 0.0: no -0.00
  const double mean = std::round(gap->mean * 100) / 100 + 0.0;
  return seeds > 1 ? fmt::format("{:+.2f} ± {:.2f}", mean, gap->half_range()) : fmt::format("{:+.2f}", mean);
}

std::string link_text(const config::SweepConfig::Link& link) {
  return fmt::format("{} Mb/s, {} ms", link.bandwidth_mbps, link.latency_ms);
}

namespace {

// Nothing without a row that has a reference.
std::string training_table(const SweepResults& results) {
  const auto first = std::ranges::find_if(results.rows, [](const SweepRow& row) { return !row.training_gaps.empty(); });
  if (first == results.rows.end()) return "";
  std::string text = "\n| training loss against the reference's, same batches, %; steps |", line = "\n|---|";
  for (const auto& stretch : first->training_gaps) {
    text += fmt::format(" {}–{} |", stretch.first_step, stretch.last_step);
    line += "--:|";
  }
  text += line + "\n";
  for (const auto& row : results.rows) {
    if (row.training_gaps.empty()) continue;
    text += fmt::format("| {} ({}) |", row.name, row.reference);
    for (const auto& stretch : row.training_gaps)
      text += fmt::format(" {} |", stretch.seeds == 0 ? "–" : gap_text(stretch.percent, stretch.seeds));
    text += "\n";
  }
  return text;
}

}  // namespace

std::string results_table(const SweepResults& results) {
  std::string text = fmt::format(
      "| row | codec | numbers | values | B/token/hop | less than dense bf16 | validation loss | seeds | gap to "
      "reference, % | {} parameters |",
      results.baseline.empty() ? "" : fmt::format("gap to {}, % |", results.baseline));
  for (const auto& link : results.links) text += fmt::format(" s/step at {} (predicted) |", link_text(link));
  const auto columns = std::count(text.begin(), text.end(), '|') - 1;
  text += "\n|---|---|";
  for (int i = 2; i < columns; ++i) text += "--:|";
  text += "\n";
  for (const auto& row : results.rows) {
    text += fmt::format("| {} | {} | {} | {} |", row.name, row.codec, row.columns, row.values);
    if (row.seeds == 0) {
      for (int i = 4; i < columns; ++i) text += " – |";
      text += "\n";
      continue;
    }
    const std::string reference = row.reference.empty() || row.reference == row.name
                                      ? "–"
                                      : fmt::format("{} ({})", gap_text(row.reference_gap, row.seeds), row.reference);
    text += fmt::format(" {:.4g} + {:.4g} | {} | {} | {} | {} |", row.forward_bytes, row.backward_bytes,
                        row.dense_ratio > 0 ? fmt::format("{:.3g}×", row.dense_ratio) : "–",
                        loss_text(row.validation_loss, row.seeds), row.seeds, reference);
    if (!results.baseline.empty())
      text += fmt::format(" {} |", row.name == results.baseline ? "–" : gap_text(row.baseline_gap, row.seeds));
    text += fmt::format(" {} |", row.parameters);
    for (const double step : row.step_seconds) text += fmt::format(" {:.3g} |", step);
    text += "\n";
  }
  return text + training_table(results);
}

}  // namespace isthmus::lab
