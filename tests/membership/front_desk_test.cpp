#include "app/front_desk.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

namespace isthmus::app {
namespace {

class FrontDeskTest : public ::testing::Test {
 protected:
  void open(std::size_t expected) {
    transport::Door::Options options;
    options.keys = transport::key_pair_of(coordinator_);
    auto door = transport::Door::open(options);
    ASSERT_TRUE(door) << door.error().message;
    endpoint_ = (*door)->endpoint();
    (*door)->let_in(invite_.public_key);
    desk_ = std::make_unique<FrontDesk>(std::move(*door), EnrolTerms{7, coordinator_.key(), {}}, expected);
  }
  void ask(const std::string& name) {
    callers_.push_back(std::make_unique<transport::Caller>(invite_));
    ASSERT_TRUE(callers_.back()->dial(endpoint_, transport::key_pair_of(coordinator_).public_key));
    callers_.back()->ask(
        encode_request({name, {}, true}, {7, coordinator_.key(), invite_.public_key}, Identity::fresh()));
  }
  // The names that are handed on at `now`; looks until there are so many, or often enough to be sure.
  std::vector<std::string> names(std::size_t wanted, Time now, int looks = 2000) {
    std::vector<std::string> all;
    for (int i = 0; i < looks && all.size() < wanted; ++i) {
      for (const auto& asked : desk_->poll(now)) all.push_back(asked.asked.enrolment.name);
      (void)callers_.back()->answer(std::chrono::milliseconds(1));
    }
    return all;
  }
  const Identity coordinator_ = Identity::fresh();
  const transport::KeyPair invite_ = transport::new_key_pair();
  std::string endpoint_;
  std::unique_ptr<FrontDesk> desk_;
  std::vector<std::unique_ptr<transport::Caller>> callers_;
};

TEST_F(FrontDeskTest, HandsTheFirstOnesOnInTheOrderOfTheirNames) {
  open(3);
  for (const char* name : {"worker-10", "worker-2"}) ask(name);
  EXPECT_TRUE(names(1, Time{}, 100).empty());
  ask("worker-1");
  EXPECT_EQ(names(3, Time{}), (std::vector<std::string>{"worker-1", "worker-2", "worker-10"}));
  // Whoever comes later is not held.
  ask("a");
  EXPECT_EQ(names(1, Time{}), std::vector<std::string>{"a"});
}

TEST_F(FrontDeskTest, WaitsForNobodyForLong) {
  open(3);
  ask("worker-2");
  EXPECT_TRUE(names(1, Time{}, 200).empty());
  std::vector<std::string> handed_on;
  for (int s = 5; s < 500 && handed_on.empty(); s += 5) handed_on = names(1, seconds(s), 50);
  EXPECT_EQ(handed_on, std::vector<std::string>{"worker-2"});
}

TEST_F(FrontDeskTest, RefusesAtOnceWhatIsMalformed) {
  open(0);
  callers_.push_back(std::make_unique<transport::Caller>(invite_));
  ASSERT_TRUE(callers_.back()->dial(endpoint_, transport::key_pair_of(coordinator_).public_key));
  callers_.back()->ask("{}");
  std::vector<std::string> answer;
  for (int i = 0; i < 2000 && answer.empty(); ++i) {
    EXPECT_TRUE(desk_->poll(Time{}).empty());
    answer = callers_.back()->answer(std::chrono::milliseconds(1));
  }
  const auto decoded = decode_answer(answer);
  ASSERT_TRUE(decoded) << decoded.error().message;
  EXPECT_NE(std::get<EnrolRefusal>(*decoded).sentence.find("malformed"), std::string::npos);
  EXPECT_EQ(desk_->refused(), 1u);
}

}  // namespace
}  // namespace isthmus::app
