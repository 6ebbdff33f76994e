// A stage brought back from the journals of its neighbours: the test answers for them, and for the device.
#include "router/stage_rebuild.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>

namespace isthmus::router {
namespace {

constexpr SessionId kOurs(33);

// A stage of one in the middle, two members before it, one behind it.
protocol::Plan three_stages() {
  protocol::Plan plan;
  for (std::uint32_t s = 0; s < 3; ++s) plan.stages.push_back({s, s + 1, s == 0 ? 2u : 1u, 4, 5, 40});
  plan.steps = 9;
  plan.microbatches = 2;
  plan.token_bytes = plan.forward_bytes = plan.backward_bytes = 8;
  return plan;
}

protocol::Member member(std::uint32_t peer, std::uint32_t stage, std::uint32_t replica) {
  return {PeerId(peer), SessionId(10 + peer), StageId(stage), ReplicaId(replica), {}, {}};
}

compress::EncodedTensor tensor(std::uint8_t value) { return {share(Bytes(8, value)), nullptr}; }

class Rebuild : public ::testing::Test {
 protected:
  struct Asked {
    PeerId of;
    protocol::Fetch fetch;
  };

  explicit Rebuild(std::uint32_t stage = 1)
      : context_{three_stages(), {PeerId(3), StageId(stage), ReplicaId(0), {}, seconds(2), 10e6}, {}, {}, kOurs, {}} {
    protocol::View& view = context_.view;
    view.epoch = EpochId(20);
    view.step = StepId(6);
    for (const auto& m : {member(1, 0, 0), member(2, 0, 1), member(4, 2, 0)})
      if (m.stage != StageId(stage)) view.live.push_back(m);
    view.replay = {{StepId(4), 2, EpochId(12), .5, true}, {StepId(5), 0, EpochId(15), .25, true}};
  }

  void pursue() {
    rebuild_.pursue(version_, now_);
    sort_out();
  }
  // What was sent goes to `asked_`, what the device is to do to `jobs_`.
  void sort_out() {
    for (auto& effect : std::exchange(context_.effects, {})) {
      auto* send = std::get_if<protocol::SendMessage>(&effect);
      auto* request = send ? std::get_if<protocol::TokenRequest>(&send->message) : nullptr;
      if (request)
        requested_.push_back(std::move(*request));
      else if (send)
        asked_.push_back({send->peer, std::get<protocol::Fetch>(send->message)});
      else
        jobs_.push_back(std::move(effect));
    }
  }
  bool answer(PeerId from, const protocol::Piece& piece, std::uint8_t value = 1) {
    const bool taken = rebuild_.received(
        protocol::Chunk{SessionId(10 + from.value), kOurs, 0, piece, "", {}, tensor(value)}, from, version_, now_);
    sort_out();
    return taken;
  }
  void deny(PeerId from, const protocol::Piece& piece) {
    rebuild_.received(protocol::Absent{SessionId(10 + from.value), kOurs, 0, piece}, from);
  }
  // Everything that was asked for is answered: with its microbatch, gradients with 100 more.
  void answer_all() {
    for (const auto& asked : std::exchange(asked_, {})) {
      const protocol::Piece& piece = asked.fetch.piece;
      EXPECT_TRUE(
          answer(asked.of, piece,
                 static_cast<std::uint8_t>(piece.index + (piece.kind == protocol::PieceKind::kGradient ? 100 : 0))));
    }
  }
  // The device does all it was given, in order; returns how it would tell it.
  std::vector<std::string> work() {
    std::vector<std::string> told;
    for (auto& job : std::exchange(jobs_, {})) {
      if (const auto* run = std::get_if<protocol::RunOperation>(&job)) {
        const char* names[] = {"F", "I", "W"};
        std::string text = names[static_cast<int>(run->task.operation)] + std::to_string(run->task.microbatch.value);
        if (run->tensor.values) text += "(" + std::to_string(run->tensor.values->front()) + ")";
        if (run->tensor.tokens) text += "[" + std::to_string(run->tensor.tokens->front()) + "]";
        told.push_back(text);
        EXPECT_TRUE(run->training);
        EXPECT_TRUE(rebuild_.operation_done({run->tag, run->task, {}, {}, {}}));
      } else if (std::holds_alternative<protocol::RunPrepare>(job)) {
        told.push_back("prepare");
      } else if (const auto* apply = std::get_if<protocol::RunApply>(&job)) {
        told.push_back("apply " + std::to_string(apply->commit.step.value));
        applied_.push_back(apply->commit);
      } else if (std::holds_alternative<protocol::RunDropStep>(job)) {
        told.push_back("drop");
      } else {
        told.push_back("?");
      }
    }
    return told;
  }
  std::vector<protocol::Piece> asked_of(std::uint32_t peer) const {
    std::vector<protocol::Piece> pieces;
    for (const auto& asked : asked_)
      if (asked.of == PeerId(peer)) pieces.push_back(asked.fetch.piece);
    return pieces;
  }

  WorkerContext context_;
  TokenSupply tokens_{context_};
  StageRebuild rebuild_{context_, tokens_};
  std::uint64_t version_ = 3;
  Time now_ = seconds(100);
  std::vector<Asked> asked_;
  std::vector<protocol::TokenRequest> requested_;
  std::vector<protocol::WorkerEffect> jobs_;
  std::vector<protocol::Commit> applied_;
};

struct RebuildOfTheHead : Rebuild {
  RebuildOfTheHead() : Rebuild(0) {}
};
struct RebuildOfTheTail : Rebuild {
  RebuildOfTheTail() : Rebuild(2) {}
};

const protocol::Piece kInput0{protocol::PieceKind::kInput, 4, 2, 0}, kInput1{protocol::PieceKind::kInput, 4, 2, 1};
const protocol::Piece kGradient0{protocol::PieceKind::kGradient, 4, 2, 0},
    kGradient1{protocol::PieceKind::kGradient, 4, 2, 1};
using Pieces = std::vector<protocol::Piece>;
using Told = std::vector<std::string>;

TEST_F(Rebuild, AsksTheStageBeforeForInputsAndTheOneBehindForGradients) {
  pursue();
  ASSERT_EQ(asked_.size(), 4u);
  // The two before it share: each is asked for one.
  EXPECT_EQ(asked_of(1), Pieces({kInput0}));
  EXPECT_EQ(asked_of(2), Pieces({kInput1}));
  EXPECT_EQ(asked_of(4), Pieces({kGradient0, kGradient1}));
  for (const auto& asked : asked_) {
    EXPECT_EQ(asked.fetch.from, kOurs);
    EXPECT_EQ(asked.fetch.to, SessionId(10 + asked.of.value));
  }
  pursue();  // once is enough
  EXPECT_EQ(asked_.size(), 4u);
}

TEST_F(RebuildOfTheHead, HasItsInputsFromTheCoordinator) {
  pursue();
  EXPECT_EQ(asked_of(4), Pieces());
  // Those of the step that it repeats, and of the next ones at once.
  std::vector<StepId> steps;
  for (const auto& request : requested_) {
    steps.push_back(request.step);
    EXPECT_TRUE(request.microbatches.full());
  }
  EXPECT_EQ(steps, std::vector<StepId>({StepId(4), StepId(5), StepId(6)}));
  // Nobody of the next stage is there but one that joins: it has the journal of its earlier life.
  context_.view.joining.push_back(member(5, 1, 0));
  pursue();
  EXPECT_EQ(asked_of(5), Pieces({kGradient0, kGradient1}));
  EXPECT_EQ(asked_.size(), 2u);
  answer_all();
  EXPECT_EQ(work(), Told({"drop"}));
  EXPECT_NE(rebuild_.progress().find("tokens from the coordinator"), std::string::npos);
  for (const std::uint32_t m : {1u, 0u}) {
    EXPECT_TRUE(tokens_.received(
        protocol::token_ids({StepId(4), MicrobatchId(m)}, Bytes(8, static_cast<std::uint8_t>(7 + m)))));
    pursue();
  }
  EXPECT_EQ(work(), Told({"F1[8]", "I1(101)", "W1", "F0[7]", "I0(100)", "W0"}));
  EXPECT_EQ(rebuild_.progress().find("tokens"), std::string::npos);
}

TEST_F(RebuildOfTheTail, HasItsGradientsFromTheLoss) {
  context_.view.live.push_back(member(5, 1, 0));
  pursue();
  EXPECT_EQ(asked_of(5), Pieces({kInput0, kInput1}));
  EXPECT_EQ(asked_.size(), 2u);
  answer_all();
  EXPECT_EQ(work(), Told({"drop", "F0(0)", "I0", "W0", "F1(1)", "I1", "W1"}));
}

TEST_F(Rebuild, RepeatsTheStepsInTheOrderOfTheirCommits) {
  std::swap(context_.view.replay[0], context_.view.replay[1]);  // the list's own order does not matter
  pursue();
  answer_all();
  EXPECT_EQ(work(), Told({"drop", "F0(0)", "I0(100)", "W0", "F1(1)", "I1(101)", "W1"}));
  EXPECT_EQ(version_, 3u);
  pursue();
  EXPECT_EQ(version_, 4u);
  EXPECT_EQ(asked_of(4),
            Pieces({{protocol::PieceKind::kGradient, 5, 0, 0}, {protocol::PieceKind::kGradient, 5, 0, 1}}));
  EXPECT_EQ(work(), Told({"prepare", "apply 4", "drop"}));
  answer_all();
  EXPECT_EQ(work(), Told({"F0(0)", "I0(100)", "W0", "F1(1)", "I1(101)", "W1"}));
  pursue();
  EXPECT_EQ(work(), Told({"prepare", "apply 5"}));
  EXPECT_EQ(version_, 5u);
  ASSERT_EQ(applied_.size(), 2u);
  EXPECT_EQ(applied_[0], (protocol::Commit{StepId(4), 2, EpochId(12), .5, true}));
  EXPECT_EQ(applied_[1], (protocol::Commit{StepId(5), 0, EpochId(15), .25, true}));
  pursue();
  EXPECT_TRUE(asked_.empty());  // it is where the others are
  EXPECT_EQ(rebuild_.next_due(), kNever);
}

TEST_F(Rebuild, DoesNotSumUpAStepThatWasSkipped) {
  context_.view.replay[0].apply = false;
  pursue();
  EXPECT_EQ(version_, 4u);
  EXPECT_EQ(work(), Told({"drop", "apply 4", "drop"}));
  EXPECT_EQ(asked_of(4),
            Pieces({{protocol::PieceKind::kGradient, 5, 0, 0}, {protocol::PieceKind::kGradient, 5, 0, 1}}));
}

TEST_F(Rebuild, WaitsForADecisionThatItsViewDoesNotShow) {
  version_ = 2;
  pursue();
  EXPECT_TRUE(asked_.empty());
  EXPECT_TRUE(jobs_.empty());
  context_.view.replay.insert(context_.view.replay.begin(), {StepId(3), 0, EpochId(9), 1, false});
  pursue();
  EXPECT_EQ(version_, 3u);
  EXPECT_EQ(asked_.size(), 4u);
}

TEST_F(Rebuild, GivesTheDeviceAMicrobatchWhenBothOfItsTensorsAreThere) {
  pursue();
  EXPECT_TRUE(answer(PeerId(1), kInput0));
  EXPECT_TRUE(answer(PeerId(4), kGradient1));
  EXPECT_EQ(work(), Told({"drop"}));
  EXPECT_TRUE(answer(PeerId(2), kInput1, 7));
  EXPECT_EQ(work(), Told({"F1(7)", "I1(1)", "W1"}));
}

TEST_F(Rebuild, TakesOnlyWhatItAskedForFromWhomItAsked) {
  EXPECT_FALSE(answer(PeerId(1), kInput0)) << "before anything was asked";
  pursue();
  EXPECT_FALSE(answer(PeerId(2), kInput0)) << "asked of another";
  EXPECT_FALSE(answer(PeerId(9), kInput0)) << "asked of nobody like that";
  EXPECT_FALSE(answer(PeerId(1), kGradient0)) << "a gradient from the stage before";
  EXPECT_FALSE(answer(PeerId(4), kInput0)) << "an input from the stage behind";
  EXPECT_FALSE(answer(PeerId(1), {protocol::PieceKind::kInput, 5, 2, 0})) << "another step";
  EXPECT_FALSE(answer(PeerId(1), {protocol::PieceKind::kInput, 4, 0, 0})) << "another attempt";
  EXPECT_FALSE(answer(PeerId(1), {protocol::PieceKind::kInput, 4, 2, UINT32_MAX})) << "no such microbatch";
  EXPECT_FALSE(answer(PeerId(1), {protocol::PieceKind::kSnapshot, 4, 2, 0}));
  EXPECT_FALSE(
      rebuild_.operation_done({{StepId(4), 2, kOurs}, {protocol::Operation::kForward, MicrobatchId(0)}, {}, {}, {}}))
      << "of a step that is not repeated";
  EXPECT_EQ(work(), Told({"drop"}));
  EXPECT_TRUE(answer(PeerId(1), kInput0));
  EXPECT_FALSE(answer(PeerId(1), kInput0, 9)) << "a second time";
  EXPECT_TRUE(answer(PeerId(4), kGradient0));
  EXPECT_EQ(work(), Told({"F0(1)", "I0(1)", "W0"}));
}

TEST_F(Rebuild, AsksTheOtherWhenOneDoesNotHaveIt) {
  pursue();
  deny(PeerId(2), kInput0);  // was not asked
  deny(PeerId(1), kInput0);
  asked_.clear();
  pursue();
  EXPECT_EQ(asked_of(2), Pieces({kInput0}));
  EXPECT_EQ(asked_.size(), 1u);
  EXPECT_TRUE(rebuild_.impossible().empty());
  EXPECT_TRUE(answer(PeerId(2), kInput0));
}

TEST_F(Rebuild, SaysThatItCannotWhenNoNeighbourHasItForLong) {
  pursue();
  const Time began = now_;
  // A neighbour that died may come back with its journal, so all are asked again for a while.
  std::size_t times = 0;
  for (int turn = 0; turn < 1000 && rebuild_.impossible().empty(); ++turn) {
    for (const auto& asked : std::exchange(asked_, {})) {
      if (asked.fetch.piece != kInput1) continue;
      ++times;
      deny(asked.of, kInput1);
    }
    pursue();
    if (asked_.empty()) now_ = std::max(now_ + std::chrono::milliseconds(1), rebuild_.next_due());
  }
  EXPECT_EQ(rebuild_.impossible(), "no journal holds the input of microbatch 1 in step 4");
  EXPECT_GE(now_ - began, seconds(10));
  EXPECT_LT(now_ - began, seconds(12));
  EXPECT_GE(times, 2 * 9u);   // both, every second
  EXPECT_LE(times, 2 * 12u);  // and not more often
  rebuild_.stop();
  EXPECT_TRUE(rebuild_.impossible().empty());
}

TEST_F(Rebuild, GoesOnWhenTheJournalComesBack) {
  pursue();
  for (const std::uint32_t peer : {1u, 2u}) {
    deny(PeerId(peer), kInput0);
    pursue();
  }
  EXPECT_NE(rebuild_.progress().find("no journal holds"), std::string::npos);
  now_ += seconds(5);
  asked_.clear();
  pursue();
  const auto again = std::ranges::find(asked_, kInput0, [](const Asked& a) { return a.fetch.piece; });
  ASSERT_NE(again, asked_.end());
  EXPECT_TRUE(answer(again->of, kInput0));
  now_ += seconds(20);
  pursue();
  EXPECT_TRUE(rebuild_.impossible().empty());
  EXPECT_EQ(rebuild_.progress().find("no journal holds"), std::string::npos);
}

TEST_F(Rebuild, SaysThatItCannotWhenAWholeNeighbourIsGone) {
  context_.view.live.pop_back();
  pursue();
  EXPECT_EQ(asked_.size(), 2u);  // the inputs are worth having all the same
  now_ += std::chrono::milliseconds(9999);
  pursue();
  EXPECT_TRUE(rebuild_.impossible().empty());
  now_ += std::chrono::milliseconds(1);
  pursue();
  EXPECT_EQ(rebuild_.impossible(), "nobody is left of stage 2");
}

TEST_F(Rebuild, AsksAgainWhenANeighbourStaysSilent) {
  pursue();
  asked_.clear();
  now_ = rebuild_.next_due() - std::chrono::milliseconds(1);
  pursue();
  EXPECT_TRUE(asked_.empty());
  now_ += std::chrono::milliseconds(1);
  pursue();
  EXPECT_EQ(asked_of(4), Pieces({kGradient0, kGradient1}));
  EXPECT_EQ(asked_.size(), 4u);
  EXPECT_TRUE(rebuild_.impossible().empty());
}

TEST_F(Rebuild, AsksAnotherWhenOneIsGone) {
  pursue();
  asked_.clear();
  std::erase_if(context_.view.live, [](const protocol::Member& m) { return m.peer == PeerId(1); });
  pursue();
  EXPECT_EQ(asked_of(2), Pieces({kInput0}));
  EXPECT_FALSE(answer(PeerId(1), kInput0)) << "the old one, late";
}

TEST_F(Rebuild, AsksAgainAtOnceOnANewConnection) {
  pursue();
  asked_.clear();
  rebuild_.forget_asked(PeerId(4));
  pursue();
  EXPECT_EQ(asked_of(4), Pieces({kGradient0, kGradient1}));
  EXPECT_EQ(asked_.size(), 2u);
}

// What the device still does for a try that was given up is not taken for the next one's.
TEST_F(Rebuild, StartsTheStepAnewAfterItWasStopped) {
  pursue();
  answer_all();
  const auto given = std::exchange(jobs_, {});
  rebuild_.stop();
  sort_out();
  EXPECT_EQ(work(), Told({"drop"}));
  pursue();
  for (const auto& job : given)
    if (const auto* run = std::get_if<protocol::RunOperation>(&job)) {
      EXPECT_FALSE(rebuild_.operation_done({run->tag, run->task, {}, {}, {}}));
    }
  pursue();
  EXPECT_EQ(version_, 3u);
  answer_all();
  EXPECT_EQ(work(), Told({"drop", "F0(0)", "I0(100)", "W0", "F1(1)", "I1(101)", "W1"}));
  pursue();
  EXPECT_EQ(version_, 4u);
}

}  // namespace
}  // namespace isthmus::router
