#include "record/decision_log.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace isthmus::record {
namespace {

namespace fs = std::filesystem;

class DecisionLogTest : public ::testing::Test {
 protected:
  void SetUp() override { fs::create_directories(folder_); }
  void TearDown() override { fs::remove_all(folder_); }
  static std::vector<coordinator::LogRecord> one_of_each() {
    protocol::Member member{PeerId(3),    SessionId(~0ull), StageId(1),
                            ReplicaId(0), {1, 2, 255},      {"tcp://a:1", "tcp://a:2"}};
    return {coordinator::InitRecord{7},
            coordinator::AdmitRecord{member, 7},
            coordinator::ExpelRecord{SessionId(5), "silent \"peer\"\n"},
            coordinator::CommitRecord{protocol::Commit{StepId(8), 0, EpochId(3), 1.0 / 3.0, true, {StageId(1)}},
                                      {},
                                      {StageId(1), StageId(3)},
                                      {}},
            coordinator::CommitRecord{protocol::Commit{StepId(9), 0, EpochId(4), 1, false, {}},
                                      {},
                                      {},
                                      {1e9, 20, {}, 0.1, 0},
                                      "the loss 1e+09 is too far above the mean"},
            coordinator::RollbackRecord{7, "2 steps in a row were bad", {StepId(8), StepId(9)}},
            coordinator::AttemptRecord{{StageId(2)}},
            coordinator::MoveRecord{PeerId(3), {StageId(2), ReplicaId(1)}, "nobody serves stage 2"},
            coordinator::DealRecord{SessionId(~0ull),
                                    {{MicrobatchId(3), SessionId(5)}, {MicrobatchId(4), SessionId(~0ull)}}},
            coordinator::EnrolRecord{PeerId(3), {9, 8}, {1, 2, 255}, "Zo\xc3\xab's \"tower\"", StageId(0)},
            coordinator::InviteRecord{{5}, 3, 1'800'000'000, StageId(1)},
            coordinator::InviteRecord{{6}, 0, 0, {}},
            coordinator::WithdrawRecord{{6}},
            coordinator::EnrolRecord{PeerId(4), {7}, {6}, "", {}, protocol::PublicKey{5}},
            coordinator::SeatRecord{PeerId(3), StageId(2), ReplicaId(1)},
            coordinator::UnseatRecord{PeerId(3), "not heard of for 20 s"},
            coordinator::RevokeRecord{PeerId(4), "asked to", true},
            coordinator::CheckpointRecord{StageId(1), 8}};
  }
  std::string written() const {
    std::ifstream in(path_);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  void fill() const {
    auto log = DecisionLog::open(path_, signer_);
    ASSERT_TRUE(log);
    for (const auto& record : one_of_each()) ASSERT_TRUE(log->append(record));
  }
  const Identity signer_ = Identity::fresh();
  const std::string folder_ = ::testing::TempDir() + "/isthmus-log-" + std::to_string(::getpid());
  const std::string path_ = folder_ + "/coordinator.log";
};

TEST_F(DecisionLogTest, BringsEveryRecordBackToTheBit) {
  for (const auto& record : one_of_each()) EXPECT_EQ(decode_record(encode_record(record)), record);
  const auto decoded = decode_record(encode_record(one_of_each()[0]));
  EXPECT_TRUE(decoded);
}

TEST_F(DecisionLogTest, ReadsFieldsThatAreThereAndInTheirRangeOnly) {
  const auto refusal = [](const std::string& text) {
    const auto record = decode_record(text);
    return record ? "" : record.error().message;
  };
  EXPECT_EQ(refusal(R"({"record":"checkpoint","stage":1,"version":8})"), "");
  EXPECT_EQ(refusal(R"({"record":"checkpoint","stage":1})"), "version is missing");
  EXPECT_EQ(refusal(R"({"record":"checkpoint","stage":4294967296,"version":8})"),
            "stage is no number from 0 to 4294967295");
  EXPECT_EQ(refusal(R"({"record":"checkpoint","stage":-1,"version":8})"), "stage is no number from 0 to 4294967295");
  EXPECT_EQ(refusal(R"({"record":"checkpoint","stage":1,"version":8,"more":0})"), "has fields that are not known");
  EXPECT_EQ(refusal(R"({"record":"expel","session":1,"reason":7})"), "reason is no text");
  EXPECT_EQ(refusal(R"({"record":"deal","from":1,"to":[[1,2,3]]})"), "to is no list of pairs");
  EXPECT_EQ(refusal(R"({"record":"rollback","version":1,"reason":"","left_out":{"first":1,"last":"2"}})"),
            "left_out last is no number from 0 to 18446744073709551615");
  EXPECT_EQ(refusal(R"({"record":"dance"})"), "no record is named dance");
  for (const char* text : {"", "[]", "{}", R"({"record":1})", R"({"record":"init")"})
    EXPECT_EQ(refusal(text), "it is no JSON object that names its record") << text;
}

TEST_F(DecisionLogTest, CutsOffATornLastRecordAndNothingElse) {
  fill();
  const std::string whole = written();
  const std::size_t last = whole.rfind('\n', whole.size() - 2) + 1;
  for (std::size_t length = last; length < whole.size(); length += 7) {
    std::ofstream(path_) << whole.substr(0, length);
    const auto log = DecisionLog::open(path_, signer_);
    ASSERT_TRUE(log) << log.error().message;
    EXPECT_EQ(log->records().size(), one_of_each().size() - 1);
  }
}

TEST_F(DecisionLogTest, RefusesADamagedRecordBeforeTheEnd) {
  fill();
  std::string damaged = written();
  damaged[damaged.find('\n') + 40] ^= 1;
  std::ofstream(path_) << damaged;
  const auto log = DecisionLog::open(path_, signer_);
  ASSERT_FALSE(log);
  EXPECT_NE(log.error().message.find(":2:"), std::string::npos) << log.error().message;
}

TEST_F(DecisionLogTest, RefusesALogThatSomebodyElseSigned) {
  fill();
  const auto other = DecisionLog::open(path_, Identity::fresh());
  ASSERT_FALSE(other);
  EXPECT_NE(other.error().message.find("is signed by"), std::string::npos) << other.error().message;
}

TEST_F(DecisionLogTest, GoesOnInTheSameChain) {
  fill();
  fill();
  const auto checked = check_lines(written(), Signatures::kAll);
  ASSERT_TRUE(checked) << checked.error().what;
  EXPECT_EQ(checked->number, 1 + 2 * one_of_each().size());
}

TEST_F(DecisionLogTest, HasOneWriterAtATime) {
  const auto first = DecisionLog::open(path_, signer_);
  ASSERT_TRUE(first);
  const auto second = DecisionLog::open(path_, signer_);
  ASSERT_FALSE(second);
  EXPECT_NE(second.error().message.find("another coordinator"), std::string::npos);
}

}  // namespace
}  // namespace isthmus::record
