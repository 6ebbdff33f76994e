#include "scheduler/coordinator/join_patience.h"

#include <gtest/gtest.h>

namespace isthmus::coordinator {
namespace {

constexpr SessionId kOne(100), kOther(200);

class JoinPatienceTest : public ::testing::Test {
 protected:
  // How long a step that is finished now waits for those that never come, asked every millisecond.
  Duration waited(const std::vector<SessionId>& near) {
    const Time began = now_;
    while (patience_.waits(near, now_)) now_ += std::chrono::milliseconds(1);
    return now_ - began;
  }

  JoinPatience patience_{seconds(1)};
  Time now_{};
};

TEST_F(JoinPatienceTest, WaitsForNobodyWhenNobodyIsNear) { EXPECT_FALSE(patience_.waits({}, now_)); }

TEST_F(JoinPatienceTest, WaitsAgainAfterPausesThatBecomeLonger) {
  EXPECT_EQ(waited({kOne}), seconds(1));
  const Time began = now_;
  std::vector<double> pauses;
  Duration all{};
  for (Time last = now_; now_ - began < seconds(1000);) {
    now_ += std::chrono::milliseconds(100);
    const Time finished = now_;
    const Duration wait = waited({kOne});
    if (wait == Duration{}) continue;
    EXPECT_EQ(wait, seconds(1));
    pauses.push_back(to_seconds(finished - last));
    last = now_;
    all += wait;
  }
  pauses.resize(6);
  EXPECT_EQ(pauses, (std::vector<double>{1, 2, 4, 8, 10, 10}));
  EXPECT_LE(to_seconds(all), 1000. / 11 + 4);
}

TEST_F(JoinPatienceTest, WaitsForSeveralAtTheSameTime) {
  EXPECT_EQ(waited({kOne, kOther}), seconds(1));
  EXPECT_EQ(waited({kOne, kOther}), Duration{});
  // Somebody new is waited for.
  EXPECT_EQ(waited({SessionId(300)}), seconds(1));
}

}  // namespace
}  // namespace isthmus::coordinator
