#include "scheduler/coordinator/coordinator.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "seated.h"

namespace isthmus::coordinator {
namespace {

constexpr std::uint32_t kStages = 2;

protocol::Plan two_stages(std::uint64_t steps = 2) {
  protocol::Plan plan;
  plan.stages = {{0, 1, 1, 4}, {1, 2, 1, 4}};
  plan.steps = steps;
  plan.microbatches = 2;
  plan.tokens_per_microbatch = 10;
  return plan;
}

// Speaks for the workers and keeps what the coordinator says.
class CoordinatorTest : public ::testing::Test {
 protected:
  CoordinatorTest() : plan_(two_stages()), coordinator_(seated(plan_, seats(), options())) {}

  static std::vector<Seat> seats() {
    return {{PeerId(1), StageId(0), ReplicaId(0), {}}, {PeerId(2), StageId(1), ReplicaId(0), {}}};
  }
  static Coordinator::Options options() {
    Coordinator::Options options;
    options.clip = 1.0;
    return options;
  }

  void hear(std::vector<CoordinatorEffect> effects) {
    for (auto& effect : effects) {
      if (auto* append = std::get_if<AppendRecord>(&effect)) log_.push_back(append->record);
      if (auto* send = std::get_if<SendView>(&effect)) views_[send->peer] = send->view;
      if (auto* step = std::get_if<StepCommitted>(&effect)) outcomes_.push_back(step->outcome);
      if (auto* happened = std::get_if<Happened>(&effect)) events_.push_back(*happened);
      if (auto* end = std::get_if<RunEnded>(&effect)) end_ = *end;
    }
  }
  protocol::Report report(std::uint32_t stage, std::uint64_t session, std::uint64_t version) const {
    protocol::Report r;
    r.session = SessionId(session);
    r.stage = StageId(stage);
    r.version = version;
    r.attempt = coordinator_.decisions().attempt;
    r.done = DoneSet(plan_.count(coordinator_.decisions().step));
    return r;
  }
  void join(std::uint32_t stage, std::uint64_t session, std::uint64_t version = 0) {
    hear(coordinator_.received(PeerId(stage + 1), report(stage, session, version), now_));
  }
  void begin() {
    hear(coordinator_.begin(0, now_));
    join(0, 100);
    join(1, 200);
  }
  // A worker that has done all its work and prepared in the current epoch.
  protocol::Report prepared(std::uint32_t stage, std::uint64_t session) const {
    protocol::Report r = report(stage, session, coordinator_.decisions().step.value - 1);
    r.step = coordinator_.decisions().step;
    for (std::uint32_t m = 0; m < r.done.count(); ++m) r.done.insert(MicrobatchId(m));
    r.prepared_epoch = coordinator_.decisions().epoch;
    r.norms = {{stage == 0 ? "layer.0" : "layer.1", 2.0}};
    if (stage == 1)
      for (std::uint32_t m = 0; m < r.done.count(); ++m) r.losses.push_back({MicrobatchId(m), 30.0, 10});
    return r;
  }
  void say(std::uint32_t stage, const protocol::Report& r) { hear(coordinator_.received(PeerId(stage + 1), r, now_)); }

  const protocol::Plan plan_;
  Coordinator coordinator_;
  Time now_ = seconds(100);
  std::vector<LogRecord> log_;
  std::map<PeerId, protocol::View> views_;
  std::vector<StepOutcome> outcomes_;
  std::vector<Happened> events_;
  std::optional<RunEnded> end_;
};

TEST_F(CoordinatorTest, AdmitsAWorkerOfEachStageAndDealsTheHead) {
  begin();
  const protocol::View& view = views_.at(PeerId(1));
  EXPECT_EQ(view.step, StepId(1));
  EXPECT_EQ(view.live.size(), 2u);
  EXPECT_EQ(view.head_owner, std::vector<SessionId>({SessionId(100), SessionId(100)}));
  EXPECT_EQ(view.head_again, std::vector<bool>({false, false}));
}

TEST_F(CoordinatorTest, CommitsOnceEveryStageHasPrepared) {
  begin();
  say(0, prepared(0, 100));
  EXPECT_TRUE(outcomes_.empty());
  say(1, prepared(1, 200));
  ASSERT_EQ(outcomes_.size(), 1u);
  EXPECT_DOUBLE_EQ(outcomes_[0].figures.loss, 3.0);
  EXPECT_DOUBLE_EQ(outcomes_[0].figures.grad_norm, 2.0);
  EXPECT_DOUBLE_EQ(outcomes_[0].commit.scale, 0.5);  // clip 1 / norm 2
  EXPECT_TRUE(outcomes_[0].commit.apply);
  EXPECT_EQ(views_.at(PeerId(1)).step, StepId(2));
  EXPECT_EQ(views_.at(PeerId(1)).last_commit, outcomes_[0].commit);
}

TEST_F(CoordinatorTest, DoesNotCommitWithoutEveryMicrobatch) {
  begin();
  say(0, prepared(0, 100));
  protocol::Report half = prepared(1, 200);
  half.done = DoneSet(2);
  half.done.insert(MicrobatchId(0));
  say(1, half);
  EXPECT_TRUE(outcomes_.empty());
}

TEST_F(CoordinatorTest, DoesNotCountSumsPreparedInAnOlderEpoch) {
  begin();
  protocol::Report old = prepared(0, 100);
  old.prepared_epoch = EpochId(old.prepared_epoch.value - 1);
  say(0, old);
  say(1, prepared(1, 200));
  EXPECT_TRUE(outcomes_.empty());
  EXPECT_TRUE(views_.at(PeerId(1)).preparing);
}

TEST_F(CoordinatorTest, SkipsAStepWhoseGradientIsNotFinite) {
  begin();
  protocol::Report bad = prepared(0, 100);
  bad.finite = false;
  say(0, bad);
  say(1, prepared(1, 200));
  ASSERT_EQ(outcomes_.size(), 1u);
  EXPECT_FALSE(outcomes_[0].commit.apply);
}

TEST_F(CoordinatorTest, ExpelsTheOldLifeOfAPeerThatStartsAgain) {
  begin();
  say(0, prepared(0, 100));
  join(0, 101);
  EXPECT_EQ(coordinator_.decisions().find(SessionId(100)), nullptr);
  ASSERT_NE(coordinator_.decisions().find(SessionId(101)), nullptr);
  const protocol::View& view = views_.at(PeerId(1));
  EXPECT_EQ(view.head_owner[0], SessionId(101));
  EXPECT_TRUE(view.head_again[0]);
  // What the old life did counts for nothing and is done again.
  say(1, prepared(1, 200));
  EXPECT_TRUE(outcomes_.empty());
  say(0, prepared(0, 101));
  ASSERT_EQ(outcomes_.size(), 1u);
  EXPECT_EQ(outcomes_[0].figures.replayed, 2u);
}

TEST_F(CoordinatorTest, NeverAdmitsASessionTwice) {
  begin();
  join(0, 101);
  join(0, 100);
  EXPECT_EQ(coordinator_.decisions().find(SessionId(100)), nullptr);
  EXPECT_NE(coordinator_.decisions().find(SessionId(101)), nullptr);
}

TEST_F(CoordinatorTest, ExpelsASilentWorkerButNotAfterItsOwnPause) {
  begin();
  const auto wait = [&](double s, double tick, bool all_alive) {
    for (double t = 0; t < s; t += tick) {
      now_ += seconds(tick);
      say(0, report(0, 100, 0));
      if (all_alive) say(1, report(1, 200, 0));
      hear(coordinator_.tick(now_));
    }
  };
  wait(11, .1, true);
  now_ += seconds(5);  // the coordinator's own machine stood still
  hear(coordinator_.tick(now_));
  EXPECT_EQ(coordinator_.decisions().live.size(), 2u);
  wait(9, .1, false);
  EXPECT_EQ(coordinator_.decisions().live.size(), 2u);
  wait(3, .1, false);
  EXPECT_EQ(coordinator_.decisions().find(SessionId(200)), nullptr);
}

TEST_F(CoordinatorTest, RefusesWeightsOfAnotherVersionAndForeignSeats) {
  hear(coordinator_.begin(0, now_));
  join(0, 100, 7);
  EXPECT_TRUE(coordinator_.decisions().live.empty());
  hear(coordinator_.received(PeerId(1), report(1, 100, 0), now_));
  hear(coordinator_.received(PeerId(9), report(0, 100, 0), now_));
  EXPECT_TRUE(coordinator_.decisions().live.empty());
}

TEST_F(CoordinatorTest, ComesBackFromItsLogAndRepeatsTheLastDecision) {
  begin();
  say(0, prepared(0, 100));
  say(1, prepared(1, 200));
  Coordinator again = seated(plan_, seats(), options());
  again.replay(log_);
  EXPECT_EQ(again.decisions().epoch, coordinator_.decisions().epoch);
  EXPECT_EQ(again.decisions().step, StepId(2));
  EXPECT_EQ(again.decisions().live, coordinator_.decisions().live);
  EXPECT_EQ(again.decisions().last_commit, coordinator_.decisions().last_commit);
  hear(again.connected(PeerId(1), now_));
  EXPECT_EQ(views_.at(PeerId(1)).last_commit->step, StepId(1));
}

TEST_F(CoordinatorTest, FinishesAfterTheEvaluationStepWithEveryUnitsDigest) {
  begin();
  for (int step = 0; step < 3; ++step) {
    say(0, prepared(0, 100));
    say(1, prepared(1, 200));
  }
  EXPECT_EQ(outcomes_.size(), 3u);
  EXPECT_FALSE(outcomes_[2].commit.apply);
  EXPECT_EQ(views_.at(PeerId(2)).phase, protocol::Phase::kFinished);
  for (std::uint32_t stage = 0; stage < kStages; ++stage) {
    protocol::Report last = report(stage, stage == 0 ? 100 : 200, 3);
    last.left = true;
    last.weights = {{stage == 0 ? "layer.0" : "layer.1", "aa"}};
    say(stage, last);
  }
  ASSERT_TRUE(end_);
  EXPECT_TRUE(end_->finished);
  EXPECT_EQ(end_->weights_hash.size(), 2u);
}

TEST_F(CoordinatorTest, StopsEverybodyOnAFaultAndSaysWhy) {
  begin();
  protocol::Report broken = report(1, 200, 0);
  broken.fault = "the disk is full";
  say(1, broken);
  EXPECT_EQ(views_.at(PeerId(1)).phase, protocol::Phase::kStopping);
  EXPECT_NE(views_.at(PeerId(1)).reason.find("the disk is full"), std::string::npos);
  for (std::uint32_t stage = 0; stage < kStages; ++stage) {
    protocol::Report last = report(stage, stage == 0 ? 100 : 200, 0);
    last.left = true;
    say(stage, last);
  }
  ASSERT_TRUE(end_);
  EXPECT_FALSE(end_->finished);
}

TEST_F(CoordinatorTest, SuspectsTheSilentBeforeItExpelsThem) {
  begin();
  const Time start = now_;
  while (now_ < start + seconds(30) && views_.at(PeerId(1)).suspected.empty()) {
    now_ += seconds(.1);
    say(0, report(0, 100, 0));
    hear(coordinator_.tick(now_));
  }
  EXPECT_EQ(views_.at(PeerId(1)).suspected, std::vector<SessionId>({SessionId(200)}));
  EXPECT_NE(coordinator_.decisions().find(SessionId(200)), nullptr);
  say(1, report(1, 200, 0));  // any sign of life clears it
  hear(coordinator_.tick(now_));
  EXPECT_TRUE(views_.at(PeerId(1)).suspected.empty());
}

// Wherever between two ticks the last report came: with the way of that report it is still less than a second.
TEST_F(CoordinatorTest, SuspectsAtTheVeryEndOfTheSilenceItAllows) {
  begin();
  for (int after_tick = 0; after_tick < 100; after_tick += 7) {
    hear(coordinator_.tick(now_));
    now_ += std::chrono::milliseconds(after_tick);
    const Time last = now_;
    say(1, report(1, 200, 0));
    while (now_ < last + seconds(5)) {
      const Time due = coordinator_.next_due();
      if (due > now_) now_ = due;
      say(0, report(0, 100, 0));
      hear(coordinator_.tick(now_));
      ASSERT_GT(coordinator_.next_due(), now_) << "it would not rest";
      if (!views_.at(PeerId(1)).suspected.empty()) break;
    }
    EXPECT_EQ(now_ - last, std::chrono::milliseconds(900));
    EXPECT_EQ(views_.at(PeerId(1)).suspected, std::vector<SessionId>({SessionId(200)}));
    say(1, report(1, 200, 0));
    hear(coordinator_.tick(now_));
    EXPECT_TRUE(views_.at(PeerId(1)).suspected.empty());
  }
}

TEST_F(CoordinatorTest, TellsWhatItsWorkersRefuse) {
  begin();
  protocol::Report r = report(1, 200, 0);
  r.stats.rejected_frames = 3;
  std::size_t told = 0;
  for (int i = 0; i < 2; ++i)  // the same count again is no news
    for (const auto& effect : coordinator_.received(PeerId(2), r, now_))
      if (const auto* event = std::get_if<Happened>(&effect))
        told += name_of(event->event) == "refused" && peer_of(event->event) == PeerId(2);
  EXPECT_EQ(told, 1u);
}

TEST_F(CoordinatorTest, NamesNoVersionWhereAJoinerHasNone) {
  hear(coordinator_.begin(4, now_));
  join(0, 100, protocol::kNoVersion);
  const auto joining = std::ranges::find_if(events_, [](const Happened& e) { return name_of(e.event) == "joining"; });
  ASSERT_NE(joining, events_.end());
  EXPECT_EQ(text_of(joining->event), "it holds no weights yet, step 5 needs version 4");
}

TEST_F(CoordinatorTest, ExpelsAtOnceWhomItsSupervisorSawEnd) {
  begin();
  hear(coordinator_.process_ended(PeerId(2), now_));
  EXPECT_EQ(coordinator_.decisions().find(SessionId(200)), nullptr);
}

// A decision is on disk before anybody hears of it: a coordinator that dies in between has not taken it.
TEST_F(CoordinatorTest, WritesEveryDecisionBeforeItSendsIt) {
  std::uint64_t epoch = 0;
  const auto watch = [&](const std::vector<CoordinatorEffect>& effects) {
    for (const auto& effect : effects) {
      if (std::holds_alternative<AppendRecord>(effect)) ++epoch;
      if (const auto* send = std::get_if<SendView>(&effect)) {
        EXPECT_LE(send->view.epoch.value, epoch);
      }
    }
    hear(effects);
  };
  watch(coordinator_.begin(0, now_));
  watch(coordinator_.received(PeerId(1), report(0, 100, 0), now_));
  watch(coordinator_.received(PeerId(2), report(1, 200, 0), now_));
  watch(coordinator_.received(PeerId(1), prepared(0, 100), now_));
  watch(coordinator_.received(PeerId(2), prepared(1, 200), now_));
  EXPECT_EQ(outcomes_.size(), 1u);
  EXPECT_EQ(epoch, coordinator_.decisions().epoch.value);
}

// Two replicas of the last stage.
class CoordinatorOfReplicas : public CoordinatorTest {
 protected:
  CoordinatorOfReplicas()
      : plan_of_three_(with_replica(plan_)), three_(seated(plan_of_three_, seats_of_three(), options())) {}
  static protocol::Plan with_replica(protocol::Plan plan) {
    plan.stages[1].replicas = 2;
    return plan;
  }
  static std::vector<Seat> seats_of_three() {
    auto all = seats();
    all.push_back({PeerId(3), StageId(1), ReplicaId(1), {}});
    return all;
  }
  protocol::Report from(std::uint32_t stage, std::uint32_t replica, std::uint64_t session,
                        std::uint64_t version) const {
    protocol::Report r = report(stage, session, version);
    r.replica = ReplicaId(replica);
    r.step = three_.decisions().step;
    r.attempt = three_.decisions().attempt;
    r.done = DoneSet(plan_.count(three_.decisions().step));
    return r;
  }
  protocol::Report whole(protocol::Report r) const {
    for (std::uint32_t m = 0; m < r.done.count(); ++m) r.done.insert(MicrobatchId(m));
    return r;
  }
  // The first replicas of both stages have done all of a step; the joiner of the second is a step behind.
  void finish_microbatches_before_the_third() {
    hear(three_.begin(1, now_));
    hear(three_.received(PeerId(1), from(0, 0, 100, 1), now_));
    hear(three_.received(PeerId(2), from(1, 0, 200, 1), now_));
    hear(three_.received(PeerId(3), from(1, 1, 300, 0), now_));
    hear(three_.received(PeerId(1), whole(from(0, 0, 100, 1)), now_));
    hear(three_.received(PeerId(2), whole(from(1, 0, 200, 1)), now_));
    EXPECT_FALSE(views_.at(PeerId(2)).preparing);
  }
  const protocol::Plan plan_of_three_;
  Coordinator three_;
};

TEST_F(CoordinatorOfReplicas, WaitsForAJoinerThatIsAStepBehindButNotForEver) {
  finish_microbatches_before_the_third();
  now_ += seconds(.2);
  hear(three_.received(PeerId(3), from(1, 1, 300, 1), now_));  // it has caught up
  EXPECT_NE(three_.decisions().find(SessionId(300)), nullptr);
  EXPECT_TRUE(views_.at(PeerId(2)).preparing);
}

TEST_F(CoordinatorOfReplicas, GoesOnWithoutAJoinerThatDoesNotComeNearer) {
  finish_microbatches_before_the_third();
  now_ += Coordinator::Options().join_wait;
  hear(three_.tick(now_));
  EXPECT_TRUE(views_.at(PeerId(2)).preparing);
}

// Whoever misses the first step has to be sent the weights, which takes longer than to load a model.
TEST_F(CoordinatorOfReplicas, WaitsInTheFirstStepForWhoeverStillLoads) {
  for (const bool loads : {true, false}) {
    Coordinator coordinator = seated(plan_of_three_, seats_of_three(), options());
    hear(coordinator.begin(0, now_));
    hear(coordinator.connected(PeerId(3), now_));  // and says nothing yet
    const auto says = [&](std::uint32_t stage, std::uint32_t replica, std::uint64_t session, std::uint64_t version) {
      protocol::Report r = report(stage, session, version);
      r.replica = ReplicaId(replica);
      r.step = coordinator.decisions().step;
      r.attempt = coordinator.decisions().attempt;
      r.done = DoneSet(plan_.count(r.step));
      if (replica == 0)
        for (std::uint32_t m = 0; m < r.done.count(); ++m) r.done.insert(MicrobatchId(m));
      r.prepared_epoch = coordinator.decisions().epoch;
      hear(coordinator.received(PeerId(stage + replica + 1), r, now_));
    };
    for (int time = 0; time < 2; ++time)
      for (const std::uint32_t stage : {0u, 1u}) says(stage, 0, 100 * (stage + 1), 0);
    EXPECT_EQ(coordinator.decisions().step, StepId(1));
    EXPECT_FALSE(views_.at(PeerId(2)).preparing);
    if (loads) {
      now_ += seconds(.2);
      says(1, 1, 300, 0);
      EXPECT_NE(coordinator.decisions().find(SessionId(300)), nullptr);
      EXPECT_EQ(coordinator.decisions().step, StepId(1));
      EXPECT_TRUE(views_.at(PeerId(2)).preparing);
    } else {
      now_ += Coordinator::Options().load_wait;
      for (const std::uint32_t stage : {0u, 1u}) says(stage, 0, 100 * (stage + 1), 0);
      EXPECT_EQ(coordinator.decisions().step, StepId(2));
    }
  }
}

// The stage's one replica is quick now that it has nobody to agree with; whoever joins would stay as far behind as its
// snapshot took.
TEST_F(CoordinatorOfReplicas, WaitsForAJoinerThatIsManyStepsBehindIfTheyAreShort) {
  for (const double step : {.1, 1.}) {
    Coordinator coordinator = seated(two_stages(40), seats_of_three(), options());
    hear(coordinator.begin(0, now_));
    const auto says = [&](std::uint32_t peer, std::uint64_t version, bool prepared) {
      protocol::Report r = report(peer == 1 ? 0 : 1, 100 * peer, version);
      r.replica = ReplicaId(peer == 3 ? 1 : 0);
      r.step = coordinator.decisions().step;
      r.attempt = coordinator.decisions().attempt;
      r.done = DoneSet(2);
      for (std::uint32_t m = 0; m < 2 && peer != 3; ++m) r.done.insert(MicrobatchId(m));
      if (prepared) r.prepared_epoch = coordinator.decisions().epoch;
      hear(coordinator.received(PeerId(peer), r, now_));
    };
    for (const bool prepared : {false, true})
      for (const std::uint32_t peer : {1u, 2u}) says(peer, 0, prepared);
    for (std::uint64_t version = 1; version <= 7; ++version) {
      now_ += seconds(step);
      for (const std::uint32_t peer : {1u, 2u}) says(peer, version, true);
    }
    ASSERT_EQ(coordinator.decisions().step, StepId(9));
    says(3, 2, false);
    now_ += seconds(step);
    // Nobody has to be asked to prepare, but a step that waits is not committed.
    for (const std::uint32_t peer : {1u, 2u}) says(peer, 8, true);
    EXPECT_EQ(coordinator.decisions().step, StepId(step < .5 ? 9 : 10));
    now_ += Coordinator::Options().join_wait + seconds(.05);
    hear(coordinator.tick(now_));
    EXPECT_EQ(coordinator.decisions().step, StepId(10));
  }
}

TEST_F(CoordinatorOfReplicas, ExpelsAReplicaWhoseSumIsNotItsSiblings) {
  hear(three_.begin(0, now_));
  hear(three_.received(PeerId(1), from(0, 0, 100, 0), now_));
  hear(three_.received(PeerId(2), from(1, 0, 200, 0), now_));
  hear(three_.received(PeerId(3), from(1, 1, 300, 0), now_));
  const auto prepared = [&](protocol::Report r, const char* sum) {
    r.prepared_epoch = three_.decisions().epoch;
    r.sum_digest = sum;
    return r;
  };
  hear(three_.received(PeerId(1), prepared(whole(from(0, 0, 100, 0)), "a"), now_));
  hear(three_.received(PeerId(2), prepared(whole(from(1, 0, 200, 0)), "b"), now_));
  hear(three_.received(PeerId(3), prepared(from(1, 1, 300, 0), "c"), now_));
  EXPECT_TRUE(outcomes_.empty());
  EXPECT_EQ(three_.decisions().live.size(), 2u);
}

// Both replicas of a stage are lost and the first to return holds too old a version: the run goes back, once. The other
// one may hold what it went back to.
TEST_F(CoordinatorOfReplicas, GoesBackOnceAndThenWaitsAgain) {
  const auto rollbacks = [&] {
    return std::ranges::count_if(log_, [](const LogRecord& r) { return std::holds_alternative<RollbackRecord>(r); });
  };
  const auto commits = [&] { return outcomes_.size(); };
  hear(three_.begin(0, now_));
  for (const std::uint64_t version : {0u, 1u, 2u}) {
    const auto say = [&](std::uint32_t peer, protocol::Report r, bool prepared) {
      if (prepared) r.prepared_epoch = three_.decisions().epoch;
      r.checkpointed = version;
      hear(three_.received(PeerId(peer), r, now_));
    };
    for (const bool prepared : {false, true}) {
      say(1, whole(from(0, 0, 100, version)), prepared);
      say(2, whole(from(1, 0, 200, version)), prepared);
      say(3, from(1, 1, 300, version), prepared);
    }
    ASSERT_EQ(commits(), version + 1);
  }
  for (const std::uint32_t peer : {2u, 3u}) hear(three_.process_ended(PeerId(peer), now_));
  const auto old = [&] {
    protocol::Report r = from(1, 0, 201, 0);
    r.timeline = static_cast<std::uint32_t>(three_.decisions().rollbacks.size());
    return r;
  };
  for (int i = 0; i < 12 && rollbacks() == 0; ++i) {
    now_ += seconds(1);
    hear(three_.received(PeerId(1), from(0, 0, 100, 3), now_));
    hear(three_.received(PeerId(2), old(), now_));
  }
  ASSERT_EQ(rollbacks(), 1);
  hear(three_.received(PeerId(2), old(), now_));
  EXPECT_EQ(rollbacks(), 1);
}

TEST_F(CoordinatorTest, NotesWhatAJoinerSaysOfItsSnapshotOnce) {
  begin();
  const auto told = [&](const std::string& fetching) {
    events_.clear();
    protocol::Report r = report(1, 201, 0);
    r.fetching = fetching;
    say(1, r);
    return std::ranges::count_if(events_, [&](const Happened& e) {
      return name_of(e.event) == "fetching" && peer_of(e.event) == PeerId(2) && text_of(e.event) == fetching;
    });
  };
  EXPECT_EQ(told(""), 0);
  EXPECT_EQ(told("1 of 4"), 1);
  EXPECT_EQ(told("1 of 4"), 0);
  EXPECT_EQ(told("4 of 4"), 1);
  EXPECT_EQ(told(""), 0);
}

TEST_F(CoordinatorTest, LetsTheLaterOfTwoMeasureTheirLinkAndKeepsWhatItSays) {
  auto limits = options();
  limits.measure = seconds(60);
  Coordinator coordinator = seated(plan_, seats(), limits);
  hear(coordinator.begin(0, now_));
  for (std::uint32_t stage : {0u, 1u})
    hear(coordinator.received(PeerId(stage + 1), report(stage, 100 + stage, 0), now_));
  hear(coordinator.tick(now_ + seconds(1)));
  const protocol::LinkOrder order = views_[PeerId(2)].measure;
  EXPECT_EQ(order, (protocol::LinkOrder{1, SessionId(100)}));
  EXPECT_EQ(views_[PeerId(1)].measure.number, 0u);
  protocol::Report measured = report(1, 101, 0);
  measured.link = {order, std::chrono::milliseconds(20), 50e6, 40e6};
  hear(coordinator.received(PeerId(2), measured, now_ + seconds(2)));
  const auto links = coordinator.status(now_ + seconds(3)).links;
  ASSERT_EQ(links.size(), 1u);
  EXPECT_EQ(links[0].link.age, seconds(1));
  hear(coordinator.tick(now_ + seconds(4)));
  EXPECT_EQ(views_[PeerId(2)].measure.number, 0u);
}

}  // namespace
}  // namespace isthmus::coordinator
