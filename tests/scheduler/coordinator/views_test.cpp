// What each worker is told, and what it is left to remember.

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <tuple>

#include "base/counter_random.h"
#include "scheduler/coordinator/coordinator.h"
#include "seated.h"

namespace isthmus::coordinator {
namespace {

constexpr std::uint32_t kFiveStages = 5;

protocol::Plan five_by_two() {
  protocol::Plan plan;
  plan.stages.assign(kFiveStages, {0, 1, 2, 4});
  plan.steps = 5;
  plan.microbatches = 4;
  return plan;
}

// Sessions 100, 101 serve stage 0, 200, 201 stage 1, and so on.
class Views : public ::testing::Test {
 protected:
  Views() : coordinator_(seated(plan_, seats(), options())) {
    hear(coordinator_.begin(0, now_));
    for (const auto& seat : seats()) say(seat, EpochId(0));
  }
  static std::vector<Seat> seats() {
    std::vector<Seat> seats;
    for (std::uint32_t s = 0; s < kFiveStages; ++s)
      for (std::uint32_t r = 0; r < 2; ++r) seats.push_back({PeerId(2 * s + r + 1), StageId(s), ReplicaId(r), {}});
    return seats;
  }
  virtual Coordinator::Options options() { return {}; }
  void hear(std::vector<CoordinatorEffect> effects) {
    for (auto& effect : effects)
      if (auto* send = std::get_if<SendView>(&effect)) {
        views_[send->peer] = send->view;
        ++sent_;
      }
  }
  // A report of the seat's worker, which holds the view of this epoch.
  void say(const Seat& seat, EpochId epoch, std::uint64_t life = 0, const protocol::Endpoints& endpoints = {}) {
    protocol::Report r;
    r.endpoints = endpoints;
    r.session = SessionId(100 * (seat.stage.value + 1) + seat.replica.value + 1000 * life);
    r.stage = seat.stage;
    r.replica = seat.replica;
    r.epoch = epoch;
    hear(coordinator_.received(seat.peer, r, now_));
  }
  static std::vector<std::uint64_t> sessions(const std::vector<protocol::Member>& members) {
    std::vector<std::uint64_t> sessions;
    for (const auto& m : members) sessions.push_back(m.session.value);
    return sessions;
  }
  void repeat() {
    now_ += seconds(1.1);
    for (const auto& seat : seats()) say(seat, coordinator_.decisions().epoch);
    views_.clear();
    hear(coordinator_.tick(now_));
  }

  const protocol::Plan plan_ = five_by_two();
  Time now_ = seconds(100);
  Coordinator coordinator_;
  std::map<PeerId, protocol::View> views_;
  std::size_t sent_ = 0;
};

using Numbers = std::vector<std::uint64_t>;

TEST_F(Views, NameTheMembersWithinReachOfTheReceiver) {
  say(seats()[6], EpochId(0));
  hear(coordinator_.process_ended(PeerId(1), now_));  // somebody left: everybody is told, from nothing
  EXPECT_EQ(sessions(views_.at(PeerId(7)).live), Numbers({300, 301, 400, 401, 500, 501}));
  EXPECT_EQ(sessions(views_.at(PeerId(3)).live), Numbers({101, 200, 201, 300, 301}));
  EXPECT_TRUE(views_.at(PeerId(7)).head_owner.empty());
  EXPECT_EQ(views_.at(PeerId(2)).head_owner, std::vector<SessionId>(4, SessionId(101)));
}

TEST_F(Views, LeaveOutWhatTheReceiverKnows) {
  repeat();
  const EpochId epoch = coordinator_.decisions().epoch;
  for (const auto& seat : seats()) {
    EXPECT_EQ(views_.at(seat.peer).since, epoch);
    EXPECT_TRUE(views_.at(seat.peer).live.empty());
  }
  // A new life of the second worker of stage 2; those two stages away need not know.
  say(seats()[5], EpochId(0), 1);
  for (const auto& seat : seats()) {
    const protocol::View& view = views_.at(seat.peer);
    if (seat.peer == PeerId(6)) continue;  // it remembers nothing
    EXPECT_EQ(view.since, epoch);
    const bool near = seat.stage.value >= 1 && seat.stage.value <= 3;
    EXPECT_EQ(sessions(view.live), near ? Numbers({1301}) : Numbers());
    EXPECT_EQ(view.gone, near ? std::vector<SessionId>({SessionId(301)}) : std::vector<SessionId>());
  }
  EXPECT_EQ(views_.at(PeerId(6)).since, EpochId(0));
  EXPECT_EQ(sessions(views_.at(PeerId(6)).live), Numbers({200, 201, 300, 1301, 400, 401}));
}

TEST_F(Views, NameWhoIsElsewhereWhateverTheReceiverKnows) {
  repeat();
  const EpochId epoch = coordinator_.decisions().epoch;
  views_.clear();
  const protocol::Location there{"198.51.100.7", {"tcp://198.51.100.7:4", "tcp://198.51.100.7:5"}};
  coordinator_.located(PeerId(5), there);
  say(seats()[4], epoch, 0, {"tcp://10.0.0.1:4", "tcp://10.0.0.1:5"});
  EXPECT_EQ(coordinator_.decisions().epoch, epoch) << "what is being summed stays good";
  const auto where = [&](std::uint32_t peer) -> std::optional<protocol::Member> {
    const protocol::Member* member = views_.at(PeerId(peer)).find(SessionId(300));
    return member ? std::optional(*member) : std::nullopt;
  };
  for (int view = 0; view < 2; ++view) {
    ASSERT_TRUE(where(3));
    EXPECT_EQ(where(3)->location, there);
    EXPECT_EQ(where(3)->endpoints.control, "tcp://10.0.0.1:4");
    EXPECT_EQ(views_.at(PeerId(3)).since, epoch);
    EXPECT_FALSE(where(1)) << "two stages away";
    views_.clear();
    now_ += seconds(1.1);
    for (const auto& seat : seats())
      if (seat.peer != PeerId(5)) say(seat, epoch);
    say(seats()[4], epoch, 0, {"tcp://10.0.0.1:4", "tcp://10.0.0.1:5"});
    views_.clear();
    hear(coordinator_.tick(now_));
  }
  // One that names another all the time is heard now and then.
  const auto told = sent_;
  for (std::uint16_t port = 10; port < 60; ++port)
    say(seats()[4], epoch, 0, {"tcp://10.0.0.1:" + std::to_string(port), "tcp://10.0.0.1:5"});
  EXPECT_EQ(sent_, told);
  now_ += seconds(10);
  say(seats()[4], epoch, 0, {"tcp://10.0.0.1:60", "tcp://10.0.0.1:5"});
  ASSERT_TRUE(where(3));
  EXPECT_EQ(where(3)->endpoints.control, "tcp://10.0.0.1:60");
}

TEST_F(Views, DoNotBuildUponAnEpochThatIsStillToCome) {
  say(seats()[0], EpochId(1000));
  hear(coordinator_.process_ended(PeerId(10), now_));
  EXPECT_EQ(views_.at(PeerId(1)).since, EpochId(0));
  EXPECT_EQ(views_.at(PeerId(1)).live.size(), 4u);
}

TEST_F(Views, ComeAfterTheFirstReportOfAConnection) {
  repeat();
  views_.clear();
  hear(coordinator_.connected(PeerId(4), now_));
  EXPECT_TRUE(views_.empty());
  hear(coordinator_.process_ended(PeerId(10), now_));
  EXPECT_FALSE(views_.contains(PeerId(4)));
  EXPECT_TRUE(views_.contains(PeerId(5)));
  say(seats()[3], EpochId(2));
  EXPECT_TRUE(views_.contains(PeerId(4)));
  sent_ = 0;
  say(seats()[3], EpochId(2));
  EXPECT_EQ(sent_, 0u);
}

// Ten workers are a crowd here.
class ViewsOfACrowd : public Views {
 protected:
  ViewsOfACrowd() {
    coordinator_ = seated(plan_, seats(), options());
    hear(coordinator_.begin(0, now_));
    for (const auto& seat : seats()) say(seat, EpochId(0));
    repeat();
  }
  Coordinator::Options options() override {
    Coordinator::Options options;
    options.crowd = 5;
    options.round_pause = std::chrono::milliseconds(20);
    return options;
  }
};

TEST_F(ViewsOfACrowd, TellOfManyChangesTogether) {
  now_ += seconds(.2);
  hear(coordinator_.tick(now_));
  sent_ = 0;
  hear(coordinator_.process_ended(PeerId(2), now_));
  EXPECT_EQ(sent_, 9u);
  for (const std::uint32_t peer : {4, 6, 8}) hear(coordinator_.process_ended(PeerId(peer), now_));
  EXPECT_EQ(sent_, 9u);
  EXPECT_EQ(coordinator_.next_due(), now_ + std::chrono::milliseconds(40));
  now_ = coordinator_.next_due();
  hear(coordinator_.tick(now_));
  EXPECT_EQ(sent_, 15u);
  EXPECT_EQ(sessions(views_.at(PeerId(5)).live), Numbers({200, 300, 400}));  // shorter than what is gone
  EXPECT_GT(coordinator_.next_due(), now_ + std::chrono::milliseconds(40));
}

// Whatever view somebody holds, with what he is told next he knows the members.
TEST(Membership, IsCompleteForWhoeverKnowsAnOlderOne) {
  const CounterRandom random(3, "membership");
  std::uint64_t drawn = 0, session = 100;
  Decisions decisions(five_by_two());
  decisions.apply(InitRecord{0});
  struct Knows {
    EpochId epoch;
    std::vector<protocol::Member> members;
  };
  std::vector<Knows> listeners(20);
  std::uint64_t in_part = 0;
  for (int event = 0; event < 6000; ++event) {
    const auto what = random.below(1000, drawn++);
    if (what == 0) {
      decisions.apply(RollbackRecord{0, ""});
    } else if (what < 450 && !decisions.live.empty()) {
      decisions.apply(ExpelRecord{decisions.live[random.below(decisions.live.size(), drawn++)].session, ""});
    } else if (decisions.live.size() < 40) {
      const auto seat = static_cast<std::uint32_t>(random.below(40, drawn++));
      if (std::ranges::find(decisions.live, PeerId(seat + 1), &protocol::Member::peer) != decisions.live.end())
        continue;
      decisions.apply(
          AdmitRecord{{PeerId(seat + 1), SessionId(++session), StageId(seat / 8), ReplicaId(seat % 8), {}, {}}, 0});
    }
    for (const auto& member : decisions.live) ASSERT_EQ(decisions.find(member.session), &member);
    ASSERT_TRUE(std::ranges::is_sorted(decisions.live, {},
                                       [](const protocol::Member& m) { return std::tuple(m.stage, m.replica); }));
    // The first of them are told of everything, the last hardly ever.
    for (std::size_t i = 0; i < listeners.size(); ++i) {
      if (random.below(1 + i * i * 10, drawn++) != 0) continue;
      Knows& knows = listeners[i];
      const StageId first(static_cast<std::uint32_t>(i % 3)), last(first.value + 2);
      // What he reported last may be older than what he knows by now.
      const EpochId reported(knows.epoch.value - std::min(knows.epoch.value, random.below(3, drawn++)));
      const auto told = decisions.membership(first, last, reported);
      if (told.since == EpochId(0)) knows.members.clear();
      in_part += told.since != EpochId(0) ? 1 : 0;
      std::erase_if(knows.members, [&](const protocol::Member& m) {
        return std::ranges::find(told.left, m.session) != told.left.end() ||
               std::ranges::find(told.joined, m.session, &protocol::Member::session) != told.joined.end();
      });
      knows.members.insert(knows.members.end(), told.joined.begin(), told.joined.end());
      std::ranges::sort(knows.members, {}, [](const protocol::Member& m) { return std::tuple(m.stage, m.replica); });
      knows.epoch = decisions.epoch;
      const auto all = decisions.members(first, last);
      ASSERT_EQ(knows.members, std::vector<protocol::Member>(all.begin(), all.end())) << "listener " << i;
      ASSERT_LE(told.left.size() + told.joined.size(), all.size());
    }
  }
  EXPECT_GT(in_part, 4000u);
}

}  // namespace
}  // namespace isthmus::coordinator
