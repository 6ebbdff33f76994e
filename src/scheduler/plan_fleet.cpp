#include "scheduler/plan_fleet.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>
#include <tuple>

#include "config/boundary_form.h"
#include "config/layer_map.h"
#include "config/resolve_run.h"
#include "config/stage_costs.h"
#include "scheduler/make_plan.h"
#include "scheduler/place_machines.h"
#include "scheduler/split_layers.h"
#include "scheduler/unplaced_stages.h"

namespace isthmus {

namespace {

constexpr int kSplits = 4;            // of one number of stages: split and placed again
constexpr std::size_t kPredicted = 3;  // numbers of stages that the predictor chooses among
constexpr std::uint32_t kPolished = 64;  // machines up to which it judges single moves
constexpr std::size_t kJudged = 24;      // moves a round
constexpr double kEvents = 4e6;          // it may play for that; a second or two

double tokens_of(const Plan& plan) { return static_cast<double>(plan.tokens_per_microbatch) * plan.microbatches; }

// What layers cost as a stage, looked up once for all stages that are alike.
class StageTable {
 public:
  explicit StageTable(const RunConfig& run) : run_(run) {
    RunConfig whole = run;
    resolve_map(whole, {{0, run.model.layers, 1}});
    plan_ = make_plan(whole);
  }

  const Plan& one_stage() const { return plan_; }

  const StageNeeds& needs(std::uint32_t first, std::uint32_t end, std::uint32_t in_flight) {
    const std::uint32_t layers = run_.model.layers;
    // The tail's layers are free unless the run file says otherwise.
    const std::uint32_t factored = run_.boundary.factored_layers.value_or(end == layers ? first : end);
    const std::tuple key(first == 0, end == layers, end - first, std::clamp(factored, first, end) - first, in_flight);
    const auto [at, added] = known_.try_emplace(key);
    if (added) {
      RunConfig run = run_;
      run.boundary.factored_layers = factored;
      const double boundary = static_cast<double>(plan_.forward_bytes + plan_.backward_bytes + plan_.token_bytes);
      at->second = {planned_operations(run, first, end), stage_memory(run, first, end, in_flight, boundary).total(),
                    run.pipeline.device == "emulated" ? 1.0 : static_cast<double>(parameters_of(run, first, end))};
    }
    return at->second;
  }

 private:
  const RunConfig& run_;
  Plan plan_;
  std::map<std::tuple<bool, bool, std::uint32_t, std::uint32_t, std::uint32_t>, StageNeeds> known_;
};

struct Candidate {
  std::vector<std::uint32_t> ends;  // of each stage
  PlacementProblem problem;
  Placement placement;
  double score = 0;
};

class FleetPlanner {
 public:
  explicit FleetPlanner(const RunConfig& run) : run_(run), fleet_(make_fleet(run)), table_(run) {}

  Result<FleetPlan> run() {
    std::vector<Candidate> candidates;
    for (const std::uint32_t stages : stage_counts())
      if (auto candidate = run_.pipeline.layout == "auto" ? split_and_place(stages) : place_given()) candidates.push_back(std::move(*candidate));
    if (candidates.empty()) return fail("{}", sentences(why_unplaced()));
    std::ranges::stable_sort(candidates, {}, &Candidate::score);
    candidates.resize(std::min(candidates.size(), kPredicted));
    std::optional<FleetPlan> best;
    const Candidate* chosen = nullptr;
    for (const auto& candidate : candidates) {
      FleetPlan plan = predicted(candidate, candidate.placement);
      if (best && plan.simulation.step >= best->simulation.step) continue;
      best = std::move(plan);
      chosen = &candidate;
    }
    polish(*chosen, *best);
    best->input.path_width = 3;
    best->simulation = simulate_step(best->input);
    return std::move(*best);
  }

  std::vector<KeyProblem> why_unplaced() {
    std::vector<KeyProblem> fewest;
    if (run_.pipeline.layout != "auto") {
      std::vector<std::uint32_t> ends;
      for (const auto& stage : run_.pipeline.stage) ends.push_back(stage.end_layer);
      fewest = unplaced_stages(run_, candidate_of(ends).problem, ends);
    } else {
      for (const std::uint32_t stages : stage_counts())
        if (const auto ends = evenest(stages))
          if (auto unplaced = unplaced_stages(run_, candidate_of(*ends).problem, *ends); !unplaced.empty() && (fewest.empty() || unplaced.size() < fewest.size())) fewest = std::move(unplaced);
    }
    if (fewest.empty())
      fewest.push_back({"fleet.machine", fmt::format("no placement of {} layers on {} machines was found that gives every stage one with enough memory", run_.model.layers, machines()),
                        fmt::format("more memory, or {}", kLessKept)});
    return fewest;
  }

 private:
  static std::string sentences(const std::vector<KeyProblem>& problems) {
    std::string text;
    for (const auto& problem : problems) text += fmt::format("{}{}, expected {}", text.empty() ? "" : "; ", problem.what, problem.expected);
    return text;
  }

  std::uint32_t machines() const { return static_cast<std::uint32_t>(fleet_.machines.size()); }

  std::vector<std::uint32_t> stage_counts() const {
    if (run_.pipeline.layout != "auto") return {static_cast<std::uint32_t>(run_.pipeline.stage.size())};
    if (run_.pipeline.stages > 0) return {run_.pipeline.stages};
    // All of them, then every fourth part more.
    std::vector<std::uint32_t> counts;
    for (std::uint32_t stages = 1, next = 1; stages <= std::min(run_.model.layers, machines()); ++stages) {
      if (stages < next || !may_have_stages(run_, stages)) continue;
      counts.push_back(stages);
      next = stages + std::max(1u, stages / 16);
    }
    return counts;
  }

  std::uint32_t in_flight(std::uint32_t stages) const {
    const std::uint32_t all = run_.train.microbatches_per_step;
    const std::string& credits = run_.pipeline.credits;
    if (credits == "auto") return run_.pipeline.schedule == "1f1b" ? std::min(all, stages) : all;
    std::uint32_t number = 1;
    std::from_chars(credits.data(), credits.data() + credits.size(), number);
    return std::clamp(number, 1u, all);
  }

  Candidate candidate_of(const std::vector<std::uint32_t>& ends) {
    const Plan& plan = table_.one_stage();
    Candidate candidate{ends, {}, {}, 0};
    candidate.problem.fleet = &fleet_;
    candidate.problem.microbatches = plan.microbatches;
    candidate.problem.forward_bytes = static_cast<double>(plan.forward_bytes + plan.token_bytes);
    candidate.problem.backward_bytes = static_cast<double>(plan.backward_bytes);
    const bool exact = run_.sync.mode.empty() || run_.sync.mode == "exact";
    candidate.problem.sum_bytes = exact ? plan.part_width + plan.total_width : 0;
    std::uint32_t first = 0;
    for (const std::uint32_t end : ends) {
      candidate.problem.stages.push_back(table_.needs(first, end, in_flight(static_cast<std::uint32_t>(ends.size()))));
      first = end;
    }
    return candidate;
  }

  bool place(Candidate& candidate) {
    auto placement = place_machines(candidate.problem);
    if (!placement) return false;
    candidate.placement = std::move(*placement);
    candidate.score = PlacementEstimate(candidate.problem, candidate.placement).score();
    return true;
  }

  std::optional<Candidate> place_given() {
    std::vector<std::uint32_t> ends;
    for (const auto& stage : run_.pipeline.stage) ends.push_back(stage.end_layer);
    Candidate candidate = candidate_of(ends);
    if (!place(candidate)) return std::nullopt;
    return candidate;
  }

  struct Shares {
    std::vector<double> speeds, memory_bytes;  // by stage
  };

  // What each stage has of the fleet.
  Shares shares_of(const Placement& placement, std::uint32_t stages) const {
    Shares shares{std::vector<double>(stages), std::vector<double>(stages)};
    for (std::uint32_t m = 0; m < machines(); ++m) {
      if (placement[m] == kSpare) continue;
      shares.speeds[placement[m]] += 1 / fleet_.machines[m].seconds_per_operation();
      shares.memory_bytes[placement[m]] = std::max(shares.memory_bytes[placement[m]], fleet_.machines[m].memory_bytes);
    }
    return shares;
  }

  // The fastest first, each to the stage that has least.
  Placement dealt(std::uint32_t stages) const {
    std::vector<std::uint32_t> order(machines());
    for (std::uint32_t m = 0; m < machines(); ++m) order[m] = m;
    std::ranges::stable_sort(order, {}, [&](std::uint32_t m) { return fleet_.machines[m].seconds_per_operation(); });
    Placement placement(machines(), kSpare);
    std::vector<double> speeds(stages);
    for (const std::uint32_t m : order) {
      placement[m] = static_cast<std::uint32_t>(std::ranges::min_element(speeds) - speeds.begin());
      speeds[placement[m]] += 1 / fleet_.machines[m].seconds_per_operation();
    }
    return placement;
  }

  // Layers before the last boundary have to be factored.
  bool may_be_stage(std::uint32_t first, std::uint32_t end) const {
    return end < run_.model.layers || !boundary_form(run_.boundary.codec).constrained || first <= run_.boundary.factored_layers.value_or(first);
  }

  std::optional<Candidate> split_and_place(std::uint32_t stages) {
    double most = 0;
    for (const auto& machine : fleet_.machines) most = std::max(most, machine.memory_bytes);
    std::optional<Candidate> best;
    for (Shares shares : {Shares{std::vector<double>(stages, 1.0), std::vector<double>(stages, most)}, shares_of(dealt(stages), stages)}) {
      double before = 0;
      for (int i = 0; i < kSplits; ++i) {
        const std::uint32_t flying = in_flight(stages);
        const auto ends = split_layers(
            run_.model.layers, shares.speeds, [&](std::uint32_t first, std::uint32_t end) { return table_.needs(first, end, flying).operations; },
            [&](std::uint32_t s, std::uint32_t first, std::uint32_t end) {
              return table_.needs(first, end, flying).memory_bytes <= shares.memory_bytes[s] && may_be_stage(first, end);
            });
        if (!ends) break;
        Candidate candidate = candidate_of(*ends);
        if (!place(candidate) || (i > 0 && candidate.score >= before)) break;
        before = candidate.score;
        shares = shares_of(candidate.placement, stages);
        if (!best || candidate.score < best->score) best = std::move(candidate);
      }
    }
    return best;
  }

  // The stages whose largest is as small as can be.
  std::optional<std::vector<std::uint32_t>> evenest(std::uint32_t stages) {
    const std::uint32_t flying = in_flight(stages);
    return split_layers(
        run_.model.layers, std::vector<double>(stages, 1.0), [&](std::uint32_t first, std::uint32_t end) { return table_.needs(first, end, flying).memory_bytes; },
        [&](std::uint32_t, std::uint32_t first, std::uint32_t end) { return may_be_stage(first, end); });
  }

  FleetPlan predicted(const Candidate& candidate, const Placement& placement) const {
    FleetPlan plan{run_, fleet_, placement, {}, {}, {}, {}};
    std::vector<RunConfig::Stage> map;
    std::uint32_t first = 0;
    for (std::uint32_t s = 0; s < candidate.ends.size(); ++s) {
      for (std::uint32_t m = 0; m < machines(); ++m)
        if (placement[m] == s) plan.machine_of.push_back(m);
      const auto replicas = static_cast<std::uint32_t>(std::ranges::count(placement, s));
      map.push_back({first, candidate.ends[s], replicas});
      plan.memory_bytes.push_back(candidate.problem.stages[s].memory_bytes);
      first = candidate.ends[s];
    }
    plan.run.fleet = {};
    resolve_map(plan.run, std::move(map));
    plan.input = fleet_input(plan.run, fleet_, plan.machine_of);
    plan.simulation = simulate_step(plan.input);
    return plan;
  }

  // Moves and swaps, the most promising by the estimate first, as long as the predictor likes one.
  void polish(const Candidate& candidate, FleetPlan& best) const {
    if (machines() > kPolished) return;
    const auto stages = static_cast<std::uint32_t>(candidate.ends.size());
    const double chunks = (candidate.problem.forward_bytes + candidate.problem.backward_bytes) / 65536 + 2;
    double budget = kEvents / (candidate.problem.microbatches * stages * (3 + chunks));
    for (bool better = true; better && budget >= 1;) {
      better = false;
      PlacementEstimate estimate(candidate.problem, best.placement);
      std::vector<std::pair<double, Placement>> moves;
      const auto consider = [&](std::uint32_t m, std::uint32_t to, std::uint32_t other) {
        const std::uint32_t from = estimate.placement()[m];
        if (from == to || (to != kSpare && !candidate.problem.fits(m, to)) || (other != kSpare && from != kSpare && !candidate.problem.fits(other, from))) return;
        if (other == kSpare && to != kSpare && estimate.members(to).size() >= candidate.problem.replicas_max) return;
        estimate.move(m, to);
        if (other != kSpare) estimate.move(other, from);
        if (const double score = estimate.score(); score < 2 * candidate.score) moves.emplace_back(score, estimate.placement());
        if (other != kSpare) estimate.move(other, to);
        estimate.move(m, from);
      };
      for (std::uint32_t m = 0; m < machines(); ++m) {
        for (std::uint32_t s = 0; s < stages; ++s) consider(m, s, kSpare);
        consider(m, kSpare, kSpare);
        for (std::uint32_t other = m + 1; other < machines(); ++other) consider(m, best.placement[other], other);
      }
      std::ranges::stable_sort(moves, {}, &std::pair<double, Placement>::first);
      FleetPlan next = best;
      for (std::size_t i = 0; i < std::min(moves.size(), kJudged) && budget >= 1; ++i, --budget)
        if (FleetPlan plan = predicted(candidate, moves[i].second); plan.simulation.step < next.simulation.step) {
          next = std::move(plan);
          better = true;
        }
      best = std::move(next);
    }
  }

  const RunConfig& run_;
  const Fleet fleet_;
  StageTable table_;
};

}  // namespace

double FleetPlan::tokens_per_second() const { return tokens_of(input.plan) / to_seconds(simulation.step); }

StepSimulationInput fleet_input(const RunConfig& run, const Fleet& fleet, const std::vector<std::uint32_t>& machine_of) {
  StepSimulationInput input;
  input.plan = make_plan(run);
  input.link = link_costs(run.link);
  input.pairs = fleet.links;
  std::size_t worker = 0;
  for (const auto& stage : input.plan.stages) {
    const double operations = planned_operations(run, stage.first_layer, stage.end_layer);
    for (std::uint32_t r = 0; r < stage.replicas; ++r, ++worker) {
      const FleetMachine& machine = fleet.machines[machine_of[worker]];
      input.costs.push_back(machine.costs(operations));
      input.rates.push_back({machine.up, machine.down});
      input.sites.push_back(machine.site);
    }
  }
  return input;
}

Result<FleetPlan> plan_fleet(const RunConfig& run) { return FleetPlanner(run).run(); }

std::vector<KeyProblem> why_unplaced(const RunConfig& run) { return FleetPlanner(run).why_unplaced(); }

}  // namespace isthmus
