#include "spec/stage_tensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "spec/boundary_form.h"

namespace isthmus::spec {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using Kind = TensorSpec::Kind;
using Cuts = std::vector<std::uint32_t>;  // the first layer of every stage

constexpr std::uint32_t kLayers = 6;
constexpr const char* kForms[] = {"subspace", "projected",  "narrow", "bottleneck",
                                  "learned",  "projection", "top_k",  "identity"};
const Cuts kMaps[] = {{0}, {0, 3}, {0, 1, 4}, {0, 1, 2, 3, 4, 5}};

RunSpec run_of(const std::string& codec, const std::string& token_path = "none") {
  RunSpec run;
  run.model = {.layers = kLayers,
               .hidden = 32,
               .heads = 2,
               .context = 16,
               .vocabulary = 50,
               .mlp = 48,
               .token_path = token_path,
               .token_window = 3,
               .token_width = 5};
  run.boundary.codec = codec;
  run.boundary.rank = 4;
  run.boundary.factored_layers = boundary_form(codec).constrained ? 5 : 0;
  return run;
}

std::vector<std::vector<TensorSpec>> stages_of(const RunSpec& run, const Cuts& cuts) {
  std::vector<std::vector<TensorSpec>> stages;
  for (std::size_t s = 0; s < cuts.size(); ++s)
    stages.push_back(stage_tensors(run, cuts[s], s + 1 < cuts.size() ? cuts[s + 1] : kLayers));
  return stages;
}

std::vector<std::string> names_of(const std::vector<TensorSpec>& tensors) {
  std::vector<std::string> names;
  for (const auto& tensor : tensors) names.push_back(tensor.name());
  return names;
}

bool belongs_to_a_stage(const TensorSpec& t) {
  return t.kind == Kind::kBasis || t.kind == Kind::kEncoder || t.kind == Kind::kDecoder ||
         t.unit.starts_with("token_path.");
}

// All there is to say about a tensor.
std::string text_of(const TensorSpec& t) {
  std::string text = t.name();
  for (const double number :
       {static_cast<double>(t.kind), static_cast<double>(t.rows), static_cast<double>(t.columns), t.deviation,
        static_cast<double>(t.writes), static_cast<double>(t.stacked), static_cast<double>(t.in_subspace)})
    text += " " + std::to_string(number);
  return text;
}

// The tensors that do not belong to one stage, stage after stage.
std::vector<std::string> of_the_model(const RunSpec& run, const Cuts& cuts) {
  std::vector<std::string> texts;
  for (const auto& stage : stages_of(run, cuts))
    for (const auto& tensor : stage)
      if (!belongs_to_a_stage(tensor)) texts.push_back(text_of(tensor));
  return texts;
}

TEST(StageTensors, ComeInTheOrderInWhichTheStreamMeetsThem) {
  const RunSpec run = run_of("learned", "window");
  EXPECT_THAT(names_of(stage_tensors(run, 2, 3)),
              ElementsAre("border.2.decoder.matrix", "token_path.2.table", "token_path.2.in", "token_path.2.out",
                          "layer.2.attention_norm", "layer.2.qkv", "layer.2.attention_out", "layer.2.mlp_norm",
                          "layer.2.gate_up", "layer.2.down", "border.3.encoder.matrix"));
  const auto head = names_of(stage_tensors(run_of("narrow"), 0, 1)),
             tail = names_of(stage_tensors(run_of("narrow"), 5, 6));
  EXPECT_THAT(std::vector(head.begin(), head.begin() + 3),
              ElementsAre("embedding.table", "basis.0.matrix", "layer.0.attention_norm"));
  EXPECT_EQ(tail.front(), "basis.5.matrix");
  EXPECT_THAT(std::vector(tail.end() - 2, tail.end()), ElementsAre("head.norm", "head.matrix"));
}

TEST(StageTensors, HaveNamesAndUnitsOfTheirOwnInTheWholeRun) {
  for (const char* form : kForms)
    for (const char* path : {"none", "table", "window"})
      for (const auto& cuts : kMaps) {
        std::set<std::string> names, units;
        for (const auto& stage : stages_of(run_of(form, path), cuts)) {
          std::string unit;
          for (const auto& tensor : stage) {
            EXPECT_TRUE(names.insert(tensor.name()).second) << form << " " << path << " " << tensor.name();
            // Norms and digests are per unit: its tensors stand together, in one stage.
            if (tensor.unit != unit) {
              EXPECT_TRUE(units.insert(tensor.unit).second) << form << " " << path << " " << tensor.unit;
            }
            unit = tensor.unit;
          }
        }
      }
}

TEST(StageTensors, DoNotDependOnTheLayoutButForThoseOfAStage) {
  for (const char* form : kForms)
    for (const char* path : {"none", "table", "window"})
      for (const auto& cuts : kMaps)
        EXPECT_THAT(of_the_model(run_of(form, path), cuts), ElementsAreArray(of_the_model(run_of(form), {0})))
            << form << " " << path;
}

TEST(StageTensors, BelongToAStageOnlyWhereTheFormOrTheTokenPathSaysSo) {
  const Cuts cuts = {0, 1, 4};
  for (const char* form : kForms)
    for (const char* path : {"none", "table", "window"}) {
      std::map<Kind, int> own;
      for (const auto& stage : stages_of(run_of(form, path), cuts))
        for (const auto& tensor : stage)
          if (belongs_to_a_stage(tensor)) ++own[tensor.kind];
      std::map<Kind, int> expected;
      const std::string codec = form;
      if (codec == "narrow") expected[Kind::kBasis] = 3;
      if (codec == "bottleneck" || codec == "learned") expected[Kind::kEncoder] = expected[Kind::kDecoder] = 2;
      // The first stage has the embedding.
      if (path != std::string("none")) expected[Kind::kTable] = 2;
      if (path == std::string("window")) expected[Kind::kTokenPath] = 4;
      EXPECT_EQ(own, expected) << form << " " << path;
    }
}

TEST(StageTensors, CountTheNumbersThatTheFormsSave) {
  const auto numbers = [](const RunSpec& run) {
    std::int64_t sum = 0;
    for (const auto& tensor : stage_tensors(run, 0, kLayers)) sum += tensor.numbers();
    return sum;
  };
  // Written out: two norms, qkv, attention_out, gate_up, down; table, head norm and matrix.
  const std::int64_t layer = 2 * 32 + 3 * 32 * 32 + 32 * 32 + 2 * 48 * 32 + 32 * 48, ends = 50 * 32 + 32 + 50 * 32;
  EXPECT_EQ(numbers(run_of("identity")), 6 * layer + ends);
  EXPECT_EQ(numbers(run_of("projected")), 6 * layer + ends);
  // Five factored layers and the table have 4 numbers where there were 32.
  EXPECT_EQ(numbers(run_of("subspace")), 6 * layer + ends - (5 * (32 + 48) + 50) * (32 - 4));
  EXPECT_EQ(numbers(run_of("narrow")), numbers(run_of("subspace")) + 32 * 4);
}

TEST(StageTensors, HaveOneMomentInMuonWhereAMatrixMapsAStream) {
  RunSpec run = run_of("narrow", "window");
  for (const char* optimizer : {"adamw", "muon"}) {
    run.train.optimizer = optimizer;
    for (const auto& tensor : stage_tensors(run, 2, kLayers)) {
      const bool maps = tensor.part == "qkv" || tensor.part == "attention_out" || tensor.part == "gate_up" ||
                        tensor.part == "down" || tensor.part == "in" || tensor.part == "out";
      EXPECT_EQ(optimizer_moments(run, tensor), maps && run.train.optimizer == "muon" ? 1u : 2u) << tensor.name();
    }
  }
}

}  // namespace
}  // namespace isthmus::spec
