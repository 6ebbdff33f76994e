#include "router/spare_uplink.h"

#include <gtest/gtest.h>

#include "protocol/message.h"

namespace isthmus::router {
namespace {

constexpr double kRate = 2.5e6 * kFraming;  // what is left of it: 2.5 MB/s
constexpr std::uint64_t kPiece = protocol::kPieceBytes;

class SpareUplinkTest : public ::testing::Test {
 protected:
  // Pieces that leave until then, if somebody always wants one more.
  std::uint64_t give_until(Time end) {
    std::uint64_t pieces = 0;
    for (; uplink_.next_at() < end; ++pieces) {
      now_ = std::max(now_, uplink_.next_at());
      uplink_.sent_spare(kPiece, now_);
    }
    now_ = std::max(now_, end);
    return pieces;
  }

  SpareUplink uplink_{kRate};
  Time now_ = seconds(1000);
};

TEST_F(SpareUplinkTest, GivesNineTenthsOfWhatNobodyUses) {
  const auto pieces = give_until(now_ + seconds(10));
  EXPECT_NEAR(static_cast<double>(pieces * kPiece), .9 * 10 * kRate / kFraming, 2. * kPiece);
}

TEST_F(SpareUplinkTest, WaitsForWhatWasSentBefore) {
  uplink_.sent_spare(kPiece, now_);
  uplink_.sent(5 * kPiece, now_);
  // The piece, and five more at full speed; a tenth of the uplink would have it wait for longer.
  EXPECT_NEAR(to_seconds(uplink_.next_at() - now_), kPiece * kFraming / kRate * (1 / .9 + 5), 1e-6);
}

TEST_F(SpareUplinkTest, GivesATenthWhereTrainingTakesAll) {
  std::uint64_t pieces = 0;
  for (int tenth = 0; tenth < 100; ++tenth) {
    uplink_.sent(static_cast<std::uint64_t>(kRate / 10), now_);
    pieces += give_until(now_ + seconds(.1));
  }
  EXPECT_NEAR(static_cast<double>(pieces * kPiece), .1 * 10 * kRate / kFraming, 2. * kPiece);
}

// Half of the time nothing is sent, so half of the uplink is there.
TEST_F(SpareUplinkTest, FillsThePausesOfTraining) {
  std::uint64_t pieces = 0;
  for (int step = 0; step < 10; ++step) {
    uplink_.sent(static_cast<std::uint64_t>(kRate / 2), now_);
    pieces += give_until(now_ + seconds(1));
  }
  EXPECT_NEAR(static_cast<double>(pieces * kPiece), .45 * 10 * kRate, .1 * 10 * kRate);
}

// A home of which somebody thought too well; the measurement that had no company tells.
TEST_F(SpareUplinkTest, IsNoFasterThanWasMeasured) {
  uplink_.measured(kRate / 10);
  uplink_.measured(kRate / 4);
  uplink_.measured(kRate / 8);
  EXPECT_NEAR(static_cast<double>(give_until(now_ + seconds(10)) * kPiece), .9 * 10 * kRate / kFraming / 4,
              2. * kPiece);
  uplink_.measured(kRate * 9);
  EXPECT_NEAR(static_cast<double>(give_until(now_ + seconds(10)) * kPiece), .9 * 10 * kRate / kFraming, 2. * kPiece);
}

}  // namespace
}  // namespace isthmus::router
