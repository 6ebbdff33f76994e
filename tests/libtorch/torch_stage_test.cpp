#include "libtorch/torch_stage.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>

#include "base/counter_random.h"
#include "compress/boundary_codec.h"
#include "compress/subspace.h"
#include "config/load_run.h"
#include "model/torch.h"
#include "scheduler/planner/make_plan.h"
#include "spec/learning_rate.h"
#include "spec/stage_tensors.h"
#include "store/checkpoint.h"

namespace isthmus::libtorch {
namespace {

namespace fs = std::filesystem;

class TorchStageTest : public ::testing::Test {
 protected:
  void SetUp() override { fs::create_directories(folder_); }
  void TearDown() override { fs::remove_all(folder_); }

  // What the head reads: two sequences of 65 bytes with structure, so that training has something to find.
  static compress::EncodedTensor read(std::uint64_t step, std::uint32_t m) {
    constexpr std::size_t kBytes = 2 * 65;
    const CounterRandom random(1, "text");
    const std::size_t first = (step * 100 + m) * kBytes;
    Bytes text(kBytes);
    for (std::size_t i = 0; i < kBytes; ++i)
      text[i] = static_cast<std::uint8_t>('a' + ((first + i) % 7) + random.below(2, first + i));
    return {nullptr, share(std::move(text))};
  }

  spec::RunConfig run_of(const std::string& stages, std::vector<std::string> overrides = {}) const {
    const std::string text =
        "[run]\nsteps = 20\ndeterministic = true\n[model]\nlayers = 4\nhidden = 32\nheads = 2\ncontext = "
        "64\ntoken_path = \"none\"\n"
        "[data]\ntrain = \"train.bin\"\nvalidation = \"validation.bin\"\n"
        "[train]\nsequences_per_microbatch = 2\nmicrobatches_per_step = 3\nwarmup_steps = 2\noptimizer = \"adamw\"\n"
        "[boundary]\nrank = 6\nfactored_layers = 3\nvalues = \"fp32\"\n"
        "[pipeline]\nlayout = \"auto\"\nstages = " +
        stages + "\n";
    const auto run = config::parse_run(text, "test.toml", overrides);
    EXPECT_TRUE(run) << (run ? "" : run.error().front().text());
    return *run;
  }

  // A pipeline in one process: the stages pass EncodedTensors to each other by hand.
  struct Pipeline {
    spec::RunConfig run;
    protocol::Plan plan;
    std::vector<std::unique_ptr<runner::StageCompute>> stages;
    std::vector<double> losses;
    std::string folder;

    Pipeline(const spec::RunConfig& r, const std::string& checkpoints)
        : run(r), plan(planner::make_plan(r)), folder(checkpoints) {
      for (std::uint32_t s = 0; s < run.pipeline.stage.size(); ++s) {
        auto stage = make_torch_stage(run, StageId(s), ReplicaId(0));
        EXPECT_TRUE(stage) << (stage ? "" : stage.error().message);
        stages.push_back(std::move(*stage));
      }
    }
    store::CheckpointPlace place(std::size_t s) const {
      return {folder, StageId(static_cast<std::uint32_t>(s)), plan.stages[s].first_layer, plan.stages[s].end_layer,
              ReplicaId(0)};
    }
    Status save(std::size_t s, std::uint64_t version) const {
      const auto copy = stages[s]->copy();
      return store::write_checkpoint(place(s), version, 0, copy.weights, copy.optimizer);
    }
    Status load(std::size_t s, std::uint64_t version) {
      const auto checkpoint = store::read_checkpoint(place(s), version);
      if (!checkpoint) return tl::unexpected(checkpoint.error());
      return stages[s]->load(*checkpoint);
    }
    // `order`: in which order the weight gradients of the step are added.
    void step(std::uint64_t number, const std::vector<std::uint32_t>& order = {2, 0, 1}) {
      const double norm2 = gradients(number, order);
      protocol::Commit commit;
      commit.step = StepId(number);
      commit.scale = std::min(1.0, 1.0 / std::sqrt(norm2));
      for (auto& stage : stages) stage->apply(commit, spec::learning_rate(run, StepId(number)));
    }
    // All of a step before its commit. The squared norm of the whole gradient.
    double gradients(std::uint64_t number, const std::vector<std::uint32_t>& order = {2, 0, 1}) {
      double loss = 0, norm2 = 0;
      microbatches(number, loss);
      for (auto& stage : stages) {
        for (const std::uint32_t m : order) stage->weight_gradient(MicrobatchId(m));
        const auto prepared = stage->prepare({}, true);
        EXPECT_TRUE(prepared.finite);
        for (const auto& unit : prepared.norms) norm2 += unit.norm2;
      }
      losses.push_back(loss / (3 * plan.tokens_per_microbatch));
      return norm2;
    }
    void microbatches(std::uint64_t number, double& loss) {
      for (std::uint32_t m = 0; m < 3; ++m) {
        compress::EncodedTensor tensor = read(number, m);
        for (auto& stage : stages) {
          auto result = stage->forward(StepId(number), MicrobatchId(m), true, tensor);
          ASSERT_TRUE(result) << result.error().message;
          tensor = result->output;
          if (result->loss) loss += result->loss->sum;
          ASSERT_EQ(tensor.values == nullptr, result->loss.has_value());
          if (tensor.values) {
            EXPECT_EQ(tensor.values->size(), plan.forward_bytes);
            EXPECT_EQ(tensor.tokens->size(), plan.token_bytes);
          }
        }
        tensor = {};
        for (std::size_t s = stages.size(); s-- > 0;) {
          auto result = stages[s]->input_gradient(MicrobatchId(m), tensor);
          ASSERT_TRUE(result) << result.error().message;
          tensor = *result;
          ASSERT_EQ(tensor.values == nullptr, s == 0);
          if (tensor.values) {
            EXPECT_EQ(tensor.values->size(), plan.backward_bytes);
          }
        }
      }
    }
    std::map<std::string, std::string> digests() const {
      std::map<std::string, std::string> all;
      for (const auto& stage : stages)
        for (const auto& unit : stage->weight_digests())
          EXPECT_TRUE(all.emplace(unit.unit, unit.hex).second) << unit.unit;
      return all;
    }
  };

  // A replica of a stage that is the whole model does these microbatches of a step.
  static void accumulate(runner::StageCompute& replica, std::uint64_t step,
                         const std::vector<std::uint32_t>& microbatches) {
    for (const std::uint32_t m : microbatches) {
      ASSERT_TRUE(replica.forward(StepId(step), MicrobatchId(m), true, read(step, m)));
      ASSERT_TRUE(replica.input_gradient(MicrobatchId(m), {}));
      replica.weight_gradient(MicrobatchId(m));
    }
  }
  // As the router does it: every replica adds up one slice of all parts, in the order of the members.
  static std::vector<SharedBytes> combined(const protocol::Plan& plan,
                                           const std::vector<runner::StageCompute*>& replicas) {
    std::vector<SharedBytes> sums, totals;
    for (runner::StageCompute* replica : replicas) {
      const auto sum = replica->close();
      EXPECT_TRUE(sum.finite);
      EXPECT_EQ(sum.bytes->size(), plan.stages[0].parameters * plan.part_width);
      sums.push_back(sum.bytes);
    }
    for (std::size_t i = 0; i < replicas.size(); ++i) {
      const protocol::Slice slice = protocol::slice_of(plan.stages[0].parameters, i, replicas.size());
      std::vector<SharedBytes> parts;
      for (const auto& sum : sums)
        parts.push_back(share(Bytes(sum->begin() + static_cast<std::ptrdiff_t>(slice.first * plan.part_width),
                                    sum->begin() + static_cast<std::ptrdiff_t>(slice.end * plan.part_width))));
      totals.push_back(replicas[i]->add(parts));
      EXPECT_EQ(totals.back()->size(), slice.size() * plan.total_width);
    }
    return totals;
  }
  static protocol::Commit commit_of(std::uint64_t step, const runner::StageCompute::Prepared& prepared) {
    double norm2 = 0;
    for (const auto& unit : prepared.norms) norm2 += unit.norm2;
    protocol::Commit commit;
    commit.step = StepId(step);
    commit.scale = std::min(1.0, 1.0 / std::sqrt(norm2));
    return commit;
  }
  static std::vector<float> floats(const SharedBytes& bytes, std::uint64_t count) {
    std::vector<float> values(count);
    std::memcpy(values.data(), bytes->data(), count * sizeof(float));
    return values;
  }
  static double distance(const std::vector<float>& a, const std::vector<float>& b) {
    double square = 0;
    for (std::size_t i = 0; i < a.size(); ++i) square += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
    return std::sqrt(square);
  }

  Pipeline trained(const spec::RunConfig& run, int steps = 20) {
    Pipeline pipeline(run, folder_ + "/checkpoint");
    for (int s = 1; s <= steps; ++s) pipeline.step(static_cast<std::uint64_t>(s));
    return pipeline;
  }

  // Floats of a stage taken apart as the plan lists its tensors; behind each, `moments` more of its size.
  static void take_apart(const spec::RunConfig& run, std::uint32_t s, ByteView bytes, bool moments,
                         std::map<std::string, at::Tensor>& out) {
    const auto& stage = run.pipeline.stage[s];
    for (const auto& spec : spec::stage_tensors(run, stage.first_layer, stage.end_layer)) {
      at::Tensor tensor = torch::empty({spec.numbers()});
      std::memcpy(tensor.mutable_data_ptr(), bytes.data(), tensor.nbytes());
      bytes = bytes.subspan(tensor.nbytes() * (moments ? 1 + spec::optimizer_moments(run, spec) : 1));
      out[spec.name()] = spec.columns == 0 ? tensor : tensor.view({spec.rows, spec.columns});
    }
    EXPECT_EQ(bytes.size(), moments ? sizeof(std::uint64_t) : 0);
  }
  static std::map<std::string, at::Tensor> weights_of(const Pipeline& pipeline) {
    std::map<std::string, at::Tensor> weights;
    for (std::uint32_t s = 0; s < pipeline.stages.size(); ++s)
      take_apart(pipeline.run, s, *pipeline.stages[s]->state(), true, weights);
    return weights;
  }
  // After Pipeline::gradients.
  static std::map<std::string, at::Tensor> gradients_of(const Pipeline& pipeline) {
    std::map<std::string, at::Tensor> gradients;
    for (std::uint32_t s = 0; s < pipeline.stages.size(); ++s)
      take_apart(pipeline.run, s, *pipeline.stages[s]->total(), false, gradients);
    return gradients;
  }
  static at::Tensor basis_of(const spec::RunConfig& run) {
    const std::int64_t d = run.model.hidden, k = run.boundary.rank;
    return torch::tensor(compress::subspace_basis(run.run.seed, d, k)).view({d, k});
  }

  const std::string folder_ = ::testing::TempDir() + "/isthmus-stage-" + std::to_string(::getpid());
};

TEST_F(TorchStageTest, EndsWithTheSameWeightsHoweverTheLayersAreCut) {
  for (const char* precision : {"fp32", "bf16"}) {
    const std::string set = std::string("train.precision=") + precision;
    const auto one = trained(run_of("1", {set}), 6), two = trained(run_of("2", {set}), 6),
               four = trained(run_of("4", {set}), 6);
    EXPECT_EQ(one.digests().size(), 6u);
    EXPECT_EQ(one.digests(), two.digests()) << precision;
    EXPECT_EQ(one.digests(), four.digests()) << precision;
    EXPECT_EQ(one.losses, four.losses) << precision;
  }
}

// Where nothing is cut off at a boundary, nothing is a stage's own, and the numbers arrive as they are.
TEST_F(TorchStageTest, EndsWithTheSameWeightsInEveryFormThatLosesNothing) {
  const std::vector<std::vector<std::string>> forms = {
      {"boundary.codec=identity"},
      {"boundary.codec=identity", "train.optimizer=muon"},
      {"boundary.codec=top_k", "boundary.rank=32"},
      {"boundary.codec=subspace", "train.optimizer=muon"},
      {"boundary.codec=subspace", "boundary.factored_layers=4", "train.writer_learning_rate=1.5"},
  };
  for (const auto& form : forms) {
    const auto one = trained(run_of("1", form), 3), three = trained(run_of("3", form), 3),
               four = trained(run_of("4", form), 3);
    EXPECT_EQ(one.digests(), three.digests()) << ::testing::PrintToString(form);
    EXPECT_EQ(one.digests(), four.digests()) << ::testing::PrintToString(form);
    EXPECT_EQ(one.losses, four.losses) << ::testing::PrintToString(form);
  }
}

// A boundary drops what of a gradient lies outside the subspace. A matrix that is kept in it cannot use that part, but
// AdamW sees it where there is no boundary, so only gradients agree, and inside the subspace.
TEST_F(TorchStageTest, HasTheSameGradientsInTheSubspaceHoweverAProjectedModelIsCut) {
  const std::vector<std::string> projected = {"boundary.codec=projected", "train.precision=fp32"};
  Pipeline one(run_of("1", projected), folder_), four(run_of("4", projected), folder_);
  for (Pipeline* pipeline : {&one, &four}) pipeline->gradients(1);
  EXPECT_NEAR(one.losses[0], four.losses[0], 1e-6);
  const at::Tensor u = basis_of(one.run);
  const auto expected = gradients_of(one), found = gradients_of(four);
  for (const auto& spec : spec::stage_tensors(one.run, 0, one.run.model.layers)) {
    const auto seen = [&](const at::Tensor& g) {
      return spec.in_subspace == spec::TensorSpec::InSubspace::kColumns ? u.t().mm(g)
             : spec.in_subspace == spec::TensorSpec::InSubspace::kRows  ? g.mm(u)
                                                                        : g;
    };
    const at::Tensor a = seen(expected.at(spec.name())), b = seen(found.at(spec.name()));
    EXPECT_LT((a - b).norm().item<double>(), 1e-5 * a.norm().item<double>()) << spec.name();
  }
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
  EXPECT_EQ(trained(run_of("2", {"pipeline.recompute=always"}), 3).digests(),
            trained(run_of("2", {"pipeline.recompute=never"}), 3).digests());
}

TEST_F(TorchStageTest, DependsOnItsSeed) {
  EXPECT_NE(trained(run_of("2", {"run.seed=2"}), 1).digests(), trained(run_of("2"), 1).digests());
}

TEST_F(TorchStageTest, ContinuesFromACheckpointWithTheSameBits) {
  auto first = trained(run_of("2"), 3);
  Pipeline second(run_of("2"), folder_ + "/checkpoint");
  for (std::size_t s = 0; s < second.stages.size(); ++s) {
    ASSERT_TRUE(first.save(s, 3));
    const auto loaded = second.load(s, 3);
    ASSERT_TRUE(loaded) << loaded.error().message;
  }
  EXPECT_EQ(first.digests(), second.digests());
  for (std::uint64_t s = 4; s <= 6; ++s) {
    first.step(s);
    second.step(s);
  }
  EXPECT_EQ(first.digests(), second.digests());
}

// Two replicas that share a step, one that came too late for any of it, and one that computes nothing and is told the
// sum.
TEST_F(TorchStageTest, ReplicasThatShareAStepEndWithTheWeightsOfOne) {
  const spec::RunConfig run = run_of("1", {"train.microbatches_per_step=4"});
  Pipeline alone(run, folder_), first(run, folder_), second(run, folder_), idle(run, folder_), told(run, folder_);
  const protocol::Plan& plan = alone.plan;
  runner::StageCompute &whole = *alone.stages[0], &a = *first.stages[0], &b = *second.stages[0], &c = *idle.stages[0],
                       &d = *told.stages[0];
  for (std::uint64_t step = 1; step <= 4; ++step) {
    accumulate(whole, step, {0, 1, 2, 3});
    accumulate(a, step, {2, 0});
    accumulate(b, step, {1, 3});
    const auto expected = whole.prepare({}, true);
    const auto totals = combined(plan, {&a, &b, &c});
    const double rate = spec::learning_rate(run, StepId(step));
    for (runner::StageCompute* replica : {&a, &b, &c}) {
      const auto prepared = replica->prepare(totals, true);
      EXPECT_EQ(prepared.sum_digest, expected.sum_digest);
      EXPECT_FALSE(prepared.sum_digest.empty());
      ASSERT_EQ(prepared.norms.size(), expected.norms.size());
      for (std::size_t i = 0; i < expected.norms.size(); ++i)
        EXPECT_EQ(prepared.norms[i].norm2, expected.norms[i].norm2);
      EXPECT_TRUE(replica->total() == whole.total());
    }
    EXPECT_EQ(b.total()->size(), plan.stages[0].parameters * plan.total_width);
    d.prepare({b.total()}, true);
    for (runner::StageCompute* replica : {&whole, &a, &b, &c, &d}) replica->apply(commit_of(step, expected), rate);
    for (const Pipeline* replica : {&first, &second, &idle, &told})
      EXPECT_EQ(replica->digests(), alone.digests()) << "step " << step;
  }
  for (const runner::StageCompute* replica : {&a, &b, &c, &d})
    EXPECT_TRUE(replica->state() == whole.state());  // the optimizer's, too
}

// Without fixed point the order of additions shows in the last bits, but replicas add in one order, so they stay equal.
TEST_F(TorchStageTest, ReplicasStayEqualWithoutDeterminism) {
  const spec::RunConfig run = run_of(
      "1", {"train.microbatches_per_step=4", "run.deterministic=false", "train.precision=fp32", "pipeline.threads=1"});
  Pipeline alone(run, folder_), first(run, folder_), second(run, folder_), told(run, folder_);
  const protocol::Plan& plan = alone.plan;
  const std::uint64_t parameters = plan.stages[0].parameters;
  runner::StageCompute &whole = *alone.stages[0], &a = *first.stages[0], &b = *second.stages[0], &c = *told.stages[0];
  const auto before = whole.state();
  for (std::uint64_t step = 1; step <= 3; ++step) {
    accumulate(whole, step, {0, 1, 2, 3});
    accumulate(a, step, {2, 0});
    accumulate(b, step, {1, 3});
    const auto alone_prepared = whole.prepare({}, true);
    const auto totals = combined(plan, {&a, &b});
    const auto prepared = a.prepare(totals, true);
    b.prepare(totals, true);
    EXPECT_TRUE(prepared.sum_digest.empty());
    const auto sum = floats(a.total(), parameters), expected = floats(whole.total(), parameters);
    EXPECT_GT(distance(expected, std::vector<float>(parameters)), 0.0);
    EXPECT_LT(distance(sum, expected), 1e-3 * distance(expected, std::vector<float>(parameters)));
    c.prepare({b.total()}, true);
    const double rate = spec::learning_rate(run, StepId(step));
    whole.apply(commit_of(step, alone_prepared), rate);
    for (runner::StageCompute* replica : {&a, &b, &c}) replica->apply(commit_of(step, prepared), rate);
    EXPECT_EQ(first.digests(), second.digests()) << "step " << step;
    EXPECT_EQ(first.digests(), told.digests()) << "step " << step;
  }
  EXPECT_TRUE(a.state() == b.state());
  EXPECT_TRUE(a.state() == c.state());
  const std::uint64_t numbers = 3 * parameters;
  const auto ends = floats(whole.state(), numbers);
  EXPECT_LT(distance(floats(a.state(), numbers), ends), 1e-2 * distance(floats(before, numbers), ends));
}

TEST_F(TorchStageTest, GoesOnFromTheStateOfAnotherWithTheSameBits) {
  for (const char* precision : {"fp32", "bf16"}) {
    const auto run = run_of("2", {std::string("train.precision=") + precision});
    auto giver = trained(run, 3);
    Pipeline taker(run, folder_);
    taker.step(1);
    ASSERT_NE(taker.digests(), giver.digests());
    // It was in the middle of something: none of that may be left.
    auto sent = taker.stages[0]->forward(StepId(2), MicrobatchId(0), true, read(2, 0));
    ASSERT_TRUE(sent);
    ASSERT_TRUE(taker.stages[1]->forward(StepId(2), MicrobatchId(0), true, sent->output));
    ASSERT_TRUE(taker.stages[1]->input_gradient(MicrobatchId(0), {}));
    taker.stages[1]->weight_gradient(MicrobatchId(0));
    for (std::size_t s = 0; s < 2; ++s) {
      const auto state = giver.stages[s]->state();
      EXPECT_EQ(state->size(), giver.plan.stages[s].state_bytes);
      ASSERT_TRUE(taker.stages[s]->restore(*state));
      EXPECT_TRUE(taker.stages[s]->state() == state);
    }
    EXPECT_EQ(taker.digests(), giver.digests());
    for (std::uint64_t step = 4; step <= 6; ++step) {
      giver.step(step);
      taker.step(step);
      EXPECT_EQ(taker.digests(), giver.digests()) << precision << ", step " << step;
      EXPECT_EQ(taker.losses.back(), giver.losses.back());
    }
    for (std::size_t s = 0; s < 2; ++s) EXPECT_TRUE(taker.stages[s]->state() == giver.stages[s]->state());
  }
}

TEST_F(TorchStageTest, RefusesAStateOfAnyOtherLengthAndStaysAsItWas) {
  const auto run = run_of("1");
  auto giver = trained(run, 2);
  const SharedBytes state = giver.stages[0]->state();
  const Bytes foreign(state->begin(), state->end());
  auto pipeline = trained(run, 1);
  runner::StageCompute& stage = *pipeline.stages[0];
  accumulate(stage, 2, {0, 1});
  const auto before = stage.state();
  const auto sum = stage.prepare({}, true).sum_digest;
  for (const std::size_t size : {std::size_t{0}, std::size_t{1}, foreign.size() / 2, foreign.size() - 8,
                                 foreign.size() - 1, foreign.size() + 1, 2 * foreign.size()}) {
    Bytes other = foreign;
    other.resize(size);
    const auto refused = stage.restore(other);
    ASSERT_FALSE(refused) << size;
    EXPECT_NE(refused.error().message.find(std::to_string(size)), std::string::npos) << refused.error().message;
    EXPECT_TRUE(stage.state() == before) << size;
    EXPECT_EQ(stage.prepare({}, true).sum_digest, sum) << size;
  }
  accumulate(stage, 2, {2});  // and the step it was in goes on
  auto twin = trained(run, 2);
  stage.apply(commit_of(2, stage.prepare({}, true)), spec::learning_rate(run, StepId(2)));
  EXPECT_EQ(pipeline.digests(), twin.digests());
  ASSERT_TRUE(stage.restore(foreign));
}

TEST_F(TorchStageTest, LeavesTheWeightsAloneInASkippedStepAndADroppedOne) {
  auto pipeline = trained(run_of("1"), 1);
  const auto before = pipeline.digests();
  runner::StageCompute& stage = *pipeline.stages[0];
  (void)stage.forward(StepId(2), MicrobatchId(0), true, read(2, 0));
  (void)stage.input_gradient(MicrobatchId(0), {});
  stage.weight_gradient(MicrobatchId(0));
  stage.drop_step();
  for (const auto& unit : stage.prepare({}, true).norms) EXPECT_EQ(unit.norm2, 0.0);
  protocol::Commit skip;
  skip.step = StepId(2);
  skip.apply = false;
  stage.apply(skip, 1e-3);
  EXPECT_EQ(pipeline.digests(), before);
}

TEST_F(TorchStageTest, RefusesForeignBytesOfAnotherSize) {
  Pipeline pipeline(run_of("2"), folder_);
  auto sent = pipeline.stages[0]->forward(StepId(1), MicrobatchId(0), true, read(1, 0));
  ASSERT_TRUE(sent);
  compress::EncodedTensor cut = sent->output;
  cut.values = share(Bytes(cut.values->begin(), cut.values->end() - 1));
  EXPECT_FALSE(pipeline.stages[1]->forward(StepId(1), MicrobatchId(0), true, cut));
  EXPECT_FALSE(pipeline.stages[1]->forward(StepId(1), MicrobatchId(0), true, {}));
  EXPECT_FALSE(pipeline.stages[0]->forward(StepId(1), MicrobatchId(0), true, {}));
  EXPECT_FALSE(pipeline.stages[0]->input_gradient(MicrobatchId(0), {}));
}

TEST_F(TorchStageTest, RefusesPayloadsOfAnotherCodecOrEra) {
  Pipeline pipeline(run_of("2"), folder_);
  const auto sent = pipeline.stages[0]->forward(StepId(1), MicrobatchId(0), true, read(1, 0));
  ASSERT_TRUE(sent);
  compress::EncodedTensor other = sent->output;
  other.header.codec = 99;
  EXPECT_FALSE(pipeline.stages[1]->forward(StepId(1), MicrobatchId(0), true, other));
  other = sent->output;
  other.header.era = 1;
  EXPECT_FALSE(pipeline.stages[1]->forward(StepId(1), MicrobatchId(0), true, other));
  EXPECT_TRUE(pipeline.stages[1]->forward(StepId(1), MicrobatchId(0), true, sent->output));
}

TEST_F(TorchStageTest, NoticesAGradientThatIsNotFinite) {
  Pipeline pipeline(run_of("2"), folder_);
  (void)pipeline.stages[0]->forward(StepId(1), MicrobatchId(0), true, read(1, 0));
  compress::EncodedTensor poison;
  poison.header.codec = compress::make_boundary_codec(run_of("2"), compress::Direction::kBackward)->id();
  poison.values = share(Bytes(pipeline.plan.backward_bytes, 0xff));  // NaN everywhere
  ASSERT_TRUE(pipeline.stages[0]->input_gradient(MicrobatchId(0), poison));
  pipeline.stages[0]->weight_gradient(MicrobatchId(0));
  EXPECT_FALSE(pipeline.stages[0]->prepare({}, true).finite);
}

// Every form of the boundary, three stages, four bits a number.
class EveryForm : public TorchStageTest, public ::testing::WithParamInterface<const char*> {
 protected:
  spec::RunConfig run_with(std::vector<std::string> overrides = {}) const {
    overrides.insert(overrides.begin(), {"boundary.values=int4", std::string("boundary.codec=") + GetParam()});
    return run_of("3", overrides);
  }
  // What the optimizer and the token path add to the stage's state.
  std::vector<spec::RunConfig> runs() const {
    return {run_with(), run_with({"train.optimizer=muon", "model.token_path=window"}),
            run_with({"model.token_path=table", "train.precision=fp32"})};
  }
};

TEST_P(EveryForm, LearnsWithFourBitsANumber) {
  // So few steps have to be whole ones.
  const char* whole = "train.writer_learning_rate=1";
  const int steps = 12;
  const auto adamw = trained(run_with({whole}), steps),
             exact = trained(run_with({"boundary.values=fp32", whole}), steps);
  const auto muon = trained(run_with({"train.optimizer=muon", "train.learning_rate=4e-3", whole}), steps);
  // Six of 32 numbers are little to learn from.
  const double share = adamw.run.boundary.codec == "top_k" ? 0.95 : 0.93;
  EXPECT_LT(adamw.losses.back(), adamw.losses.front() * share);
  EXPECT_NEAR(adamw.losses.back(), exact.losses.back(), 0.01);
  EXPECT_LT(muon.losses.back(), muon.losses.front() * 0.83);
}

TEST_P(EveryForm, SendsTheBytesThatThePlanCounts) {
  // Each way has its own codec, so every kind of numbers once in each, next to another kind, is all there is.
  const std::vector<std::string> kinds = {"fp32", "bf16", "int8", "int4"};
  for (std::size_t i = 0; i < kinds.size(); ++i)
    Pipeline(run_with({"boundary.values=" + kinds[i], "boundary.gradient_values=" + kinds[(i + 1) % kinds.size()]}),
             folder_)
        .step(1);
}

TEST_P(EveryForm, HasTheStateThatThePlanCounts) {
  for (const auto& run : runs()) {
    Pipeline pipeline(run, folder_);
    for (std::size_t s = 0; s < pipeline.stages.size(); ++s) {
      EXPECT_EQ(pipeline.stages[s]->state()->size(), pipeline.plan.stages[s].state_bytes);
      EXPECT_EQ(pipeline.stages[s]->close().bytes->size(),
                pipeline.plan.stages[s].parameters * pipeline.plan.part_width);
      EXPECT_EQ(pipeline.stages[s]->total()->size(), pipeline.plan.stages[s].parameters * pipeline.plan.total_width);
    }
  }
}

TEST_P(EveryForm, ContinuesFromACheckpointAndFromASiblingWithTheSameBits) {
  for (const auto& run : runs()) {
    const std::string folder = folder_ + "/" + run.model.token_path;
    Pipeline first(run, folder), loaded(run, folder), restored(run, folder);
    for (std::uint64_t s = 1; s <= 2; ++s) first.step(s);
    for (std::size_t s = 0; s < first.stages.size(); ++s) {
      ASSERT_TRUE(first.save(s, 2));
      const auto status = loaded.load(s, 2);
      ASSERT_TRUE(status) << status.error().message;
      ASSERT_TRUE(restored.stages[s]->restore(*first.stages[s]->state()));
    }
    EXPECT_EQ(first.digests(), loaded.digests());
    EXPECT_EQ(first.digests(), restored.digests());
    for (Pipeline* pipeline : {&first, &loaded, &restored}) pipeline->step(3);
    for (const Pipeline* pipeline : {&loaded, &restored})
      for (std::size_t s = 0; s < first.stages.size(); ++s)
        EXPECT_TRUE(first.stages[s]->state() == pipeline->stages[s]->state()) << s;
  }
}

TEST_P(EveryForm, ComputesTheSameBitsAgain) {
  for (const auto& run : runs()) {
    spec::RunConfig recomputing = run;
    recomputing.host.recompute = "always";
    // With what it kept, and with what it computed once more.
    const auto once = trained(run, 2), again = trained(recomputing, 2);
    EXPECT_EQ(once.digests(), again.digests());
    EXPECT_EQ(once.losses, again.losses);
  }
}

// A replica that takes a microbatch over sends what the first one sent: stochastic rounding included.
TEST_P(EveryForm, SendsTheSameBytesWhoeverComputesThem) {
  Pipeline one(run_with(), folder_), other(run_with(), folder_);
  const auto sent = [](Pipeline& p, std::uint64_t step, std::uint32_t m) {
    const MicrobatchId microbatch(m);
    compress::EncodedTensor forward = p.stages[0]->forward(StepId(step), microbatch, true, read(step, m))->output;
    forward = p.stages[1]->forward(StepId(step), microbatch, true, forward)->output;
    (void)p.stages[2]->forward(StepId(step), microbatch, true, forward);
    const compress::EncodedTensor backward =
        *p.stages[1]->input_gradient(microbatch, *p.stages[2]->input_gradient(microbatch, {}));
    return std::pair(forward.values, backward.values);
  };
  (void)sent(other, 1, 2);  // what was computed before does not matter
  EXPECT_TRUE(sent(one, 1, 0) == sent(other, 1, 0));
}

TEST_P(EveryForm, KeepsItsConstraintsInEveryStep) {
  for (const auto& run : runs()) {
    auto pipeline = trained(run, 3);
    const at::Tensor u = basis_of(run);
    const auto weights = weights_of(pipeline);
    int inside = 0, orthonormal = 0;
    for (const auto& stage : run.pipeline.stage)
      for (const auto& spec : spec::stage_tensors(run, stage.first_layer, stage.end_layer)) {
        const at::Tensor w = weights.at(spec.name());
        if (spec.in_subspace != spec::TensorSpec::InSubspace::kNone) {
          const at::Tensor columns = spec.in_subspace == spec::TensorSpec::InSubspace::kColumns ? w : w.t();
          EXPECT_LT(((columns - u.mm(u.t().mm(columns))).norm() / columns.norm()).item<double>(), 1e-5) << spec.name();
          ++inside;
        }
        if (run.boundary.codec == "learned" &&
            (spec.kind == spec::TensorSpec::Kind::kEncoder || spec.kind == spec::TensorSpec::Kind::kDecoder)) {
          EXPECT_LT((w.t().mm(w) - torch::eye(w.size(1))).abs().max().item<double>(), 1e-5) << spec.name();
          EXPECT_GT((w - u).abs().max().item<double>(), 1e-4) << spec.name() << " has not moved";
          ++orthonormal;
        }
      }
    EXPECT_EQ(inside, run.boundary.codec == "projected" ? 1 + 2 * 3 : 0);  // the table, two matrices a layer
    EXPECT_EQ(orthonormal, run.boundary.codec == "learned" ? 2 * 2 : 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Forms, EveryForm,
                         ::testing::Values("subspace", "projected", "narrow", "bottleneck", "learned", "projection",
                                           "top_k", "identity"),
                         [](const auto& test) { return std::string(test.param); });

// Timed alone or not, the stages compute the same: weights, sums and random numbers are as they were.
TEST_F(TorchStageTest, MeasuringChangesNothing) {
  for (const char* codec : {"subspace", "projected", "narrow", "bottleneck", "identity"})
    for (const char* deterministic : {"true", "false"}) {
      const spec::RunConfig run =
          run_of("2", {std::string("boundary.codec=") + codec, std::string("run.deterministic=") + deterministic,
                       "pipeline.threads=1", "model.token_path=window"});
      Pipeline quiet(run, folder_), measured(run, folder_);
      torch::manual_seed(5);
      const float drawn = torch::rand({1}).item<float>();
      torch::manual_seed(5);
      for (std::size_t s = 0; s < 2; ++s) {
        const protocol::DeviceFigures device = measured.stages[s]->measure();
        for (const Duration time : {device.layer.forward, device.layer.input_gradient, device.layer.weight_gradient})
          EXPECT_GT(time, Duration{}) << codec;
        EXPECT_EQ(device.embedding.total() > Duration{}, s == 0) << codec;
        EXPECT_EQ(device.head.total() > Duration{}, s == 1) << codec;
        EXPECT_GT(device.memory_bytes, 0u);
        EXPECT_TRUE(measured.stages[s]->close().bytes == quiet.stages[s]->close().bytes) << codec;
      }
      EXPECT_EQ(torch::rand({1}).item<float>(), drawn);
      for (std::uint64_t step : {1u, 2u}) {
        quiet.step(step);
        measured.step(step);
      }
      EXPECT_EQ(measured.digests(), quiet.digests()) << codec;
      EXPECT_EQ(measured.losses, quiet.losses) << codec;
    }
}

}  // namespace
}  // namespace isthmus::libtorch
