// What a head asks the coordinator for, and what it takes: the test answers.
#include "router/token_supply.h"

#include <gtest/gtest.h>

#include <utility>

namespace isthmus::router {
namespace {

constexpr SessionId kOwn(33), kBeside(34);
constexpr Duration kPatience = seconds(2);

protocol::Plan plan() {
  protocol::Plan plan;
  for (std::uint32_t s = 0; s < 2; ++s) plan.stages.push_back({s, s + 1, 2, 4});
  plan.steps = 20;
  plan.microbatches = 4;
  plan.evaluation_microbatches = 3;
  plan.evaluate_every = 10;
  plan.token_bytes = 6;
  return plan;
}

using Asked = std::map<StepId, std::vector<std::uint32_t>>;

class Supply : public ::testing::Test {
 protected:
  Supply() : context_{plan(), {PeerId(1), StageId(0), ReplicaId(0), {}, kPatience}, {}, {}, kOwn, {}} { serve(kOwn); }
  void serve(SessionId session) {
    context_.view.live.push_back({PeerId(1), session, StageId(0), ReplicaId(0), {}, {}});
  }
  void want(std::uint64_t step, const std::set<MicrobatchId>& own = {}) { supply_.want(StepId(step), own, now_); }
  // Since the last call, by step.
  Asked asked() {
    Asked all;
    for (const auto& effect : std::exchange(context_.effects, {})) {
      const auto& send = std::get<protocol::SendMessage>(effect);
      EXPECT_EQ(send.peer, kCoordinator);
      const auto& request = std::get<protocol::TokenRequest>(send.message);
      EXPECT_FALSE(all.contains(request.step)) << "in one message";
      for (std::uint32_t m = 0; m < request.microbatches.count(); ++m)
        if (request.microbatches.contains(MicrobatchId(m))) all[request.step].push_back(m);
    }
    return all;
  }
  static protocol::TokenIds ids(std::uint64_t step, std::uint32_t m, std::size_t bytes = 6) {
    return protocol::token_ids({StepId(step), MicrobatchId(m)}, Bytes(bytes, static_cast<std::uint8_t>(10 * step + m)));
  }
  bool has(std::uint64_t step, std::uint32_t m) const { return supply_.find(StepId(step), MicrobatchId(m)) != nullptr; }

  WorkerContext context_;
  TokenSupply supply_{context_};
  Time now_ = seconds(100);
};

TEST_F(Supply, AsksAheadForAllIfItIsAlone) {
  want(1);
  EXPECT_EQ(asked(), (Asked{{StepId(1), {0, 1, 2, 3}}, {StepId(2), {0, 1, 2, 3}}, {StepId(3), {0, 1, 2, 3}}}));
  want(1);
  EXPECT_EQ(asked(), Asked());  // once
  want(2);
  EXPECT_EQ(asked(), (Asked{{StepId(4), {0, 1, 2, 3}}}));
}

TEST_F(Supply, AsksAheadForTheSameShareBesideSiblings) {
  serve(kBeside);
  const std::set<MicrobatchId> own = {MicrobatchId(1), MicrobatchId(3)}, other = {MicrobatchId(0), MicrobatchId(1)};
  want(1, own);
  EXPECT_EQ(asked(), (Asked{{StepId(1), {1, 3}}, {StepId(2), {1, 3}}, {StepId(3), {1, 3}}}));
  want(2, other);  // it was wrong about one of them
  EXPECT_EQ(asked(), (Asked{{StepId(2), {0}}, {StepId(3), {0}}, {StepId(4), {0, 1}}}));
}

TEST_F(Supply, AsksForHeldOutIdsBeforeAnEvaluationAndKeepsThem) {
  want(8);
  EXPECT_FALSE(asked().contains(protocol::kHeldOut));
  want(9);
  EXPECT_EQ(asked().at(protocol::kHeldOut), std::vector<std::uint32_t>({0, 1, 2}));
  for (std::uint32_t m = 0; m < 3; ++m) EXPECT_TRUE(supply_.received(ids(0, m)));
  // Step 11 evaluates, behind its four training microbatches.
  EXPECT_FALSE(has(11, 3));
  ASSERT_TRUE(has(11, 4));
  EXPECT_EQ(supply_.find(StepId(11), MicrobatchId(6))->tokens->front(), 2);
  for (std::uint64_t step = 10; step <= 22; ++step) want(step);
  EXPECT_FALSE(asked().contains(protocol::kHeldOut));
  EXPECT_TRUE(has(21, 2));  // the last step only evaluates
}

TEST_F(Supply, AsksForNothingBehindTheEnd) {
  want(20);
  EXPECT_EQ(asked(), (Asked{{StepId(20), {0, 1, 2, 3}}, {protocol::kHeldOut, {0, 1, 2}}}));
  want(21);
  EXPECT_EQ(asked(), Asked());
}

TEST_F(Supply, IsBoundedAndDropsWhatIsOfOtherSteps) {
  for (std::uint64_t step = 1; step <= 20; ++step) {
    want(step);
    for (const auto& [of, microbatches] : asked())
      for (const auto m : microbatches) EXPECT_TRUE(supply_.received(ids(of.value, m)));
    EXPECT_LE(supply_.size(), protocol::samples_max(context_.plan));
    EXPECT_FALSE(has(step - 1, 0));
  }
  want(5);  // the run went back
  EXPECT_EQ(asked().size(), 3u);
  EXPECT_FALSE(has(5, 0));
  supply_.clear();
  EXPECT_EQ(supply_.size(), 0u);
  EXPECT_EQ(supply_.next_due(), kNever);
}

TEST_F(Supply, TakesOnlyWhatItAskedFor) {
  EXPECT_FALSE(supply_.received(ids(1, 0))) << "before anything was asked";
  want(1);
  EXPECT_FALSE(supply_.received(ids(1, 0, 5))) << "too short";
  EXPECT_FALSE(supply_.received(ids(1, 0, 7))) << "too long";
  EXPECT_FALSE(supply_.received(ids(1, 4))) << "no such microbatch";
  EXPECT_FALSE(supply_.received(ids(4, 0))) << "a later step";
  EXPECT_FALSE(supply_.received(ids(0, 0))) << "held out";
  protocol::TokenIds with_values = ids(1, 0);
  with_values.tensor.values = share(Bytes(1));
  EXPECT_FALSE(supply_.received(with_values));
  EXPECT_FALSE(has(1, 0));
  EXPECT_TRUE(supply_.received(ids(1, 0)));
  EXPECT_FALSE(supply_.received(ids(1, 0))) << "a second time";
  ASSERT_TRUE(has(1, 0));
  EXPECT_EQ(supply_.find(StepId(1), MicrobatchId(0))->tokens->front(), 10);
  want(2);
  EXPECT_FALSE(supply_.received(ids(1, 1))) << "of a step that is over";
}

TEST_F(Supply, AsksAgainForWhatDoesNotCome) {
  want(1);
  (void)asked();
  for (std::uint32_t m = 0; m < 3; ++m) EXPECT_TRUE(supply_.received(ids(1, m)));
  EXPECT_EQ(supply_.next_due(), now_ + kPatience);
  now_ += kPatience - std::chrono::milliseconds(1);
  supply_.tick(now_);
  EXPECT_EQ(asked(), Asked());
  now_ += std::chrono::milliseconds(1);
  supply_.tick(now_);
  EXPECT_EQ(asked(), (Asked{{StepId(1), {3}}, {StepId(2), {0, 1, 2, 3}}, {StepId(3), {0, 1, 2, 3}}}));
  EXPECT_EQ(supply_.next_due(), now_ + kPatience);
}

TEST_F(Supply, AsksAtOnceOverANewConnection) {
  want(1);
  (void)asked();
  EXPECT_TRUE(supply_.received(ids(1, 2)));
  supply_.ask_anew(now_);
  EXPECT_EQ(asked(), (Asked{{StepId(1), {0, 1, 3}}, {StepId(2), {0, 1, 2, 3}}, {StepId(3), {0, 1, 2, 3}}}));
  EXPECT_TRUE(has(1, 2));
}

TEST(SupplyOfAnotherStage, AsksForNothing) {
  WorkerContext context{plan(), {PeerId(1), StageId(1), ReplicaId(0), {}, kPatience}, {}, {}, kOwn, {}};
  TokenSupply supply(context);
  supply.want(StepId(1), {MicrobatchId(0)}, seconds(1));
  supply.ask_anew(seconds(1));
  EXPECT_TRUE(context.effects.empty());
}

}  // namespace
}  // namespace isthmus::router
