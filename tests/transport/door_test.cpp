#include "transport/door.h"

#include <gtest/gtest.h>

namespace isthmus::transport {
namespace {

class DoorTest : public ::testing::Test {
 protected:
  void open(std::int64_t burst = 100) {
    Door::Options options;
    options.keys = keys_;
    options.request_every = std::chrono::hours(24);
    options.burst = burst;
    auto door = Door::open(options);
    ASSERT_TRUE(door) << door.error().message;
    door_ = std::move(*door);
    door_->let_in(invite_.public_key);
  }
  // Looks until so many requests are there, or it has looked often enough to be sure that they never will be.
  std::vector<Door::Request> requests(Caller& caller, std::size_t wanted, int looks = 1000) {
    std::vector<Door::Request> all;
    for (int i = 0; i < looks && all.size() < wanted; ++i) {
      for (auto& request : door_->poll(Time{})) all.push_back(std::move(request));
      (void)caller.answer(std::chrono::milliseconds(2));
    }
    return all;
  }
  const KeyPair keys_ = key_pair_of(Identity::fresh());
  const KeyPair invite_ = new_key_pair();
  std::unique_ptr<Door> door_;
};

TEST_F(DoorTest, TakesARequestAndAnswersInParts) {
  open();
  Caller caller(invite_);
  ASSERT_TRUE(caller.dial(door_->endpoint(), keys_.public_key));
  caller.ask("may I?");
  const auto asked = requests(caller, 1);
  ASSERT_EQ(asked.size(), 1u);
  EXPECT_EQ(asked[0].text, "may I?");
  EXPECT_EQ(asked[0].invite, invite_.public_key);
  const std::string large(kAnswerPartMax, 'x');
  door_->answer(asked[0].route, {"yes", large, large});
  std::vector<std::string> answer;
  for (int i = 0; i < 1000 && answer.empty(); ++i) answer = caller.answer(std::chrono::milliseconds(5));
  EXPECT_TRUE(answer == (std::vector<std::string>{"yes", large, large})) << answer.size() << " parts";
}

TEST_F(DoorTest, StaysShutForAKeyThatNobodyInvited) {
  open();
  Caller stranger(new_key_pair());
  ASSERT_TRUE(stranger.dial(door_->endpoint(), keys_.public_key));
  stranger.ask("may I?");
  for (int i = 0; i < 1000 && door_->refused() == 0; ++i) EXPECT_TRUE(requests(stranger, 1, 1).empty());
  EXPECT_EQ(door_->refused(), 1u);
}

TEST_F(DoorTest, StaysShutForWhoeverTakesItForAnother) {
  open();
  Caller caller(invite_);
  ASSERT_TRUE(caller.dial(door_->endpoint(), new_key_pair().public_key));
  caller.ask("may I?");
  EXPECT_TRUE(requests(caller, 1, 50).empty());
}

TEST_F(DoorTest, DropsAndCountsWhatIsAboveTheBudget) {
  open(3);
  Caller caller(invite_);
  ASSERT_TRUE(caller.dial(door_->endpoint(), keys_.public_key));
  std::size_t taken = 0;
  for (int i = 0; i < 1000 && taken + door_->refused() < 5; ++i) {
    caller.ask("again");
    taken += requests(caller, 1, 5).size();
  }
  EXPECT_EQ(taken, 3u);
  EXPECT_GE(door_->refused(), 2u);
}

TEST_F(DoorTest, TakesNoLargeRequests) {
  open();
  Caller caller(invite_);
  ASSERT_TRUE(caller.dial(door_->endpoint(), keys_.public_key));
  for (const std::size_t more : {1u, 1000u}) {
    caller.ask(std::string(kRequestBytesMax + more, 'x'));
    EXPECT_TRUE(requests(caller, 1, 50).empty());
  }
  // The connection may have been closed for it, and is made anew.
  std::vector<Door::Request> taken;
  for (int i = 0; i < 100 && taken.empty(); ++i) {
    caller.ask(std::string(kRequestBytesMax, 'x'));
    taken = requests(caller, 1, 20);
  }
  EXPECT_FALSE(taken.empty());
}

TEST_F(DoorTest, NamesAddressAndPortThatItCannotHave) {
  open();
  Door::Options options;
  options.keys = keys_;
  const std::string endpoint = door_->endpoint();
  options.port = static_cast<std::uint16_t>(std::stoi(endpoint.substr(endpoint.rfind(':') + 1)));
  const auto second = Door::open(options);
  ASSERT_FALSE(second);
  EXPECT_NE(second.error().message.find("127.0.0.1:" + std::to_string(options.port) + ": it is in use"),
            std::string::npos)
      << second.error().message;
}

}  // namespace
}  // namespace isthmus::transport
