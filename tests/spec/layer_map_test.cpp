#include "spec/layer_map.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

namespace isthmus::spec {
namespace {

// The lightest possible heaviest stage, by trying every size of every stage.
double best_by_search(std::uint32_t layers, std::uint32_t stages, double head_cost) {
  if (stages == 1) return layers + head_cost;
  double best = std::numeric_limits<double>::infinity();
  for (std::uint32_t first = 1; first + stages - 1 <= layers; ++first)
    best = std::min(best, std::max<double>(first, best_by_search(layers - first, stages - 1, head_cost)));
  return best;
}

TEST(BalancedLayers, AreAsLightAsCanBe) {
  for (std::uint32_t layers = 1; layers <= 11; ++layers)
    for (std::uint32_t stages = 1; stages <= layers; ++stages)
      for (const double head_cost : {0.0, 0.08, 1.0, 2.5, 40.0}) {
        const auto map = balanced_layers(layers, stages, head_cost);
        ASSERT_EQ(map.size(), stages);
        std::uint32_t next = 0;
        double heaviest = 0;
        for (const auto& stage : map) {
          EXPECT_EQ(stage.first_layer, next);
          EXPECT_GT(stage.end_layer, stage.first_layer);
          EXPECT_EQ(stage.replicas, 1u);
          const double head = &stage == &map.back() ? head_cost : 0;
          heaviest = std::max(heaviest, stage.end_layer - stage.first_layer + head);
          next = stage.end_layer;
        }
        EXPECT_EQ(next, layers);
        EXPECT_DOUBLE_EQ(heaviest, best_by_search(layers, stages, head_cost))
            << layers << " layers, " << stages << " stages, head " << head_cost;
      }
}

TEST(BalancedLayers, GiveABigHeadAStageOfItsOwn) {
  const auto map = balanced_layers(9, 3, 4);
  EXPECT_EQ(map[2].end_layer - map[2].first_layer, 1u);
  EXPECT_EQ(map[0].end_layer, 4u);
}

}  // namespace
}  // namespace isthmus::spec
