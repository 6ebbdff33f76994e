#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "config/sweep_config.h"
#include "lab/local_run.h"

namespace isthmus::lab {

// One figure over the seeds.
struct Spread {
  double mean = 0;
  double least = 0;
  double most = 0;
  double half_range() const { return (most - least) / 2; }
};

// A row of a sweep, over the seeds whose runs are there.
struct SweepRow {
  std::string name;
  std::string codec;
  std::string values;         // format on the wire
  std::uint32_t columns = 0;  // numbers per token at a boundary
  // Payload per token and hop. `dense_ratio`: of bf16 hidden states both ways, of the reference's hidden size, to
  // forward + backward; 0 if nothing crosses.
  double forward_bytes = 0;
  double backward_bytes = 0;
  double token_bytes = 0;
  double dense_ratio = 0;
  std::uint64_t parameters = 0;
  std::size_t seeds = 0;   // runs that are there; the rest is only sound if there are any
  Spread validation_loss;  // of the final weights, nats per token
  // Loss over that of the reference (baseline) with the same seed, minus 1, in percent.
  std::string reference;
  std::optional<Spread> reference_gap;
  std::optional<Spread> baseline_gap;
  std::vector<double> step_seconds;  // per link, predicted; mean over the seeds

  struct Evaluation {
    std::uint64_t step = 0;
    std::uint64_t tokens = 0;
    double hop_bytes = 0;  // payload over one boundary so far, both ways, token ids included
    Spread loss;
  };
  std::vector<Evaluation> evaluations;

  // Mean training loss of these steps over that of the reference with the same seed, minus 1, in percent; steps that
  // either skipped as bad are left out of both. They took the same batches, so it tells apart what a few validation
  // batches cannot.
  struct TrainingGap {
    std::uint64_t first_step = 0;
    std::uint64_t last_step = 0;
    std::size_t seeds = 0;  // that both have; the rest is only sound if there are any
    Spread percent;
  };
  std::vector<TrainingGap> training_gaps;  // in order, every step in one; empty without a reference
};

struct SweepResults {
  std::string name;
  std::vector<config::SweepConfig::Link> links;
  std::vector<std::uint64_t> seeds;
  std::string baseline;  // name; empty: none
  std::uint64_t steps = 0;
  std::uint64_t tokens = 0;
  double uniform_loss = 0;  // of a guess that knows nothing, nats
  std::vector<SweepRow> rows;
};

// Seconds of a training step over this link, predicted: the event simulation with the compute times that the run's
// stages were measured to have. Evaluations are not in it.
double predicted_step_seconds(const spec::RunConfig& run, const config::SweepConfig::Link& link,
                              const LocalRunResult& result);

// `results[row][seed index]`: nothing where the run failed or has not been made.
using SweepRuns = std::vector<std::vector<std::optional<LocalRunResult>>>;
SweepResults sweep_results(const config::SweepConfig& sweep, const SweepRuns& runs);

// results.jsonl: a line for each run that is there.
std::string results_lines(const config::SweepConfig& sweep, const SweepRuns& runs);
std::string results_table(const SweepResults& results);  // table.md
nlohmann::json results_json(const SweepResults& results);

// "1.8269 ± 0.0031", "+2.1 ± 0.4": the table's and the report's way to write a figure; "diverged" if it is none.
std::string loss_text(const Spread& loss, std::size_t seeds);
std::string gap_text(const std::optional<Spread>& gap, std::size_t seeds);
std::string link_text(const config::SweepConfig::Link& link);

}  // namespace isthmus::lab
