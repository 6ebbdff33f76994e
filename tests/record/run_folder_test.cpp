#include "record/run_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>

#include "config/load_run.h"
#include "record/decision_log.h"
#include "record/line_file.h"
#include "spec/learning_rate.h"
#include "store/checkpoint.h"

namespace isthmus::record {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

// Three stages of emulated devices, twelve steps.
class RunFolderTest : public ::testing::Test {
 protected:
  void SetUp() override { fs::create_directories(folder_); }
  void TearDown() override { fs::remove_all(folder_); }
  static spec::RunConfig run_of(std::vector<std::string> set = {}, const std::string& earlier = {}) {
    config::RunSource source{
        .text = "[pipeline]\ndevice = \"emulated\"\nlayout = \"auto\"\nstages = 3\n[run]\nsteps = 12\n",
        .file = "run.toml"};
    source.overrides = std::move(set);
    if (!earlier.empty()) source.earlier = config::FileText{*read_whole(earlier, kSummaryBytesMax), earlier};
    const auto run = config::parse_run(source);
    EXPECT_TRUE(run.has_value()) << run.error().front().text();
    return run.value_or(spec::RunConfig());
  }
  spec::RunConfig continued(std::vector<std::string> set = {}) const {
    return run_of(std::move(set), folder().run_file());
  }
  RunFolder folder() const { return {folder_ + "/out"}; }
  // As a run of twelve steps leaves it, with the checkpoints of each stage.
  void begin(const std::map<std::uint32_t, std::vector<std::uint64_t>>& checkpoints) const {
    ASSERT_TRUE(open_run_folder(folder(), run_of(), Begin::kFresh));
    auto log = DecisionLog::open(folder().decision_log(), signer_);
    ASSERT_TRUE(log->append(coordinator::InitRecord{0}));
    for (const auto& [stage, versions] : checkpoints)
      for (const auto version : versions) {
        ASSERT_TRUE(
            store::write_checkpoint({folder().checkpoints(), StageId(stage), 0, 1, ReplicaId(0)}, version, 0, {}, {}));
        ASSERT_TRUE(log->append(coordinator::CheckpointRecord{StageId(stage), version}));
      }
    ASSERT_TRUE(write_whole(folder().metrics(), "{\"step\":1}\n{\"step\":11}\n"));
  }
  // Every file and what is in it.
  std::map<std::string, std::string> content() const {
    std::map<std::string, std::string> out;
    for (const auto& entry : fs::recursive_directory_iterator(folder_))
      if (entry.is_regular_file()) out[entry.path()] = *read_whole(entry.path(), kSummaryBytesMax);
    return out;
  }
  void expect_refused(const spec::RunConfig& run, Begin how, const std::vector<std::string>& words) const {
    const auto before = content();
    const auto start = open_run_folder(folder(), run, how);
    ASSERT_FALSE(start);
    for (const auto& word : words) EXPECT_THAT(start.error().message, HasSubstr(word));
    EXPECT_EQ(content(), before);
  }
  const Identity signer_ = Identity::fresh();
  const std::string folder_ = ::testing::TempDir() + "/isthmus-folder-" + std::to_string(::getpid());
};

TEST_F(RunFolderTest, IsHeldByOneRunAtATime) {
  for (const Begin how : {Begin::kFresh, Begin::kCleared, Begin::kResumed}) {
    if (how == Begin::kResumed) begin({{0, {5}}, {1, {5}}, {2, {5}}});
    const auto first = open_run_folder(folder(), how == Begin::kResumed ? continued() : run_of(), how);
    ASSERT_TRUE(first) << first.error().message;
    for (const Begin second : {Begin::kFresh, Begin::kCleared})
      expect_refused(run_of({"run.seed=7"}), second, {"in use by a run that has not ended"});
    if (how == Begin::kResumed) expect_refused(continued(), Begin::kResumed, {"in use"});
  }
  EXPECT_TRUE(open_run_folder(folder(), continued(), Begin::kResumed));
}

TEST_F(RunFolderTest, IsHeldAsLongAsAProcessOfTheRunLives) {
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  pid_t child = 0;
  {
    const auto start = open_run_folder(folder(), run_of(), Begin::kFresh);
    ASSERT_TRUE(start);
    child = ::fork();
    if (child == 0) {
      ::close(ends[1]);
      char c;
      [[maybe_unused]] const auto n = ::read(ends[0], &c, 1);
      ::_exit(0);
    }
  }
  expect_refused(run_of(), Begin::kFresh, {"in use"});
  ::close(ends[1]);
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  EXPECT_TRUE(open_run_folder(folder(), run_of(), Begin::kFresh));
}

// The kernel closes a killed process's files a moment after it has gone from everybody's sight.
TEST_F(RunFolderTest, CanBeTakenAtOnceFromWhoWasKilled) {
  for (int i = 0; i < 10; ++i) {
    auto start = open_run_folder(folder(), run_of(), Begin::kFresh);
    ASSERT_TRUE(start) << start.error().message;
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      while (true) ::pause();
    }
    start->claim = {};
    ::kill(child, SIGKILL);
    EXPECT_TRUE(open_run_folder(folder(), run_of(), Begin::kFresh));
    ::waitpid(child, nullptr, 0);
  }
}

TEST_F(RunFolderTest, IsNotMadeWhereThereIsNothingToResume) {
  expect_refused(run_of(), Begin::kResumed, {"no run to resume", folder().path});
  EXPECT_FALSE(fs::exists(folder().path));
}

TEST_F(RunFolderTest, WithAnyPartOfARunIsRefusedForAFreshOne) {
  begin({{0, {5}}, {1, {5}}, {2, {5}}});
  expect_refused(run_of(), Begin::kFresh, {"already holds a run", "--resume", "--force"});
  fs::remove(folder().decision_log());
  fs::remove(folder().metrics());
  expect_refused(run_of(), Begin::kFresh, {"what is left of one", "checkpoint", "--force"});
  fs::remove_all(folder().checkpoints());
  fs::create_directories(WorkerHome{folder().worker_home(1)}.journal(0));
  expect_refused(run_of(), Begin::kFresh, {"journal"});
  std::ofstream(folder().owner_key()) << "mine";
  std::ofstream(folder().path + "/notes") << "mine, too";
  ASSERT_TRUE(open_run_folder(folder(), run_of({"run.seed=7"}), Begin::kCleared));
  EXPECT_FALSE(fs::exists(WorkerHome{folder().worker_home(1)}.journal()));
  EXPECT_EQ(*read_whole(folder().owner_key(), kSummaryBytesMax), "mine");
  EXPECT_EQ(*read_whole(folder().path + "/notes", kSummaryBytesMax), "mine, too");
  EXPECT_EQ(config::load_run(folder().run_file())->run.seed, 7u);
}

// A file with holes: nothing of it is read.
TEST_F(RunFolderTest, DoesNotReadALogWithoutAnEnd) {
  begin({{0, {5}}, {1, {5}}, {2, {5}}});
  const std::string log = folder().metrics();
  fs::resize_file(log, kSummaryBytesMax + 1);
  EXPECT_TRUE(read_whole(log, kLogBytesMax));
  EXPECT_FALSE(read_whole(log, kSummaryBytesMax));
  fs::resize_file(log, kLogBytesMax + 1);
  const auto text = metrics_until(log, 5);
  ASSERT_FALSE(text);
  EXPECT_THAT(text.error().message, testing::AllOf(HasSubstr("too large"), HasSubstr("at most 4294967296 bytes")));
}

TEST_F(RunFolderTest, IsNotResumedWithoutAStagesCheckpoints) {
  begin({{0, {5, 10}}, {1, {5, 10}}, {2, {5, 10}}});
  EXPECT_EQ(open_run_folder(folder(), continued(), Begin::kResumed)->version, 10u);
  for (const char* step : {"step-00000005", "step-00000010"})
    fs::remove_all(folder().checkpoints() + "/stage-2/" + step);
  expect_refused(continued(), Begin::kResumed, {"stage 2 has no checkpoint", "step 10"});
  for (const char* stage : {"/stage-0", "/stage-1"}) fs::remove_all(folder().checkpoints() + stage);
  expect_refused(continued(), Begin::kResumed, {"stage 0 has no checkpoint"});
}

TEST_F(RunFolderTest, IsResumedFromAnOlderCheckpointThanTheRunWroteAndSaysSo) {
  begin({{0, {5, 10}}, {1, {5, 10}}, {2, {5, 10}}});
  fs::remove_all(folder().checkpoints() + "/stage-1/step-00000010");
  const auto start = open_run_folder(folder(), continued(), Begin::kResumed);
  ASSERT_TRUE(start) << start.error().message;
  EXPECT_EQ(start->version, 5u);
  EXPECT_THAT(start->changes, ElementsAre(AllOf(HasSubstr("of step 10 of stage 1"), HasSubstr("goes on from step 5"))));
}

// `train exp/run.toml --out exp`
TEST_F(RunFolderTest, LeavesAPersonsOwnFileAlone) {
  fs::create_directories(folder().path);
  for (const std::string& path : {folder().run_file(), folder().host_file()}) {
    std::ofstream(path) << "# mine\n";
    for (const Begin how : {Begin::kFresh, Begin::kCleared}) {
      const auto start = open_run_folder(folder(), run_of(), how);
      ASSERT_FALSE(start);
      EXPECT_THAT(start.error().message, HasSubstr(path + " is a file that no run wrote"));
    }
    EXPECT_EQ(*read_whole(path, 100), "# mine\n");
    fs::remove(path);
  }
  ASSERT_TRUE(open_run_folder(folder(), run_of(), Begin::kFresh));
  EXPECT_TRUE(open_run_folder(folder(), run_of(), Begin::kFresh));  // what it wrote itself, before the run began
}

TEST_F(RunFolderTest, IsNotResumedWhereNoStepHasACheckpointOfEveryStage) {
  begin({{0, {5}}, {1, {10}}, {2, {5, 10}}});
  expect_refused(continued(), Begin::kResumed, {"stage 0: 5", "stage 1: 10", "stage 2: 5, 10"});
}

TEST_F(RunFolderTest, IsResumedFromTheBeginningBeforeTheFirstCheckpointIsWhole) {
  begin({{0, {5}}, {1, {5}}});
  const auto start = open_run_folder(folder(), continued(), Begin::kResumed);
  ASSERT_TRUE(start) << start.error().message;
  EXPECT_EQ(start->version, 0u);
}

TEST_F(RunFolderTest, IsResumedFromTheBeginningAfterARollbackToIt) {
  begin({{0, {5}}, {1, {5}}, {2, {5}}});
  ASSERT_TRUE(DecisionLog::open(folder().decision_log(), signer_)
                  ->append(coordinator::RollbackRecord{0, "bad steps", {StepId(1), StepId(6)}}));
  fs::remove_all(folder().checkpoints());
  EXPECT_TRUE(open_run_folder(folder(), continued(), Begin::kResumed));
}

TEST_F(RunFolderTest, MayBeResumedWithMoreStepsAndSaysWhatTheScheduleDoes) {
  begin({{0, {10}}, {1, {10}}, {2, {10}}});
  // The warm-up of twelve steps is no key that anybody wrote.
  const auto longer = continued({"run.steps=16"});
  const auto start = open_run_folder(folder(), longer, Begin::kResumed);
  ASSERT_TRUE(start) << start.error().message;
  EXPECT_THAT(start->changes,
              ElementsAre("not as before: run.steps: 12 / 16",
                          AllOf(HasSubstr("still ends with step 12"), HasSubstr("train.schedule_steps = 16"))));
  EXPECT_EQ(spec::learning_rate(longer, StepId(11)), spec::learning_rate(run_of(), StepId(11)));
  EXPECT_DOUBLE_EQ(spec::learning_rate(longer, StepId(16)), longer.train.learning_rate * 0.1);
}

TEST_F(RunFolderTest, MayBeResumedWithAnotherScheduleAndSaysBothLearningRates) {
  begin({{0, {10}}, {1, {10}}, {2, {10}}});
  const auto start = open_run_folder(folder(), continued({"run.steps=16", "train.schedule_steps=16"}), Begin::kResumed);
  ASSERT_TRUE(start) << start.error().message;
  EXPECT_THAT(start->changes, ElementsAre("not as before: run.steps: 12 / 16",
                                          HasSubstr("schedule has 16 steps, was 12: step 11 has")));
}

TEST_F(RunFolderTest, TellsWhatElseIsNotAsBefore) {
  begin({{0, {10}}, {1, {10}}, {2, {10}}});
  const auto start = open_run_folder(folder(), continued({"link.latency_ms=7", "pipeline.threads=2"}), Begin::kResumed);
  ASSERT_TRUE(start) << start.error().message;
  EXPECT_THAT(start->changes, ElementsAre("not as before: link.latency_ms: 50.0 / 7.0"));
}

TEST_F(RunFolderTest, IsNotResumedByAnotherRun) {
  begin({{0, {10}}, {1, {10}}, {2, {10}}});
  expect_refused(continued({"train.learning_rate=1"}), Begin::kResumed, {"train.learning_rate: 0.001 / 1.0"});
  expect_refused(continued({"pipeline.stages=2"}), Begin::kResumed, {"pipeline.stage", "--from"});
}

TEST_F(RunFolderTest, IsResumedWithTheSameDataWhereverItLiesAndWithNoOther) {
  const auto named = [](spec::RunConfig run, char digit, const std::string& path) {
    run.data.train = run.data.validation = {std::string(64, digit), 100};
    run.host.data = {path, path};
    return run;
  };
  ASSERT_TRUE(open_run_folder(folder(), named(run_of(), 'a', folder_ + "/d/t.bin"), Begin::kFresh));
  EXPECT_THAT(*read_whole(folder().run_file(), kSummaryBytesMax), HasSubstr("train = \"../d/t.bin\""));
  ASSERT_TRUE(DecisionLog::open(folder().decision_log(), signer_)->append(coordinator::InitRecord{0}));
  EXPECT_TRUE(open_run_folder(folder(), named(continued(), 'a', "/elsewhere/x.bin"), Begin::kResumed));
  expect_refused(named(continued(), 'b', folder_ + "/d/t.bin"), Begin::kResumed,
                 {"data.train_digest", std::string(64, 'a'), std::string(64, 'b')});
}

}  // namespace
}  // namespace isthmus::record
