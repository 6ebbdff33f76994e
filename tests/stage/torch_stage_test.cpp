#include "stage/torch_stage.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <map>

#include "base/counter_random.h"
#include "config/load_run.h"
#include "model/write_byte_shard.h"
#include "scheduler/learning_rate.h"
#include "scheduler/make_plan.h"

namespace isthmus {
namespace {

namespace fs = std::filesystem;

class TorchStageTest : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::create_directories(folder_);
    Bytes text(20'000);
    const CounterRandom random(1, "text");
    // Text with structure, so that training has something to find.
    for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<std::uint8_t>('a' + (i % 7) + random.below(3, i));
    ASSERT_TRUE(write_byte_shard(folder_ + "/text.bin", text));
  }
  void TearDown() override { fs::remove_all(folder_); }

  RunConfig run_of(const std::string& stages, std::vector<std::string> overrides = {}) const {
    const std::string text = "[run]\nsteps = 20\ndeterministic = true\n[model]\nlayers = 4\nhidden = 32\nheads = 2\ncontext = 64\n"
                             "[data]\ntrain = \"" + folder_ + "/text.bin\"\nvalidation = \"" + folder_ + "/text.bin\"\n"
                             "[train]\nsequences_per_microbatch = 2\nmicrobatches_per_step = 3\nwarmup_steps = 2\n"
                             "[boundary]\nrank = 6\nfactored_layers = 3\nvalues = \"fp32\"\n"
                             "[pipeline]\nlayout = \"auto\"\nstages = " + stages + "\n";
    const auto run = parse_run(text, "test.toml", overrides);
    EXPECT_TRUE(run) << (run ? "" : run.error().front().text());
    return *run;
  }

  // A pipeline in one process: the stages pass EncodedTensors to each other by hand.
  struct Pipeline {
    RunConfig run;
    Plan plan;
    std::vector<std::unique_ptr<StageCompute>> stages;
    std::vector<double> losses;

    Pipeline(const RunConfig& r, const std::string& folder) : run(r), plan(make_plan(r)) {
      for (std::uint32_t s = 0; s < run.pipeline.stage.size(); ++s) {
        auto stage = make_torch_stage(run, StageId(s), ReplicaId(0), folder);
        EXPECT_TRUE(stage) << (stage ? "" : stage.error().message);
        stages.push_back(std::move(*stage));
      }
    }
    // `order`: in which order the weight gradients of the step are added.
    void step(std::uint64_t number, const std::vector<std::uint32_t>& order = {2, 0, 1}) {
      double loss = 0;
      for (std::uint32_t m = 0; m < 3; ++m) {
        EncodedTensor tensor;
        for (auto& stage : stages) {
          auto result = stage->forward(StepId(number), MicrobatchId(m), true, tensor);
          ASSERT_TRUE(result) << result.error().message;
          tensor = result->output;
          if (result->loss) loss += result->loss->sum;
        }
        tensor = {};
        for (std::size_t s = stages.size(); s-- > 0;) tensor = *stages[s]->input_gradient(MicrobatchId(m), tensor);
      }
      Commit commit;
      commit.step = StepId(number);
      double norm2 = 0;
      for (auto& stage : stages) {
        for (const std::uint32_t m : order) stage->weight_gradient(MicrobatchId(m));
        const auto prepared = stage->prepare({}, true);
        EXPECT_TRUE(prepared.finite);
        for (const auto& unit : prepared.norms) norm2 += unit.norm2;
      }
      commit.scale = std::min(1.0, 1.0 / std::sqrt(norm2));
      for (auto& stage : stages) stage->apply(commit, learning_rate(run, StepId(number)));
      losses.push_back(loss / (3 * plan.tokens_per_microbatch));
    }
    std::map<std::string, std::string> digests() const {
      std::map<std::string, std::string> all;
      for (const auto& stage : stages)
        for (const auto& unit : stage->weight_digests()) EXPECT_TRUE(all.emplace(unit.unit, unit.hex).second) << unit.unit;
      return all;
    }
  };

  Pipeline trained(const RunConfig& run, int steps = 20) {
    Pipeline pipeline(run, folder_ + "/checkpoint");
    for (int s = 1; s <= steps; ++s) pipeline.step(static_cast<std::uint64_t>(s));
    return pipeline;
  }

  const std::string folder_ = ::testing::TempDir() + "/isthmus-stage-" + std::to_string(::getpid());
};

TEST_F(TorchStageTest, EndsWithTheSameWeightsHoweverTheLayersAreCut) {
  for (const char* precision : {"fp32", "bf16"}) {
    const std::string set = std::string("train.precision=") + precision;
    const auto one = trained(run_of("1", {set})), two = trained(run_of("2", {set})), four = trained(run_of("4", {set}));
    EXPECT_EQ(one.digests().size(), 6u);
    EXPECT_EQ(one.digests(), two.digests()) << precision;
    EXPECT_EQ(one.digests(), four.digests()) << precision;
    EXPECT_EQ(one.losses, four.losses) << precision;
  }
}

TEST_F(TorchStageTest, EndsWithTheSameWeightsForADenseModel) {
  const std::vector<std::string> dense = {"boundary.codec=identity"};
  const auto strip = [&](const std::string& stages) {
    const std::string text = "[run]\nsteps = 20\ndeterministic = true\n[model]\nlayers = 4\nhidden = 32\nheads = 2\ncontext = 64\n"
                             "[data]\ntrain = \"" + folder_ + "/text.bin\"\nvalidation = \"" + folder_ + "/text.bin\"\n"
                             "[train]\nsequences_per_microbatch = 2\nmicrobatches_per_step = 3\nwarmup_steps = 2\n"
                             "[boundary]\ncodec = \"identity\"\nvalues = \"fp32\"\n[pipeline]\nlayout = \"auto\"\nstages = " + stages + "\n";
    return *parse_run(text, "test.toml");
  };
  EXPECT_EQ(trained(strip("1")).digests(), trained(strip("4")).digests());
}

TEST_F(TorchStageTest, Learns) {
  const auto pipeline = trained(run_of("2"));
  EXPECT_LT(pipeline.losses.back(), pipeline.losses.front() * 0.9);
}

TEST_F(TorchStageTest, DoesNotDependOnTheOrderOfMicrobatches) {
  Pipeline a(run_of("2"), folder_), b(run_of("2"), folder_);
  a.step(1, {0, 1, 2});
  b.step(1, {2, 1, 0});
  EXPECT_EQ(a.digests(), b.digests());
}

TEST_F(TorchStageTest, RecomputesToTheSameBits) {
  EXPECT_EQ(trained(run_of("2", {"pipeline.recompute=always"}), 3).digests(), trained(run_of("2", {"pipeline.recompute=never"}), 3).digests());
}

TEST_F(TorchStageTest, DependsOnItsSeed) { EXPECT_NE(trained(run_of("2", {"run.seed=2"}), 1).digests(), trained(run_of("2"), 1).digests()); }

TEST_F(TorchStageTest, ContinuesFromACheckpointWithTheSameBits) {
  auto first = trained(run_of("2"), 3);
  for (auto& stage : first.stages) ASSERT_TRUE(stage->save(3, 0));
  Pipeline second(run_of("2"), folder_ + "/checkpoint");
  for (auto& stage : second.stages) {
    const auto loaded = stage->load(3);
    ASSERT_TRUE(loaded) << loaded.error().message;
  }
  EXPECT_EQ(first.digests(), second.digests());
  for (std::uint64_t s = 4; s <= 6; ++s) {
    first.step(s);
    second.step(s);
  }
  EXPECT_EQ(first.digests(), second.digests());
}

TEST_F(TorchStageTest, LeavesTheWeightsAloneInASkippedStepAndADroppedOne) {
  auto pipeline = trained(run_of("1"), 1);
  const auto before = pipeline.digests();
  StageCompute& stage = *pipeline.stages[0];
  (void)stage.forward(StepId(2), MicrobatchId(0), true, {});
  (void)stage.input_gradient(MicrobatchId(0), {});
  stage.weight_gradient(MicrobatchId(0));
  stage.drop_step();
  for (const auto& unit : stage.prepare({}, true).norms) EXPECT_EQ(unit.norm2, 0.0);
  Commit skip;
  skip.step = StepId(2);
  skip.apply = false;
  stage.apply(skip, 1e-3);
  EXPECT_EQ(pipeline.digests(), before);
}

TEST_F(TorchStageTest, RefusesForeignBytesOfAnotherSize) {
  Pipeline pipeline(run_of("2"), folder_);
  auto sent = pipeline.stages[0]->forward(StepId(1), MicrobatchId(0), true, {});
  ASSERT_TRUE(sent);
  EncodedTensor cut = sent->output;
  cut.values = share(Bytes(cut.values->begin(), cut.values->end() - 1));
  EXPECT_FALSE(pipeline.stages[1]->forward(StepId(1), MicrobatchId(0), true, cut));
  EXPECT_FALSE(pipeline.stages[1]->forward(StepId(1), MicrobatchId(0), true, {}));
  EXPECT_FALSE(pipeline.stages[0]->input_gradient(MicrobatchId(0), {}));
}

TEST_F(TorchStageTest, NoticesAGradientThatIsNotFinite) {
  Pipeline pipeline(run_of("2"), folder_);
  (void)pipeline.stages[0]->forward(StepId(1), MicrobatchId(0), true, {});
  EncodedTensor poison;
  poison.values = share(Bytes(pipeline.plan.backward_bytes, 0xff));  // NaN everywhere
  ASSERT_TRUE(pipeline.stages[0]->input_gradient(MicrobatchId(0), poison));
  pipeline.stages[0]->weight_gradient(MicrobatchId(0));
  EXPECT_FALSE(pipeline.stages[0]->prepare({}, true).finite);
}

}  // namespace
}  // namespace isthmus
