#include "model/stage_model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "base/counter_random.h"
#include "model/torch.h"

namespace isthmus::model {
namespace {

constexpr std::uint32_t kLayers = 3;
constexpr std::int64_t kContext = 12, kVocabulary = 11;
constexpr const char* kForms[] = {"subspace", "projected",  "narrow", "bottleneck",
                                  "learned",  "projection", "top_k",  "identity"};

spec::RunConfig run_of(const std::string& codec, const std::string& token_path) {
  spec::RunConfig run;
  run.model = {.layers = kLayers,
               .hidden = 16,
               .heads = 2,
               .context = kContext,
               .vocabulary = kVocabulary,
               .mlp = 32,
               .token_path = token_path,
               .token_window = 4,
               .token_width = 3};
  run.train.precision = "fp32";
  run.boundary.codec = codec;
  run.boundary.rank = 5;
  run.boundary.factored_layers = spec::boundary_form(codec).constrained ? 2 : 0;
  return run;
}

at::Tensor random_ids(std::int64_t sequences) {
  const CounterRandom random(1, "ids");
  at::Tensor ids = torch::empty({sequences, kContext + 1}, torch::kLong);
  for (std::int64_t i = 0; i < ids.numel(); ++i)
    ids.data_ptr<std::int64_t>()[i] =
        static_cast<std::int64_t>(random.below(kVocabulary, static_cast<std::uint64_t>(i)));
  return ids;
}

// With another token at `t`.
at::Tensor changed(const at::Tensor& ids, std::int64_t sequence, std::int64_t t) {
  at::Tensor other = ids.clone();
  other[sequence][t] = (ids[sequence][t] + 1) % kVocabulary;
  return other;
}

// Which rows differ in any bit.
std::vector<std::int64_t> different_rows(const at::Tensor& a, const at::Tensor& b) {
  std::vector<std::int64_t> rows;
  for (std::int64_t i = 0; i < a.size(0); ++i)
    if (!torch::equal(a[i], b[i])) rows.push_back(i);
  return rows;
}

std::vector<std::int64_t> rows_from(std::int64_t first, std::int64_t end) {
  std::vector<std::int64_t> rows;
  for (; first < end; ++first) rows.push_back(first);
  return rows;
}

Parameter& find(StageModel& model, const std::string& name) {
  return *std::ranges::find(model.parameters(), name, [](const Parameter& p) { return p.name; });
}

class StageModelTest : public ::testing::Test {
 protected:
  // Tensors this small are slower on several.
  void SetUp() override { at::set_num_threads(1); }
  const torch::NoGradGuard no_graph_;
};

TEST_F(StageModelTest, LetsNoTokenSeeALaterOne) {
  const at::Tensor ids = random_ids(1);
  for (const char* form : kForms)
    for (const char* path : {"none", "table", "window"}) {
      const spec::RunConfig run = run_of(form, path);
      StageModel head(run, 0, 1), middle(run, 1, 2), tail(run, 2, 3);
      const auto logits = [&](const at::Tensor& tokens) {
        return tail.logits(tokens, middle.forward(tokens, head.forward(tokens, {}, nullptr), nullptr), nullptr);
      };
      const at::Tensor before = logits(ids);
      for (const std::int64_t t : {std::int64_t{0}, std::int64_t{5}, kContext - 1})
        EXPECT_EQ(different_rows(before, logits(changed(ids, 0, t))), rows_from(t, kContext))
            << form << " " << path << " token " << t;
    }
}

// A stage of an ordinary model whose layers add nothing, so that its tokens meet in the token path alone.
class TokenPathTest : public StageModelTest {
 protected:
  StageModel model(const std::string& path, std::uint32_t window = 4) const {
    spec::RunConfig run = run_of("identity", path);
    run.model.token_window = window;
    StageModel model(run, 2, 3);
    for (const char* writer : {"layer.2.attention_out", "layer.2.down"}) find(model, writer).master.zero_();
    return model;
  }
  at::Tensor logits(StageModel& model, const at::Tensor& ids) const {
    return model.logits(ids, torch::zeros({ids.size(0) * kContext, 16}), nullptr);
  }
};

TEST_F(TokenPathTest, SeesAsManyTokensAsTheWindowHas) {
  const at::Tensor ids = random_ids(2);
  for (const std::uint32_t window : {1u, 4u, 11u, 12u, 30u}) {
    StageModel model = this->model("window", window);
    const at::Tensor before = logits(model, ids);
    for (const std::int64_t t : {std::int64_t{0}, std::int64_t{5}, kContext - 1})
      EXPECT_EQ(different_rows(before, logits(model, changed(ids, 0, t))),
                rows_from(t, std::min<std::int64_t>(t + window, kContext)))
          << window << " " << t;
    EXPECT_EQ(different_rows(before, logits(model, changed(ids, 1, 2))),
              rows_from(kContext + 2, kContext + std::min<std::int64_t>(2 + window, kContext)));
  }
}

TEST_F(TokenPathTest, SeesItsOwnTokenOnlyInATable) {
  const at::Tensor ids = random_ids(2);
  StageModel model = this->model("table");
  EXPECT_EQ(different_rows(logits(model, ids), logits(model, changed(ids, 0, 5))), rows_from(5, 6));
}

TEST_F(TokenPathTest, CountsWhatIsBeforeTheSequenceAsZero) {
  StageModel model = this->model("window");
  find(model, "token_path.2.table").master[7].zero_();
  const at::Tensor ids = random_ids(1);
  // The same tokens behind three whose rows are zero.
  const at::Tensor later = torch::cat({torch::full({1, 3}, 7, torch::kLong), ids.narrow(1, 0, kContext - 2)}, 1);
  const auto different = [&] {
    return different_rows(logits(model, ids).narrow(0, 0, kContext - 3),
                          logits(model, later).narrow(0, 3, kContext - 3));
  };
  EXPECT_EQ(different(), rows_from(0, 0));
  find(model, "token_path.2.table").master[7].fill_(1);
  EXPECT_EQ(different(), rows_from(0, 3));
}

TEST_F(StageModelTest, HasTheTensorsThatThePlanCounts) {
  for (const char* form : kForms)
    for (const char* path : {"none", "table", "window"})
      for (const char* optimizer : {"adamw", "muon"})
        for (std::uint32_t first = 0; first < kLayers; ++first)
          for (std::uint32_t end = first + 1; end <= kLayers; ++end) {
            spec::RunConfig run = run_of(form, path);
            run.train.optimizer = optimizer;
            const StageModel model(run, first, end);
            const auto specs = spec::stage_tensors(run, first, end);
            ASSERT_EQ(model.parameters().size(), specs.size());
            for (std::size_t i = 0; i < specs.size(); ++i) {
              const Parameter& p = model.parameters()[i];
              EXPECT_EQ(p.name, specs[i].name());
              EXPECT_EQ(p.master.numel(), specs[i].numbers()) << p.name;
              EXPECT_EQ(p.moments.size(), spec::optimizer_moments(run, specs[i])) << p.name;
              for (const auto& moment : p.moments) EXPECT_EQ(moment.sizes(), p.master.sizes()) << p.name;
              EXPECT_EQ(p.master.size(0) % specs[i].stacked, 0) << p.name;
            }
          }
}

}  // namespace
}  // namespace isthmus::model
