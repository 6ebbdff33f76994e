#include "scheduler/planner/step_grid.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <vector>

namespace isthmus::planner {

namespace {

constexpr std::size_t kColumns = 80;
constexpr std::size_t kRows = 48;
constexpr double kSpeck = 0.1;  // of the work in a row's fullest column

}  // namespace

std::string size_text(double bytes) {
  if (bytes >= 1e9) return fmt::format("{:.2f} GB", bytes / 1e9);
  if (bytes >= 1e6) return fmt::format("{:.1f} MB", bytes / 1e6);
  return fmt::format("{:.1f} kB", bytes / 1e3);
}

std::string time_text(double seconds) {
  if (seconds >= 1) return fmt::format("{:.2f} s", seconds);
  if (seconds >= 1e-3) return fmt::format("{:.3g} ms", seconds * 1e3);
  return fmt::format("{:.3g} µs", seconds * 1e6);
}

std::string worker_name(const protocol::Plan& plan, const WorkerSimulation& worker) {
  const bool alone = plan.stages[worker.stage.value].replicas == 1;
  return alone ? fmt::format("{}", worker.stage) : fmt::format("{}.{}", worker.stage, worker.replica);
}

std::string step_grid(const StepSimulation& simulation, const protocol::Plan& plan) {
  std::vector<std::vector<Span>> spans(simulation.workers.size());
  for (const auto& span : simulation.spans) spans[span.worker].push_back(span);
  std::vector<std::size_t> shown;
  for (std::size_t w = 0; w < simulation.workers.size(); ++w) {
    const auto& worker = simulation.workers[w];
    const bool sibling = !shown.empty() && simulation.workers[shown.back()].stage == worker.stage;
    if (simulation.workers.size() <= kRows || !sibling)
      shown.push_back(w);
    else if (worker.busy > simulation.workers[shown.back()].busy)
      shown.back() = w;
  }
  std::string text;
  const double slice = to_seconds(simulation.step) / kColumns;
  for (const std::size_t w : shown) {
    std::array<std::array<double, 3>, kColumns> shares{};
    double fullest = 0;
    for (std::size_t c = 0; c < kColumns; ++c) {
      const double from = static_cast<double>(c) * slice, to = from + slice;
      auto& share = shares[c];
      for (const auto& span : spans[w])
        share[static_cast<std::size_t>(span.task.operation)] +=
            std::max(0.0, std::min(to, to_seconds(span.end)) - std::max(from, to_seconds(span.start)));
      fullest = std::max(fullest, share[0] + share[1] + share[2]);
    }
    // Where the links take nearly all of a step, all work shows that there is.
    const double least = fullest < slice / 2 ? fullest * kSpeck : slice / 2;
    std::string row;
    for (const auto& share : shares) {
      const auto most = std::ranges::max_element(share);
      const double all = share[0] + share[1] + share[2];
      row += all == 0 || all < least ? "·" : std::string(1, "FIW"[most - share.begin()]);
    }
    text += fmt::format("  stage {:<5} {}\n", worker_name(plan, simulation.workers[w]), row);
  }
  return text + fmt::format("              0 s{:>{}}\n", time_text(to_seconds(simulation.step)), kColumns - 3);
}

}  // namespace isthmus::planner
