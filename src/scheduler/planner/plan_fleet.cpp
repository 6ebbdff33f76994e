#include "scheduler/planner/plan_fleet.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <limits>
#include <optional>

#include "config/resolve_run.h"
#include "scheduler/planner/improve_placement.h"
#include "scheduler/planner/make_plan.h"
#include "scheduler/planner/place_machines.h"
#include "scheduler/planner/split_layers.h"
#include "scheduler/planner/stage_search.h"
#include "scheduler/planner/stage_table.h"
#include "scheduler/planner/unplaced_stages.h"
#include "spec/boundary_form.h"
#include "spec/layer_map.h"

namespace isthmus::planner {

namespace {

constexpr int kSplits = 4;               // of one number of stages: split and placed again
constexpr std::size_t kPredicted = 3;    // numbers of stages that the predictor chooses among
constexpr std::uint32_t kPolished = 64;  // machines up to which it judges single moves
constexpr std::size_t kJudged = 24;      // moves a round
constexpr double kEvents = 4e6;          // it may play for that, or to choose; a second or two
constexpr std::uint32_t kPaths = 3;      // replicas that a path names for each stage
// Placing costs some microseconds for every machine and stage. So many of these may be placed for a number of stages
// that is asked for, for one of many, and for all of them; each number that is tried is placed once anyway.
constexpr double kPlacedAsked = 1e6;
constexpr double kPlacedEach = 1e5;
constexpr double kPlacedAll = 3e6;

struct Candidate {
  std::vector<std::uint32_t> ends;  // of each stage
  PlacementProblem problem;
  Placement placement;
  double score = 0;
};

class FleetPlanner {
 public:
  FleetPlanner(const spec::RunConfig& run, Fleet fleet)
      : run_(without_fleet(run)), fleet_(std::move(fleet)), table_(run_, fleet_) {}

  Result<FleetPlan> run() {
    std::vector<Candidate> candidates = all_candidates();
    if (candidates.empty()) return fail("{}", sentences(why_unplaced()));
    std::ranges::stable_sort(candidates, {}, &Candidate::score);
    candidates.resize(std::min(candidates.size(), kPredicted));
    // Nothing will be changed about a large fleet's only candidate: its paths can be had at once.
    const bool once = candidates.size() == 1 && machines() > kPolished;
    const Candidate* chosen = &candidates.front();
    FleetPlan best = predicted(*chosen, chosen->placement, once ? kPaths : 0);
    double events = predicted_events(best.input.plan);
    for (const auto& candidate : candidates) {
      if (&candidate == &candidates.front()) continue;
      if (events > kEvents) {
        remarks_.push_back(
            fmt::format("{} stages were estimated to be a little slower, and not predicted", candidate.ends.size()));
        continue;
      }
      FleetPlan plan = predicted(candidate, candidate.placement);
      events += predicted_events(plan.input.plan);
      if (plan.simulation.step >= best.simulation.step) continue;
      best = std::move(plan);
      chosen = &candidate;
    }
    polish(*chosen, best);
    if (!once) {
      best.input.path_width = kPaths;
      best.simulation = simulate_step(best.input);
    }
    best.remarks = std::move(remarks_);
    remark_on_replicas(best);
    return best;
  }

  // The split and its needs as they were for this plan.
  Candidate candidate_of(const FleetPlan& plan) {
    Candidate candidate = candidate_of(ends_of(plan.run));
    candidate.problem.sum_bytes = plan.run.sync.mode == "exact" ? sum_bytes() : 0;
    return candidate;
  }

  // The same layers, with at most one other machine where `gone` was.
  Result<FleetPlan> replaced(const FleetPlan& plan, std::uint32_t gone) {
    const Candidate candidate = candidate_of(plan);
    PlacementEstimate estimate(candidate.problem, plan.placement);
    const std::string name = fleet_.machines[gone].name;
    if (!replace_departed(candidate.problem, estimate, gone))
      return fail("without {} stage {} has no machine with enough memory, expected one that can be spared elsewhere",
                  name, plan.placement[gone]);
    std::string remark = plan.placement[gone] == kSpare
                             ? fmt::format("{}, a spare, has left", name)
                             : fmt::format("{} has left stage {}", name, plan.placement[gone]);
    Placement placement = estimate.placement();
    for (std::uint32_t m = 0; m < machines(); ++m)
      if (m != gone && placement[m] != plan.placement[m])
        remark += plan.placement[m] == kSpare
                      ? fmt::format("; {}, a spare, takes its place", fleet_.machines[m].name)
                      : fmt::format("; {} of stage {} takes its place", fleet_.machines[m].name, plan.placement[m]);
    remark += fmt::format("; a step took {:.2f} s before", to_seconds(plan.simulation.step));
    fleet_.machines.erase(fleet_.machines.begin() + gone);
    placement.erase(placement.begin() + gone);
    FleetPlan next = predicted(candidate, placement, kPaths);
    next.remarks = plan.remarks;
    next.remarks.push_back(std::move(remark));
    return next;
  }

  std::vector<config::KeyProblem> why_unplaced() {
    std::vector<config::KeyProblem> fewest;
    if (run_.pipeline.layout != "auto") {
      std::vector<std::uint32_t> ends;
      for (const auto& stage : run_.pipeline.stage) ends.push_back(stage.end_layer);
      fewest = unplaced_stages(run_, candidate_of(ends).problem, ends);
    } else {
      for (const std::uint32_t stages : stage_counts())
        if (const auto ends = evenest(stages))
          if (auto unplaced = unplaced_stages(run_, candidate_of(*ends).problem, *ends);
              !unplaced.empty() && (fewest.empty() || unplaced.size() < fewest.size()))
            fewest = std::move(unplaced);
    }
    if (fewest.empty())
      fewest.push_back(
          {"fleet.machine",
           fmt::format(
               "no placement of {} layers on {} machines was found that gives every stage one with enough memory",
               run_.model.layers, machines()),
           fmt::format("more memory, or {}", kLessKept)});
    return fewest;
  }

 private:
  static std::string sentences(const std::vector<config::KeyProblem>& problems) {
    std::string text;
    for (const auto& problem : problems)
      text += fmt::format("{}{}, expected {}", text.empty() ? "" : "; ", problem.what, problem.expected);
    return text;
  }

  static spec::RunConfig without_fleet(spec::RunConfig run) {
    run.fleet = {};
    return run;
  }

  std::uint32_t machines() const { return static_cast<std::uint32_t>(fleet_.machines.size()); }

  std::vector<std::uint32_t> stage_counts() const {
    if (run_.pipeline.layout != "auto") return {static_cast<std::uint32_t>(run_.pipeline.stage.size())};
    if (run_.pipeline.stages > 0) return {run_.pipeline.stages};
    return planner::stage_counts(std::min(run_.model.layers, machines()),
                                 [&](std::uint32_t stages) { return spec::may_have_stages(run_, stages); });
  }

  std::vector<Candidate> all_candidates() {
    std::vector<Candidate> candidates;
    const auto keep = [&](std::optional<Candidate> candidate) {
      const double score = candidate ? candidate->score : std::numeric_limits<double>::infinity();
      if (candidate) candidates.push_back(std::move(*candidate));
      return score;
    };
    if (run_.pipeline.layout != "auto") {
      keep(place_given());
    } else if (run_.pipeline.stages > 0) {
      keep(split_and_place(run_.pipeline.stages, kPlacedAsked));
    } else {
      StageSearch search(stage_counts(), machines(), kPlacedAll);
      std::vector<std::uint32_t> tried;
      while (const auto stages = search.next()) {
        search.tried(*stages, keep(split_and_place(*stages, kPlacedEach)));
        tried.push_back(*stages);
      }
      std::ranges::sort(tried);
      if (!search.whole())
        remarks_.push_back(fmt::format("of the numbers of stages these were tried: {}", fmt::join(tried, ", ")));
    }
    return candidates;
  }

  // Why machines may be left over.
  void remark_on_replicas(FleetPlan& plan) const {
    const auto& map = plan.run.pipeline.stage;
    const auto full = std::ranges::count_if(map, [](const auto& stage) { return stage.replicas >= kReplicasMax; });
    if (full == 0 || plan.machine_of.size() == machines()) return;
    std::string remark =
        fmt::format("{} of {} stages have {} replicas, as many as a stage may have; {} machines are spare", full,
                    map.size(), kReplicasMax, machines() - plan.machine_of.size());
    if (map.size() * kReplicasMax < machines())
      remark +=
          fmt::format(", which from {} stages on would have a place", (machines() + kReplicasMax - 1) / kReplicasMax);
    plan.remarks.push_back(std::move(remark));
  }

  std::uint32_t credits(std::uint32_t stages) const {
    const std::uint32_t all = run_.train.microbatches_per_step;
    const std::string& credits = run_.pipeline.credits;
    if (credits == "auto") return run_.pipeline.schedule == "1f1b" ? std::min(all, stages) : all;
    std::uint32_t number = 1;
    std::from_chars(credits.data(), credits.data() + credits.size(), number);
    return std::clamp(number, 1u, all);
  }

  Candidate candidate_of(const std::vector<std::uint32_t>& ends) {
    const protocol::Plan& plan = table_.one_stage();
    Candidate candidate{ends, {}, {}, 0};
    candidate.problem.fleet = &fleet_;
    candidate.problem.microbatches = plan.microbatches;
    candidate.problem.forward_bytes = static_cast<double>(plan.forward_bytes + plan.token_bytes);
    candidate.problem.backward_bytes = static_cast<double>(plan.backward_bytes);
    std::uint32_t first = 0;
    for (const std::uint32_t end : ends) {
      candidate.problem.stages.push_back(table_.needs(first, end, credits(static_cast<std::uint32_t>(ends.size()))));
      first = end;
    }
    return candidate;
  }

  // Per parameter, where replicas add up their gradients every step.
  double sum_bytes() const { return table_.one_stage().part_width + table_.one_stage().total_width; }

  // Where the run file leaves open how replicas agree, that follows from the placement, and what a step costs from
  // that. So what is best if sums cost nothing is looked for first, and is best if they do, so placed; otherwise also
  // what is best with them counted.
  bool place(Candidate& candidate) {
    candidate.placement.clear();
    const bool always = run_.run.deterministic || run_.sync.mode == "exact", open = !always && run_.sync.mode.empty();
    if (!always) place(candidate, 0);
    if (always || (open && !candidate.placement.empty() && candidate.problem.sum_bytes > 0))
      place(candidate, sum_bytes());
    return !candidate.placement.empty();
  }

  // Looks for a placement as if sums had so many bytes, and keeps it if it is better by what they really have with it.
  void place(Candidate& candidate, double assumed_sum_bytes) {
    PlacementProblem problem = candidate.problem;
    problem.sum_bytes = assumed_sum_bytes;
    placed_ += static_cast<double>(machines()) * static_cast<double>(problem.stages.size());
    auto placement = place_machines(problem);
    if (!placement) return;
    set_idle_aside(problem, *placement);
    problem.sum_bytes = placed_run(run_, fleet_, candidate.ends, *placement).sync.mode == "exact" ? sum_bytes() : 0;
    const double score = PlacementEstimate(problem, *placement).score();
    if (!candidate.placement.empty() && score >= candidate.score) return;
    candidate.placement = std::move(*placement);
    candidate.problem.sum_bytes = problem.sum_bytes;
    candidate.score = score;
  }

  std::optional<Candidate> place_given() {
    Candidate candidate = candidate_of(ends_of(run_));
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
    return end < run_.model.layers || !spec::boundary_form(run_.boundary.codec).constrained ||
           first <= run_.boundary.factored_layers.value_or(first);
  }

  // `budget`: machines times stages that may be placed; it splits again only as long as that lasts.
  std::optional<Candidate> split_and_place(std::uint32_t stages, double budget) {
    const double placed_most = placed_ + budget;
    double most = 0;
    for (const auto& machine : fleet_.machines) most = std::max(most, machine.memory_bytes);
    std::optional<Candidate> best;
    for (Shares shares : {Shares{std::vector<double>(stages, 1.0), std::vector<double>(stages, most)},
                          shares_of(dealt(stages), stages)}) {
      double before = 0;
      for (int i = 0; i < kSplits && (!best || placed_ < placed_most); ++i) {
        const std::uint32_t held = credits(stages);
        const auto ends = split_layers(
            run_.model.layers, shares.speeds,
            [&](std::uint32_t first, std::uint32_t end) { return table_.needs(first, end, held).operations; },
            [&](std::uint32_t s, std::uint32_t first, std::uint32_t end) {
              return table_.needs(first, end, held).memory_bytes <= shares.memory_bytes[s] && may_be_stage(first, end);
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
    const std::uint32_t held = credits(stages);
    return split_layers(
        run_.model.layers, std::vector<double>(stages, 1.0),
        [&](std::uint32_t first, std::uint32_t end) { return table_.needs(first, end, held).memory_bytes; },
        [&](std::uint32_t, std::uint32_t first, std::uint32_t end) { return may_be_stage(first, end); });
  }

  FleetPlan predicted(const Candidate& candidate, const Placement& placement, std::uint32_t path_width = 0) const {
    FleetPlan plan = predict_plan(run_, fleet_, candidate.ends, placement, path_width);
    for (std::size_t s = 0; s < candidate.ends.size(); ++s)
      plan.memory_bytes.push_back(run_.emulated.devices ? candidate.problem.stages[s].memory_bytes
                                                        : double(plan.input.plan.stages[s].memory_bytes));
    return plan;
  }

  // Moves and swaps, the most promising by the estimate first, as long as the predictor likes one.
  void polish(const Candidate& candidate, FleetPlan& best) const {
    if (machines() > kPolished) return;
    const auto stages = static_cast<std::uint32_t>(candidate.ends.size());
    double budget = kEvents / predicted_events(best.input.plan);
    for (bool better = true; better && budget >= 1;) {
      better = false;
      PlacementEstimate estimate(candidate.problem, best.placement);
      std::vector<std::pair<double, Placement>> moves;
      const auto consider = [&](std::uint32_t m, std::uint32_t to, std::uint32_t other) {
        const std::uint32_t from = estimate.placement()[m];
        if (from == to || (to != kSpare && !candidate.problem.fits(m, to)) ||
            (other != kSpare && from != kSpare && !candidate.problem.fits(other, from)))
          return;
        if (other == kSpare && to != kSpare && estimate.members(to).size() >= candidate.problem.replicas_max) return;
        estimate.move(m, to);
        if (other != kSpare) estimate.move(other, from);
        if (const double score = estimate.score(); score < 2 * candidate.score)
          moves.emplace_back(score, estimate.placement());
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

  const spec::RunConfig run_;  // without its fleet
  Fleet fleet_;
  StageTable table_;
  double placed_ = 0;  // machines times stages
  std::vector<std::string> remarks_;
};

}  // namespace

Result<FleetPlan> plan_fleet(const spec::RunConfig& run) { return plan_fleet(run, make_fleet(run)); }

Result<FleetPlan> plan_fleet(const spec::RunConfig& run, Fleet fleet) {
  return FleetPlanner(run, std::move(fleet)).run();
}

PlacementProblem placement_problem(const FleetPlan& plan) {
  PlacementProblem problem = FleetPlanner(plan.asked, plan.fleet).candidate_of(plan).problem;
  problem.fleet = &plan.fleet;
  return problem;
}

Result<FleetPlan> plan_without(const FleetPlan& plan, const std::string& machine) {
  const auto at = std::ranges::find(plan.fleet.machines, machine, &FleetMachine::name);
  if (at == plan.fleet.machines.end())
    return fail("the fleet has no machine {}, expected a name that `plan` prints", machine);
  return FleetPlanner(plan.asked, plan.fleet)
      .replaced(plan, static_cast<std::uint32_t>(at - plan.fleet.machines.begin()));
}

std::vector<config::KeyProblem> why_unplaced(const spec::RunConfig& run) {
  return FleetPlanner(run, make_fleet(run)).why_unplaced();
}

}  // namespace isthmus::planner
