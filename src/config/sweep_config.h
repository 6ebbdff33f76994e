#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <tl/expected.hpp>
#include <vector>

#include "config/load_run.h"
#include "spec/run_config.h"

namespace isthmus::config {

// A stage that nobody serves in some steps of a run, so that they go without it (protocol/step_paths.h).
struct Absence {
  std::uint32_t stage = 0;  // neither the first nor the last
  std::uint64_t from = 1;   // step
  std::uint64_t steps = 0;
  bool covers(std::uint64_t step) const { return step >= from && step - from < steps; }
  friend bool operator==(const Absence&, const Absence&) = default;
};

// Many runs under one protocol, as the sweep file says it: every row with every seed, on equal tokens in equal order.
// Filled and checked by load_sweep; const from then on.
struct SweepConfig {
  struct Link {
    double bandwidth_mbps = 80;
    double latency_ms = 50;  // one way
    friend bool operator==(const Link&, const Link&) = default;
  };
  struct Row {
    std::string name;
    std::optional<Absence> absence;
    std::optional<std::size_t> reference;  // index of the row that its gap is measured against
    std::vector<spec::RunConfig> runs;     // resolved, one per seed
  };
  std::string name;  // the file's, without .toml
  std::vector<std::uint64_t> seeds;
  std::vector<Link> links;              // at least one
  std::optional<std::size_t> baseline;  // index of the row that the gaps of all rows are measured against
  std::vector<Row> row;
};

// Reads and checks a sweep file and the run of every row and seed; returns every problem at once. What is wrong with a
// row's run is told where its overrides stand, with its name, unless all rows have it. Rows must agree in what they
// train and are evaluated on. Every run has pipeline.threads = 1: as many runs as cores go side by side.
tl::expected<SweepConfig, std::vector<Problem>> load_sweep(const std::string& path);

}  // namespace isthmus::config
