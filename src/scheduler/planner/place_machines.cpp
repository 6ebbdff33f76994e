#include "scheduler/planner/place_machines.h"

#include "base/counter_random.h"
#include "scheduler/planner/improve_placement.h"
#include "scheduler/planner/place_by_flow.h"
#include "scheduler/planner/place_exactly.h"

namespace isthmus::planner {

namespace {

// Placements of a small fleet: a tenth of a second.
constexpr std::uint64_t kExactly = 20'000;
// A search ends where no single move helps. It is thrown off there and goes on from where it lands, so often: fleets of
// eight machines 62 times, of more than sixty not at all. Iterated local search (Lourenço, Martin, Stützle, 2003).
constexpr std::uint32_t kThrows = 4'000;

std::uint32_t throws_of(std::size_t machines) { return static_cast<std::uint32_t>(kThrows / (machines * machines)); }

// A few machines to other stages, or aside.
void throw_off(const PlacementProblem& problem, PlacementEstimate& estimate, const CounterRandom& random,
               std::uint64_t& drawn) {
  const std::uint64_t machines = problem.fleet->machines.size(), stages = problem.stages.size();
  for (std::uint64_t left = 2 + random.below(2, drawn++); left > 0; --left) {
    const auto m = static_cast<std::uint32_t>(random.below(machines, drawn++));
    const auto to = static_cast<std::uint32_t>(random.below(stages + 1, drawn++));
    const std::uint32_t from = estimate.placement()[m];
    if (from != kSpare && estimate.members(from).size() == 1) {
      // Its stage needs it: it changes places with another one.
      const auto other = static_cast<std::uint32_t>(random.below(machines, drawn++));
      const std::uint32_t there = estimate.placement()[other];
      if (there == from || !problem.fits(other, from) || (there != kSpare && !problem.fits(m, there))) continue;
      estimate.move(m, there);
      estimate.move(other, from);
    } else if (to == stages) {
      estimate.move(m, kSpare);
    } else if (problem.fits(m, to) && estimate.members(to).size() < problem.replicas_max) {
      estimate.move(m, to);
    }
  }
}

}  // namespace

std::optional<Placement> place_by_search(const PlacementProblem& problem) {
  const auto start = place_by_flow(problem);
  if (!start) return std::nullopt;
  PlacementEstimate estimate(problem, *start);
  improve_placement(problem, estimate);
  Placement best = estimate.placement();
  double least = estimate.score();
  const CounterRandom random(1, "placement");
  std::uint64_t drawn = 0;
  for (std::uint32_t left = throws_of(best.size()); left > 0; --left) {
    PlacementEstimate thrown(problem, best);
    throw_off(problem, thrown, random, drawn);
    improve_placement(problem, thrown);
    if (thrown.score() >= least) continue;
    least = thrown.score();
    best = thrown.placement();
  }
  return best;
}

std::optional<Placement> place_machines(const PlacementProblem& problem) {
  if (auto best = place_exactly(problem, kExactly)) return best;
  return place_by_search(problem);
}

}  // namespace isthmus::planner
