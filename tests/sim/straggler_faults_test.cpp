// Devices that become slow all the time, and now and then something that breaks meanwhile: what is taken back and dealt
// again counts once.
#include <gtest/gtest.h>

#include <cstdlib>
#include <iostream>
#include <random>

#include "base/counter_random.h"
#include "base/times.h"
#include "sim/cluster.h"

namespace isthmus::sim {
namespace {

struct Happenings {
  std::uint64_t dealt = 0;
  std::uint64_t taken_back = 0;
};

// Every fourth without any other fault.
Happenings run(std::uint64_t seed) {
  const CounterRandom random(seed, "straggler faults");
  std::uint64_t drawn = 0;
  const auto below = [&](std::uint64_t limit) { return static_cast<std::uint32_t>(random.below(limit, drawn++)); };
  protocol::Plan plan;
  plan.run_id = seed;
  plan.microbatches = 6 + below(20);
  plan.steps = 6;
  plan.evaluation_microbatches = below(3);
  plan.evaluate_every = 2;
  plan.checkpoint_every = 2;
  plan.tokens_per_microbatch = 1;
  plan.token_bytes = plan.forward_bytes = plan.backward_bytes = 8;
  plan.part_width = plan.total_width = 8;
  const std::uint32_t stages = 2 + below(3);
  for (std::uint32_t s = 0; s < stages; ++s)
    plan.stages.push_back({s, s + 1, 2 + below(2), below(2) == 0 ? plan.microbatches : 2 + below(4), 5, 40});
  if (below(4) == 0) plan.planned_skips = below(stages * plan.microbatches / 2 + 1);

  Cluster::Options options;
  options.seed = seed;
  options.latency = std::chrono::milliseconds(1 + below(60));
  options.forward = std::chrono::milliseconds(5 + below(60));
  options.input_gradient = options.forward;
  options.weight_gradient = std::chrono::milliseconds(5 + below(60));
  Cluster cluster(plan, options);
  const Duration faulty = seconds(20);
  for (auto fault : draw_faults(plan, seed, {FaultKind::kSlow}, 12, cluster.now(), cluster.now() + faulty))
    cluster.add(fault);
  if (seed % 4 != 0)
    for (auto fault :
         draw_faults(plan, mix(seed, 1),
                     {FaultKind::kCrash, FaultKind::kCoordinatorCrash, FaultKind::kLoss, FaultKind::kDuplicate,
                      FaultKind::kReorder, FaultKind::kCut, FaultKind::kFreeze, FaultKind::kMove, FaultKind::kLatency},
                     1 + below(5), cluster.now(), cluster.now() + faulty))
      cluster.add(fault);
  cluster.run(faulty + seconds(180));
  cluster.check_end(seconds(180));
  if (!cluster.finished()) cluster.describe();
  EXPECT_TRUE(cluster.violations().empty()) << "seed " << seed;
  for (const auto& violation : cluster.violations()) ADD_FAILURE() << "seed " << seed << ": " << violation;
  const auto dealt = cluster.events().find("dealt");
  return {dealt == cluster.events().end() ? 0 : dealt->second, cluster.sent<protocol::Cancelled>()};
}

TEST(StragglerFaults, CountEverythingOnce) {
  Happenings all;
  for (std::uint64_t seed = 1; seed <= times(60); ++seed) {
    const auto one = run(seed);
    all.dealt += one.dealt;
    all.taken_back += one.taken_back;
  }
  EXPECT_GE(all.dealt, times(20));
  EXPECT_GT(all.taken_back, times(100) / 2);
}

// A failing seed replays with ISTHMUS_SEED.
TEST(StragglerFaults, FreshSeedsAreClean) {
  const char* given = std::getenv("ISTHMUS_SEED");
  const char* count = std::getenv("ISTHMUS_COUNT");
  const std::uint64_t first = given ? std::strtoull(given, nullptr, 10) : std::random_device{}();
  std::cout << "seeds " << first << " …\n";
  for (std::uint64_t seed = first; seed < first + (count   ? std::strtoull(count, nullptr, 10)
                                                   : given ? 1
                                                           : times(20));
       ++seed)
    (void)run(seed);
}

}  // namespace
}  // namespace isthmus::sim
