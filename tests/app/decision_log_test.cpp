#include "app/decision_log.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace isthmus {
namespace {

namespace fs = std::filesystem;

class DecisionLogTest : public ::testing::Test {
 protected:
  void SetUp() override { fs::create_directories(folder_); }
  void TearDown() override { fs::remove_all(folder_); }
  static std::vector<LogRecord> one_of_each() {
    Member member{PeerId(3), SessionId(~0ull), StageId(1), ReplicaId(0), {1, 2, 255}, {"tcp://a:1", "tcp://a:2"}};
    return {InitRecord{7}, AdmitRecord{member, 7}, ExpelRecord{SessionId(5), "silent \"peer\"\n"},
            CommitRecord{Commit{StepId(8), 0, EpochId(3), 1.0 / 3.0, true, {StageId(1)}}, {}, {StageId(1), StageId(3)}, {}},
            CommitRecord{Commit{StepId(9), 0, EpochId(4), 1, false, {}}, {}, {}, {1e9, 20, {}, 0.1, 0}, "the loss 1e+09 is too far above the mean"},
            RollbackRecord{7, "2 steps in a row were bad", {StepId(8), StepId(9)}},
            AttemptRecord{{StageId(2)}}, MoveRecord{PeerId(3), {StageId(2), ReplicaId(1)}, "nobody serves stage 2"},
            DealRecord{SessionId(~0ull), {{MicrobatchId(3), SessionId(5)}, {MicrobatchId(4), SessionId(~0ull)}}},
            CheckpointRecord{StageId(1), 8}};
  }
  std::string written() const {
    std::ifstream in(path_);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  void fill() const {
    auto log = DecisionLog::open(path_);
    ASSERT_TRUE(log);
    for (const auto& record : one_of_each()) ASSERT_TRUE(log->append(record));
  }
  const std::string folder_ = ::testing::TempDir() + "/isthmus-log-" + std::to_string(::getpid());
  const std::string path_ = folder_ + "/coordinator.log";
};

TEST_F(DecisionLogTest, BringsEveryRecordBackToTheBit) {
  for (const auto& record : one_of_each()) EXPECT_EQ(decode_record(encode_record(record)), record);
  const auto decoded = decode_record(encode_record(one_of_each()[0]));
  EXPECT_TRUE(decoded);
}

TEST_F(DecisionLogTest, CutsOffATornLastRecordAndNothingElse) {
  fill();
  const std::string whole = written();
  const std::size_t last = whole.rfind('\n', whole.size() - 2) + 1;
  for (std::size_t length = last; length < whole.size(); length += 7) {
    std::ofstream(path_) << whole.substr(0, length);
    const auto log = DecisionLog::open(path_);
    ASSERT_TRUE(log) << log.error().message;
    EXPECT_EQ(log->records().size(), 9u);
  }
}

TEST_F(DecisionLogTest, RefusesADamagedRecordBeforeTheEnd) {
  fill();
  std::string damaged = written();
  damaged[damaged.find('\n') + 40] ^= 1;
  std::ofstream(path_) << damaged;
  const auto log = DecisionLog::open(path_);
  ASSERT_FALSE(log);
  EXPECT_NE(log.error().message.find(":2:"), std::string::npos) << log.error().message;
}

TEST_F(DecisionLogTest, HasOneWriterAtATime) {
  const auto first = DecisionLog::open(path_);
  ASSERT_TRUE(first);
  const auto second = DecisionLog::open(path_);
  ASSERT_FALSE(second);
  EXPECT_NE(second.error().message.find("another coordinator"), std::string::npos);
}

}  // namespace
}  // namespace isthmus
