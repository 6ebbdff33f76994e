// A worker of a stage that nobody serves, and the checkpoint that the run's vault has of it.
#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "router/worker_steps.h"

namespace isthmus::router {
namespace {

// The middle one of three stages, at step 61: the vault has version 40 of it.
class VaultedWeights : public ::testing::Test {
 protected:
  VaultedWeights()
      : plan_(three_stages()), worker_(plan_, {PeerId(2), StageId(1), ReplicaId(0), {}, seconds(2)}, {}, 5) {
    view_.epoch = EpochId(3);
    view_.step = StepId(61);
    view_.live = {{PeerId(1), SessionId(10), StageId(0), ReplicaId(0), {}, {}},
                  {PeerId(3), SessionId(30), StageId(2), ReplicaId(0), {}, {}}};
    view_.vaulted = 40;
  }
  static protocol::Plan three_stages() {
    protocol::Plan plan;
    for (std::uint32_t s = 0; s < 3; ++s) plan.stages.push_back({s, s + 1, 1, 4, 5, 40});
    plan.steps = 100;
    plan.microbatches = 1;
    plan.token_bytes = plan.forward_bytes = plan.backward_bytes = 8;
    return plan;
  }
  // The commits that weights of this version miss.
  void misses(std::uint64_t version) {
    view_.replay.clear();
    for (std::uint64_t step = version + 1; step < view_.step.value; ++step)
      view_.replay.push_back({StepId(step), 0, EpochId(2), 1, true, {}});
  }
  void hear(std::vector<protocol::WorkerEffect> effects) {
    for (auto& effect : effects) {
      if (const auto* load = std::get_if<protocol::RunLoad>(&effect)) loads_.push_back(*load);
      auto* send = std::get_if<protocol::SendMessage>(&effect);
      if (!send) continue;
      if (auto* report = std::get_if<protocol::Report>(&send->message)) report_ = *report;
      if (auto* fetch = std::get_if<protocol::Fetch>(&send->message)) fetches_.push_back(fetch->piece);
    }
  }
  // The next view, and what time brings.
  void sees() {
    ++view_.epoch.value;
    hear(worker_.view_received(view_, now_));
    for (int i = 0; i < 20; ++i) {
      now_ += std::chrono::milliseconds(100);
      hear(worker_.tick(now_));
    }
  }
  void loaded(std::uint64_t version) { hear(worker_.job_done(protocol::LoadDone{version, ""}, now_)); }
  std::vector<std::uint64_t> asked_for() {
    std::vector<std::uint64_t> versions;
    for (const auto& load : std::exchange(loads_, {})) versions.push_back(load.version);
    return versions;
  }
  // The step that is repeated from the neighbours' journals; nothing: none.
  std::optional<std::uint64_t> repeats() const {
    const auto kind = [](const protocol::Piece& p) { return p.kind == protocol::PieceKind::kInput; };
    const auto at = std::ranges::find_if(fetches_, kind);
    return at == fetches_.end() ? std::nullopt : std::optional(at->version);
  }
  bool fetches_of_siblings() const {
    return std::ranges::any_of(fetches_, [](const auto& p) { return p.kind == protocol::PieceKind::kSnapshot; });
  }
  using Versions = std::vector<std::uint64_t>;

  const protocol::Plan plan_;
  WorkerSteps worker_;
  protocol::View view_;
  Time now_ = seconds(1);
  std::vector<protocol::RunLoad> loads_;
  std::vector<protocol::Piece> fetches_;
  protocol::Report report_;
};

TEST_F(VaultedWeights, AreAskedForOnceAndTheRestIsRepeated) {
  misses(40);
  sees();
  ASSERT_EQ(loads_.size(), 1u);
  EXPECT_EQ(loads_[0].version, 40u);
  EXPECT_EQ(loads_[0].timeline, 0u);
  EXPECT_EQ(report_.version, protocol::kNoVersion);
  sees();
  EXPECT_EQ(loads_.size(), 1u);
  EXPECT_EQ(repeats(), std::nullopt) << "it waits for the vault";
  loaded(40);
  EXPECT_EQ(worker_.version(), 40u);
  sees();
  EXPECT_EQ(loads_.size(), 1u);
  EXPECT_EQ(repeats(), 41u);
}

TEST_F(VaultedWeights, AreNotAskedForAgainIfTheVaultDoesNotGiveThem) {
  misses(20);
  sees();
  EXPECT_EQ(asked_for(), Versions({40}));
  loaded(20);
  sees();
  sees();
  EXPECT_EQ(asked_for(), Versions());
  EXPECT_EQ(repeats(), 21u);
  // And nobody has what it would have to repeat.
  view_.live.clear();
  for (int i = 0; i < 10; ++i) sees();
  EXPECT_EQ(report_.unrecoverable, "nobody is left of stage 2");
  EXPECT_EQ(report_.version, 20u);
  EXPECT_EQ(asked_for(), Versions());
  // It may be able to later, or have a newer one.
  for (int i = 0; i < 30; ++i) sees();
  EXPECT_EQ(asked_for(), Versions({40}));
  loaded(20);
  view_.vaulted = 60;
  sees();
  EXPECT_EQ(asked_for(), Versions({60}));
}

TEST_F(VaultedWeights, AreOfNoUseToWhoHasNewerOnesOrOfVersionsToCome) {
  view_.vaulted = 61;
  misses(0);
  sees();
  EXPECT_EQ(asked_for(), Versions());
  EXPECT_EQ(repeats(), 1u);
  view_.vaulted = 60;
  sees();
  EXPECT_EQ(asked_for(), Versions({60}));
  loaded(60);
  view_.vaulted = 40;
  view_.step = StepId(70);
  misses(60);
  sees();
  EXPECT_EQ(asked_for(), Versions());
  EXPECT_EQ(repeats(), 1u);
}

TEST_F(VaultedWeights, AreNotAskedForWhereSiblingsServe) {
  view_.live.push_back({PeerId(4), SessionId(40), StageId(1), ReplicaId(1), {}, {}});
  sees();
  EXPECT_EQ(asked_for(), Versions());
  EXPECT_TRUE(fetches_of_siblings());
}

TEST_F(VaultedWeights, MayBeAskedForAgainOnceSiblingsCameAndWent) {
  sees();
  EXPECT_EQ(asked_for(), Versions({40}));
  loaded(0);
  sees();
  EXPECT_EQ(asked_for(), Versions());
  view_.live.push_back({PeerId(4), SessionId(40), StageId(1), ReplicaId(1), {}, {}});
  sees();
  EXPECT_EQ(asked_for(), Versions());
  view_.live.pop_back();
  sees();
  EXPECT_EQ(asked_for(), Versions({40}));
}

// What is on its way is of a past that did not happen.
TEST_F(VaultedWeights, CountForNothingIfTheRunGoesBackMeanwhile) {
  sees();
  EXPECT_EQ(asked_for(), Versions({40}));
  view_.rollbacks = {20};
  view_.step = StepId(21);
  view_.vaulted = 20;
  sees();
  ASSERT_EQ(loads_.size(), 1u) << "behind the other one";
  EXPECT_EQ(loads_[0].version, 0u);
  EXPECT_EQ(loads_[0].timeline, 1u);
  loads_.clear();
  loaded(40);
  EXPECT_EQ(worker_.version(), 0u) << "with 40 it would overlook views of the steps before";
  sees();
  EXPECT_EQ(report_.version, protocol::kNoVersion);
  EXPECT_EQ(asked_for(), Versions());
  loaded(0);
  EXPECT_EQ(worker_.version(), 0u);
  sees();
  EXPECT_EQ(asked_for(), Versions({20}));
  loaded(20);
  EXPECT_EQ(worker_.version(), 20u);
  EXPECT_EQ(report_.version, 20u);
}

// Another stage, lost as well, cannot be repeated, so that all go back to the version that is on its way here.
TEST_F(VaultedWeights, CountIfTheRunGoesBackToThemMeanwhile) {
  sees();
  EXPECT_EQ(asked_for(), Versions({40}));
  view_.rollbacks = {40};
  view_.step = StepId(41);
  sees();
  EXPECT_EQ(asked_for(), Versions()) << "it would remove what comes";
  loaded(40);
  EXPECT_EQ(worker_.version(), 40u);
  sees();
  EXPECT_EQ(report_.version, 40u);
  EXPECT_EQ(report_.timeline, 1u);
}

}  // namespace
}  // namespace isthmus::router
