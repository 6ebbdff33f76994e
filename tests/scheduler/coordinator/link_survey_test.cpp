#include "scheduler/coordinator/link_survey.h"

#include <gmock/gmock.h>

#include <set>

namespace isthmus::coordinator {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

class LinkSurveyTest : public ::testing::Test {
 protected:
  static protocol::Member member(std::uint32_t peer, std::uint64_t life = 0) {
    return {PeerId(peer), SessionId(100 * peer + life), StageId(peer - 1), ReplicaId(0), {}, {}};
  }
  static std::vector<protocol::Member> members(std::uint32_t count) {
    std::vector<protocol::Member> all;
    for (std::uint32_t p = 1; p <= count; ++p) all.push_back(member(p));
    return all;
  }
  static protocol::LinkFigures answer(const protocol::LinkOrder& order, double sent = 80e6, double received = 40e6) {
    return {order, std::chrono::milliseconds(30), sent, received};
  }

  // Runs until `until`, a tenth of a second at a time; every order is answered a second later. Pairs in the order in
  // which they were asked for, as "later-earlier".
  std::vector<std::string> asked(const std::vector<protocol::Member>& live, Time until) {
    std::vector<std::string> pairs;
    std::map<PeerId, Time> since;
    for (; now_ < until; now_ += std::chrono::milliseconds(100)) {
      for (const PeerId peer : survey_.turn(live, now_))
        if (const protocol::LinkOrder order = survey_.order_of(peer); order.number != 0) {
          pairs.push_back(fmt::format("{}-{}", peer, order.to.value / 100));
          since[peer] = now_;
        }
      for (const auto& [peer, when] : since)
        if (now_ - when >= seconds(1)) survey_.record(peer, answer(survey_.order_of(peer)), now_);
      std::set<PeerId> at_it;
      for (const auto& m : live)
        if (const protocol::LinkOrder order = survey_.order_of(m.peer); order.number != 0) {
          EXPECT_TRUE(at_it.insert(m.peer).second);
          EXPECT_TRUE(at_it.insert(PeerId(static_cast<std::uint32_t>(order.to.value / 100))).second) << "two at a time";
        }
    }
    return pairs;
  }

  LinkSurvey survey_{seconds(60)};
  Time now_ = seconds(1000);
};

TEST_F(LinkSurveyTest, MeasuresNothingUnlessItIsWanted) {
  LinkSurvey off{Duration{}};
  EXPECT_THAT(off.turn(members(3), now_), IsEmpty());
  EXPECT_EQ(off.order_of(PeerId(2)).number, 0u);
}

TEST_F(LinkSurveyTest, MeasuresEveryPairOncePerPeriodTheOldestFirst) {
  const auto first = asked(members(3), now_ + seconds(55));
  EXPECT_THAT(first, UnorderedElementsAre("2-1", "3-1", "3-2"));
  EXPECT_EQ(asked(members(3), now_ + seconds(60)), first);
  EXPECT_EQ(survey_.recorded(), 6u);
}

TEST_F(LinkSurveyTest, MeasuresANewcomersLinksBeforeThoseItKnows) {
  (void)asked(members(2), now_ + seconds(30));
  now_ += seconds(100);
  const auto later = asked(members(3), now_ + seconds(5));
  ASSERT_FALSE(later.empty());
  EXPECT_NE(later.front(), "2-1");
}

TEST_F(LinkSurveyTest, LeavesALinkTwentyTimesAsLongToTraining) {
  ASSERT_THAT(survey_.turn(members(3), now_), ElementsAre(PeerId(2), PeerId(1)));
  survey_.record(PeerId(2), answer(survey_.order_of(PeerId(2)), 8e6, 80e6), now_);
  // At the slower rate.
  const Duration rest = seconds(20 * protocol::kSoundings * static_cast<double>(protocol::kSoundingBytes) / 1e6);
  EXPECT_THAT(survey_.turn(members(3), now_ + rest - std::chrono::milliseconds(1)), IsEmpty());
  EXPECT_THAT(survey_.turn(members(3), now_ + rest + seconds(1)), ElementsAre(PeerId(3), PeerId(1)));
}

TEST_F(LinkSurveyTest, IgnoresWhatItDidNotAskFor) {
  survey_.record(PeerId(2), answer({1, SessionId(100)}), now_);
  (void)survey_.turn(members(2), now_);
  const protocol::LinkOrder order = survey_.order_of(PeerId(2));
  survey_.record(PeerId(2), answer({order.number + 1, order.to}), now_);
  survey_.record(PeerId(2), answer({order.number, SessionId(9)}), now_);
  survey_.record(PeerId(1), answer(order), now_);
  EXPECT_EQ(survey_.recorded(), 0u);
  EXPECT_EQ(survey_.order_of(PeerId(2)), order);
  survey_.record(PeerId(2), answer(order), now_);
  survey_.record(PeerId(2), answer(order), now_);  // every report says it again
  EXPECT_EQ(survey_.recorded(), 1u);
}

TEST_F(LinkSurveyTest, TakesAnOrderBackWhenOneOfTheTwoHasGone) {
  for (const std::vector<protocol::Member>& left :
       {std::vector{member(2)}, std::vector{member(1), member(2, 1)}, std::vector{member(1, 1), member(2)}}) {
    LinkSurvey survey(seconds(60));
    (void)survey.turn({member(1), member(2)}, now_);
    ASSERT_NE(survey.order_of(PeerId(2)).number, 0u);
    EXPECT_THAT(survey.turn(left, now_), ElementsAre(PeerId(2), PeerId(1)));
    EXPECT_EQ(survey.order_of(PeerId(2)).number, 0u);
  }
}

TEST_F(LinkSurveyTest, DoesNotWaitForEverForAnAnswer) {
  (void)survey_.turn(members(2), now_);
  EXPECT_THAT(survey_.turn(members(2), now_ + seconds(121)), testing::Contains(PeerId(2)));
}

TEST_F(LinkSurveyTest, KnowsBothDirectionsAndTheAge) {
  (void)survey_.turn(members(2), now_);
  survey_.record(PeerId(2), answer(survey_.order_of(PeerId(2)), 10e6, 90e6), now_);
  const auto links = survey_.measured(now_ + seconds(7));
  ASSERT_EQ(links.size(), 1u);
  EXPECT_EQ(std::pair(links[0].a, links[0].b), std::pair(PeerId(1), PeerId(2)));
  EXPECT_EQ(links[0].link.bits_per_second, 90e6);
  EXPECT_EQ(links[0].link.latency, std::chrono::milliseconds(30));
  EXPECT_EQ(links[0].link.age, seconds(7));
  const auto rates = survey_.rates();
  EXPECT_EQ(rates.at(PeerId(1)).up, 90e6);
  EXPECT_EQ(rates.at(PeerId(1)).down, 10e6);
  EXPECT_EQ(rates.at(PeerId(2)).up, 10e6);
  EXPECT_EQ(rates.at(PeerId(2)).down, 90e6);
  EXPECT_FALSE(rates.contains(PeerId(3)));
}

TEST_F(LinkSurveyTest, RemembersNothingOfALinkThatDidNotAnswer) {
  (void)survey_.turn(members(2), now_);
  survey_.record(PeerId(2), {survey_.order_of(PeerId(2))}, now_);
  EXPECT_EQ(survey_.recorded(), 0u);
  EXPECT_THAT(survey_.measured(now_), IsEmpty());
  // And tries again in its turn.
  EXPECT_THAT(survey_.turn(members(2), now_ + seconds(30)), IsEmpty());
  EXPECT_THAT(survey_.turn(members(2), now_ + seconds(61)), ElementsAre(PeerId(2), PeerId(1)));
}

}  // namespace
}  // namespace isthmus::coordinator
