#include <gtest/gtest.h>

#include "sim/cluster.h"

namespace isthmus::sim {
namespace {

protocol::Plan pipeline(std::uint32_t stages) {
  protocol::Plan plan;
  plan.run_id = 1;
  plan.microbatches = 8;
  plan.steps = 200;
  plan.tokens_per_microbatch = 1;
  plan.token_bytes = plan.forward_bytes = plan.backward_bytes = 8;
  plan.part_width = plan.total_width = 8;
  for (std::uint32_t s = 0; s < stages; ++s) plan.stages.push_back({s, s + 1, 1, 8, 5, 40});
  return plan;
}

// Neighbours or not, beside training: as slow as the links are made, and no slower than training leaves them.
TEST(Measuring, FindsEveryLinkAsItIs) {
  Cluster::Options options;
  options.measure = seconds(600);
  options.latency = std::chrono::milliseconds(35);
  Cluster cluster(pipeline(4), options);
  const auto survey = [&]() -> const coordinator::LinkSurvey& { return cluster.coordinator().survey(); };
  ASSERT_TRUE(cluster.run_until([&] { return survey().recorded() == 6; }, seconds(300)));
  const auto links = survey().measured(cluster.now());
  EXPECT_EQ(links.size(), 6u) << "each pair of four, once";
  for (const auto& [a, b, link] : links) {
    EXPECT_GE(link.latency, options.latency);
    EXPECT_LE(link.latency, options.latency + std::chrono::milliseconds(1));
    EXPECT_LE(link.bits_per_second, options.bytes_per_second * 8);
    EXPECT_GE(link.bits_per_second, options.bytes_per_second * 8 * 0.9);
    EXPECT_LE(link.age, seconds(300));
  }
  EXPECT_EQ(cluster.coordinator().reports().at(PeerId(1)).device.layer.forward, options.forward);
  EXPECT_TRUE(cluster.run(seconds(3000)));
  EXPECT_TRUE(cluster.violations().empty());
  EXPECT_EQ(survey().recorded(), 6u);
}

}  // namespace
}  // namespace isthmus::sim
