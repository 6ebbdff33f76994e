// Who may take part, and where it serves.
#include "scheduler/coordinator/seating.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "scheduler/coordinator/coordinator.h"

namespace isthmus::coordinator {
namespace {

// Two stages, of three replicas and of one.
class SeatingTest : public ::testing::Test {
 protected:
  static protocol::Plan plan() {
    protocol::Plan plan;
    plan.stages = {{0, 1, 3, 4}, {1, 2, 1, 4}};
    plan.steps = 3;
    plan.microbatches = 2;
    plan.tokens_per_microbatch = 10;
    return plan;
  }
  static Enrolment somebody(std::uint8_t who, std::optional<StageId> wish = {}) {
    return {{who, 1}, {who, 2}, "machine " + std::to_string(who), wish};
  }
  void hear(std::vector<CoordinatorEffect> effects) {
    refused_.clear();
    for (auto& effect : effects) {
      if (auto* append = std::get_if<AppendRecord>(&effect)) log_.push_back(append->record);
      if (auto* enrolled = std::get_if<LetIn>(&effect)) {
        enrolled_ = *enrolled;
        records_then_ = log_.size();
      }
      if (auto* refused = std::get_if<TurnAway>(&effect)) refused_ = refused->reason;
      if (auto* seated = std::get_if<TakeSeat>(&effect)) seated_[seated->peer] = seated->place;
      if (auto* revoked = std::get_if<ShutOut>(&effect)) revoked_.push_back(revoked->peer);
      if (auto* view = std::get_if<SendView>(&effect)) views_[view->peer] = view->view;
    }
  }
  PeerId enrol(std::uint8_t who, std::optional<StageId> wish = {}) {
    hear(coordinator_.enrol(somebody(who, wish), now_));
    return enrolled_.peer;
  }
  void join(PeerId peer, std::uint64_t session) {
    protocol::Report report;
    report.session = SessionId(session);
    report.stage = coordinator_.place_of(peer)->stage;
    report.replica = coordinator_.place_of(peer)->replica;
    report.attempt = coordinator_.decisions().attempt;
    report.done = DoneSet(2);
    hear(coordinator_.received(peer, report, now_));
  }
  std::vector<std::uint32_t> stages_of(std::initializer_list<std::uint32_t> peers) const {
    std::vector<std::uint32_t> stages;
    for (const auto peer : peers) stages.push_back(coordinator_.place_of(PeerId(peer))->stage.value);
    return stages;
  }

  Coordinator coordinator_{plan(), {}};
  Time now_ = seconds(100);
  std::vector<LogRecord> log_;
  LetIn enrolled_;
  std::size_t records_then_ = 0;
  std::string refused_;
  std::map<PeerId, protocol::Place> seated_;
  std::vector<PeerId> revoked_;
  std::map<PeerId, protocol::View> views_;
};

TEST_F(SeatingTest, WhoeverWasRevokedComesBackOnlyAsSomebodyNew) {
  hear(coordinator_.revoke(enrol(7), "it lies", false, now_));
  Enrolment asked = somebody(7);
  asked.again = true;
  hear(coordinator_.enrol(asked, now_));
  EXPECT_THAT(refused_, testing::HasSubstr("it was revoked: it lies"));
  EXPECT_EQ(enrol(7), PeerId(2));
}

// Its home folder was copied: the first one stays, as long as it is heard of.
TEST_F(SeatingTest, OneIdentityIsOneProcess) {
  const auto ask = [&](std::uint64_t life, bool again) {
    Enrolment asked = somebody(7);
    asked.life = life;
    asked.again = again;
    hear(coordinator_.enrol(asked, now_));
    return refused_;
  };
  EXPECT_EQ(ask(1, false), "");
  EXPECT_THAT(ask(2, false), testing::HasSubstr("takes part already, as worker 1"));
  EXPECT_EQ(ask(1, true), "");
  // It connects, and asks no more.
  hear(coordinator_.begin(0, now_));
  hear(coordinator_.connected(PeerId(1), now_));
  for (int i = 0; i < 10; ++i) {
    now_ += seconds(.5);
    join(PeerId(1), 100);
    EXPECT_THAT(ask(2, false), testing::HasSubstr("takes part already"));
  }
  // The same by a coordinator that was started again and knows only who is there.
  Coordinator again(plan(), {});
  again.replay(log_);
  coordinator_ = std::move(again);
  hear(coordinator_.connected(PeerId(1), now_));
  join(PeerId(1), 100);
  EXPECT_THAT(ask(2, false), testing::HasSubstr("takes part already"));
  // Once that one is gone the other one is welcome, and the first would not be.
  hear(coordinator_.disconnected(PeerId(1), now_));
  EXPECT_EQ(ask(2, false), "");
  EXPECT_THAT(ask(1, true), testing::HasSubstr("takes part already"));
}

TEST_F(SeatingTest, InvitesAreUsedUpExpireAndAreWithdrawn) {
  const protocol::PublicKey two{1}, brief{2}, third_stage{3}, unknown{4};
  hear(coordinator_.invite({two, 2, 0, {}}, now_));
  hear(coordinator_.invite({brief, 0, 1000, {}}, now_));
  hear(coordinator_.invite({third_stage, 1, 0, StageId(1)}, now_));
  const auto ask = [&](std::uint8_t who, const protocol::PublicKey& invite, std::uint64_t at_s = 500) {
    Enrolment asked = somebody(who);
    asked.invite = invite;
    asked.asked_s = at_s;
    refused_.clear();
    hear(coordinator_.enrol(asked, now_));
    return refused_;
  };
  EXPECT_THAT(ask(1, unknown), testing::HasSubstr("not one of this run's"));
  EXPECT_EQ(ask(1, two), "");
  EXPECT_EQ(ask(2, two), "");
  EXPECT_THAT(ask(3, two), testing::HasSubstr("was for 2 machines, and as many have enrolled"));
  EXPECT_EQ(ask(1, two), "");  // who it is already
  EXPECT_EQ(ask(4, brief, 999), "");
  EXPECT_THAT(ask(5, brief, 1090), testing::HasSubstr("expired 90 s ago"));
  EXPECT_EQ(ask(6, third_stage), "");
  EXPECT_EQ(coordinator_.decisions().peers.at(PeerId(4)).wish, StageId(1));
  hear(coordinator_.withdraw(brief, now_));
  EXPECT_THAT(ask(5, brief, 999), testing::HasSubstr("withdrawn"));
  EXPECT_EQ(ask(4, brief, 2000), "");
  const std::size_t before = log_.size();
  hear(coordinator_.withdraw(brief, now_));
  hear(coordinator_.withdraw(unknown, now_));
  EXPECT_EQ(log_.size(), before);
  // All of it is in the log.
  Coordinator again(plan(), {});
  again.replay(log_);
  EXPECT_EQ(again.decisions().invites, coordinator_.decisions().invites);
  EXPECT_EQ(again.decisions().invites.at(two).used, 2u);
}

TEST_F(SeatingTest, NumbersWhoeverEnrolsAndWritesItBeforeTheAnswer) {
  EXPECT_EQ(enrol(7), PeerId(1));
  EXPECT_EQ(records_then_, 1u);
  EXPECT_EQ(log_.front(), LogRecord(EnrolRecord{PeerId(1), {7, 1}, {7, 2}, "machine 7", {}}));
  EXPECT_EQ(enrolled_.key, (protocol::PublicKey{7, 2}));
  EXPECT_EQ(enrol(8), PeerId(2));
}

TEST_F(SeatingTest, GivesTheSameIdentityTheSameAnswerAndNoRecord) {
  enrol(7);
  enrol(8);
  const auto records = log_.size();
  EXPECT_EQ(enrol(7), PeerId(1));
  EXPECT_EQ(log_.size(), records);
}

TEST_F(SeatingTest, RefusesChangedAndForeignKeysAndNamesThatCannotBeShown) {
  enrol(7);
  const auto records = log_.size();
  Enrolment changed = somebody(7);
  changed.key[9] = 1;
  hear(coordinator_.enrol(changed, now_));
  EXPECT_NE(refused_.find("another CURVE key"), std::string::npos) << refused_;
  Enrolment thief = somebody(9);
  thief.key = somebody(7).key;
  hear(coordinator_.enrol(thief, now_));
  EXPECT_NE(refused_.find("another identity"), std::string::npos) << refused_;
  for (const std::string& name : {std::string(65, 'a'), std::string("\x1b[2J"), std::string("\xff")}) {
    Enrolment strange = somebody(10);
    strange.name = name;
    hear(coordinator_.enrol(strange, now_));
    EXPECT_NE(refused_.find("a name has at most 64 bytes"), std::string::npos) << refused_;
  }
  EXPECT_EQ(log_.size(), records);
}

TEST_F(SeatingTest, TakesNoMoreThanItMay) {
  Coordinator::Options options;
  options.seating.peers_max = 2;
  coordinator_ = Coordinator(plan(), options);
  for (const std::uint8_t who : {1, 2, 3}) enrol(who);
  EXPECT_NE(refused_.find("2 identities were enrolled"), std::string::npos) << refused_;
  enrol(1);
  EXPECT_EQ(refused_, "");
}

TEST_F(SeatingTest, SeatsWhereNobodyIsThenWhereMostLackAndLetsTheOthersWait) {
  for (const std::uint8_t who : {1, 2, 3, 4, 5, 6}) enrol(who);
  EXPECT_EQ(stages_of({1, 2, 3, 4}), std::vector<std::uint32_t>({0, 1, 0, 0}));
  EXPECT_EQ(seated_.at(PeerId(4)), (protocol::Place{StageId(0), ReplicaId(2)}));
  EXPECT_FALSE(coordinator_.place_of(PeerId(5)));
  EXPECT_EQ(coordinator_.queued(PeerId(5)), (Queued{1, 2, "all 4 seats of the run are taken"}));
  EXPECT_EQ(coordinator_.queued(PeerId(6)), (Queued{2, 2, "all 4 seats of the run are taken"}));
  EXPECT_EQ(coordinator_.queued(PeerId(1)), std::nullopt);
}

TEST_F(SeatingTest, SeatsWhereTheInviteSaysIfThatLacksSomebody) {
  enrol(1, StageId(0));
  enrol(2, StageId(0));
  enrol(3, StageId(1));
  enrol(4, StageId(1));  // has one
  EXPECT_EQ(stages_of({1, 2, 3, 4}), std::vector<std::uint32_t>({0, 0, 1, 0}));
  hear(coordinator_.enrol(somebody(5, StageId(77)), now_));  // no such stage
  EXPECT_EQ(coordinator_.decisions().peers.at(PeerId(5)).wish, std::nullopt);
}

TEST_F(SeatingTest, ARunBeginsOnceEveryStageHasSomebody) {
  enrol(1);
  hear(coordinator_.begin(0, now_));
  join(PeerId(1), 100);
  EXPECT_EQ(views_.at(PeerId(1)).head_owner, std::vector<SessionId>(2, kNoSession));
  enrol(2);
  join(PeerId(2), 200);
  EXPECT_EQ(views_.at(PeerId(1)).head_owner, std::vector<SessionId>(2, SessionId(100)));
}

TEST_F(SeatingTest, SeatsVoidNoCombinationThatIsUnderWay) {
  enrol(1);
  enrol(2);
  hear(coordinator_.begin(0, now_));
  join(PeerId(1), 100);
  join(PeerId(2), 200);
  const EpochId before = coordinator_.decisions().epoch;
  enrol(3);
  ASSERT_TRUE(coordinator_.place_of(PeerId(3)));
  EXPECT_EQ(coordinator_.decisions().epoch, before);
}

TEST_F(SeatingTest, WhoeverReportsFromElsewhereIsToldWhereItServes) {
  enrol(1);
  enrol(2);
  hear(coordinator_.begin(0, now_));
  protocol::Report report;
  report.session = SessionId(300);
  report.stage = StageId(0);
  hear(coordinator_.received(PeerId(2), report, now_));
  EXPECT_EQ(views_.at(PeerId(2)).moved, (protocol::Place{StageId(1), ReplicaId(0)}));
  EXPECT_TRUE(coordinator_.decisions().live.empty());
}

TEST_F(SeatingTest, ASeatWhoseHolderStaysAwayGoesToWhoeverWaitsLongest) {
  for (const std::uint8_t who : {1, 2, 3, 4, 5, 6}) enrol(who);
  hear(coordinator_.begin(0, now_));
  for (const std::uint32_t peer : {1u, 2u, 3u, 4u}) {
    hear(coordinator_.connected(PeerId(peer), now_));
    join(PeerId(peer), 100 * peer);
  }
  hear(coordinator_.disconnected(PeerId(2), now_));
  for (int i = 0; i < 300 && !coordinator_.place_of(PeerId(5)); ++i) {
    now_ += seconds(.1);
    for (const std::uint32_t peer : {1u, 3u, 4u}) join(PeerId(peer), 100 * peer);
    // 5 does not ask any more; 6 does.
    if (i % 10 == 0) enrol(6);
    hear(coordinator_.tick(now_));
    if (i < 150) {
      EXPECT_TRUE(coordinator_.place_of(PeerId(2))) << i;
    }
  }
  EXPECT_FALSE(coordinator_.place_of(PeerId(5)));
  EXPECT_EQ(coordinator_.place_of(PeerId(6)), (protocol::Place{StageId(1), ReplicaId(0)}));
  EXPECT_FALSE(coordinator_.place_of(PeerId(2)));
  EXPECT_EQ(coordinator_.decisions().waiting, (std::vector{PeerId(5), PeerId(2)}));
  EXPECT_EQ(coordinator_.queued(PeerId(2))->place, 1u);  // 5 is not there
}

TEST_F(SeatingTest, WhoeverIsRevokedIsOutAtOnceAndComesBackAsSomebodyElseUnlessBanned) {
  enrol(1);
  enrol(2);
  hear(coordinator_.begin(0, now_));
  join(PeerId(1), 100);
  join(PeerId(2), 200);
  hear(coordinator_.revoke(PeerId(2), "asked to", false, now_));
  EXPECT_EQ(coordinator_.decisions().live.size(), 1u);
  EXPECT_EQ(revoked_, std::vector<PeerId>({PeerId(2)}));
  EXPECT_FALSE(coordinator_.place_of(PeerId(2)));
  EXPECT_EQ(enrol(2), PeerId(3));
  hear(coordinator_.revoke(PeerId(3), "lied", true, now_));
  hear(coordinator_.enrol(somebody(2), now_));
  EXPECT_NE(refused_.find("banned from the run: lied"), std::string::npos) << refused_;
  hear(coordinator_.revoke(PeerId(77), "nobody", false, now_));
  EXPECT_EQ(revoked_.size(), 2u);
}

TEST_F(SeatingTest, IsAllInTheLog) {
  for (const std::uint8_t who : {1, 2, 3, 4, 5, 6}) enrol(who);
  hear(coordinator_.begin(0, now_));
  hear(coordinator_.revoke(PeerId(6), "asked to", true, now_));
  hear(coordinator_.move(PeerId(1), StageId(1), "asked to", now_));
  Coordinator again(plan(), {});
  again.replay(log_);
  EXPECT_EQ(again.decisions().peers, coordinator_.decisions().peers);
  EXPECT_EQ(again.decisions().waiting, coordinator_.decisions().waiting);
  // After a restart nobody is known to be there; whoever asks again is seated as before.
  EXPECT_EQ(again.queued(PeerId(5)), coordinator_.queued(PeerId(5)));
}

TEST_F(SeatingTest, AStatusShowsWhoDoesWhatAndWhoWaits) {
  for (const std::uint8_t who : {1, 2, 3, 4, 5}) enrol(who);
  hear(coordinator_.begin(0, now_));
  join(PeerId(1), 100);
  join(PeerId(2), 200);
  const RunStatus status = coordinator_.status(now_);
  EXPECT_EQ(status.step, StepId(1));
  EXPECT_FALSE(status.last);
  ASSERT_EQ(status.stages.size(), 2u);
  EXPECT_EQ(status.stages[0].wished, 3u);
  EXPECT_EQ(status.stages[0].seated, 3u);
  EXPECT_EQ(status.stages[0].members, 1u);
  ASSERT_EQ(status.workers.size(), 5u);
  EXPECT_EQ(status.workers[0].name, "machine 1");
  EXPECT_EQ(status.workers[0].standing, Standing::kMember);
  EXPECT_EQ(status.workers[2].standing, Standing::kAway);
  EXPECT_EQ(status.workers[4].standing, Standing::kWaiting);
  EXPECT_EQ(status.workers[4].queued, coordinator_.queued(PeerId(5)));
  EXPECT_EQ(name_of(status.events.front().event), "enrolled");
  // What follows does not change it.
  hear(coordinator_.revoke(PeerId(5), "asked to", false, now_));
  EXPECT_EQ(status.workers.size(), 5u);
  EXPECT_EQ(coordinator_.status(now_).workers.size(), 4u);
}

TEST(Decisions, TakesEverybodyBackToItsSeatWhenTheRunBeginsAgain) {
  protocol::Plan plan;
  plan.stages = {{0, 1, 2, 4}, {1, 2, 1, 4}};
  plan.microbatches = 2;
  Decisions decisions(plan);
  for (const LogRecord& record :
       std::vector<LogRecord>{EnrolRecord{PeerId(1), {1}, {1}, "", {}}, SeatRecord{PeerId(1), StageId(0), ReplicaId(1)},
                              InitRecord{0}, MoveRecord{PeerId(1), {StageId(1), ReplicaId(0)}, ""}})
    decisions.apply(record);
  EXPECT_EQ(decisions.place_of(PeerId(1)), (protocol::Place{StageId(1), ReplicaId(0)}));
  decisions.apply(InitRecord{4});
  EXPECT_EQ(decisions.place_of(PeerId(1)), (protocol::Place{StageId(0), ReplicaId(1)}));
  decisions.apply(UnseatRecord{PeerId(1), "away"});
  EXPECT_EQ(decisions.place_of(PeerId(1)), std::nullopt);
  EXPECT_EQ(decisions.waiting, std::vector<PeerId>({PeerId(1)}));
  EXPECT_EQ(decisions.epoch, EpochId(3));
}

// Stage 1 is the last of two, stage 0 the first: nothing is left for a stranger.
TEST_F(SeatingTest, GivesTheEndsToThoseWhomTheOwnerTrustsAndSaysSo) {
  Coordinator::Options options;
  options.trust = {2, true, 1};
  coordinator_ = Coordinator(plan(), options);
  hear(coordinator_.invite({{50}, 0, 0, {}, false}, now_));
  Enrolment stranger = somebody(7);
  stranger.invite = protocol::PublicKey{50};
  hear(coordinator_.enrol(stranger, now_));
  const PeerId waits = enrolled_.peer;
  EXPECT_FALSE(coordinator_.place_of(waits));
  EXPECT_THAT(coordinator_.queued(waits)->reason, testing::HasSubstr("isthmus invite --trusted"));
  // Whoever waits behind it is served.
  EXPECT_TRUE(coordinator_.place_of(enrol(8)));
  EXPECT_FALSE(coordinator_.place_of(waits));
}

}  // namespace
}  // namespace isthmus::coordinator
