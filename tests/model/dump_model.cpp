// Writes a model's initial weights, one microbatch, and what this project computes from them, for
// tests/reference/reference.py to compare with its own: dump_model FOLDER CASE… Each case is overrides, apart by
// spaces; the first one's files go to FOLDER/0.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "base/counter_random.h"
#include "compress/subspace.h"
#include "config/load_run.h"
#include "model/optimizer.h"
#include "model/stage_model.h"
#include "model/torch.h"

using namespace isthmus;

namespace {

constexpr const char* kRun = R"(
[model]
layers = 3
hidden = 64
heads = 4
context = 128
vocabulary = 97
mlp = 96
token_path = "none"
token_window = 3
token_width = 5
[data]
train = "none"
validation = "none"
[train]
sequences_per_microbatch = 2
microbatches_per_step = 1
precision = "fp32"
optimizer = "adamw"
[boundary]
rank = 8
values = "fp32"
[pipeline]
layout = "auto"
stages = 3
)";

struct Dump {
  std::string folder;
  nlohmann::json index;

  void tensor(const std::string& name, const at::Tensor& t) {
    const at::Tensor cpu = t.detach().to(at::kCPU, at::kFloat).contiguous();
    std::ofstream out(folder + "/" + name + ".f32", std::ios::binary);
    out.write(static_cast<const char*>(cpu.const_data_ptr()), static_cast<std::streamsize>(cpu.nbytes()));
    index["tensors"][name] = t.sizes().vec();
  }
};

// The run's stages in one process. What crosses a boundary is cut out of the graph, as the wire does it.
struct Stages {
  std::vector<model::StageModel> models;

  explicit Stages(const spec::RunConfig& run) {
    models.reserve(run.pipeline.stage.size());
    for (const auto& stage : run.pipeline.stage) models.emplace_back(run, stage.first_layer, stage.end_layer);
  }
  at::Tensor logits(const at::Tensor& ids) {
    const torch::NoGradGuard no_graph;
    at::Tensor tensor = torch::zeros({1});
    for (std::size_t s = 0; s + 1 < models.size(); ++s) tensor = models[s].forward(ids, tensor, nullptr);
    return models.back().logits(ids, tensor, nullptr);
  }
  // The sum of the losses; weight gradients of their mean go to `sums`.
  double gradients(const at::Tensor& ids, double tokens, model::GradientSums& sums) {
    std::vector<model::WeightWorkList> work(models.size());
    std::vector<at::Tensor> inputs, outputs;
    for (std::size_t s = 0; s < models.size(); ++s) {
      inputs.push_back((s == 0 ? torch::zeros({1}) : outputs.back().detach().clone()).requires_grad_(true));
      outputs.push_back(models[s].forward(ids, inputs.back(), &work[s]));
    }
    at::Tensor gradient = torch::full({}, 1.0 / tokens);
    for (std::size_t s = models.size(); s-- > 0;) {
      torch::autograd::backward({outputs[s]}, {gradient});
      gradient = inputs[s].grad();
    }
    const torch::NoGradGuard no_graph;
    for (const auto& list : work) sums.add(list);
    return outputs.back().item<double>();
  }
};

int dump_case(const std::string& folder, const std::vector<std::string>& overrides) {
  std::filesystem::create_directories(folder);
  const auto parsed = config::parse_run(kRun, "dump_model", overrides);
  if (!parsed) {
    for (const auto& problem : parsed.error()) std::fprintf(stderr, "%s\n", problem.text().c_str());
    return 78;
  }
  const spec::RunConfig& run = *parsed;
  Dump dump{folder, {}};
  dump.index["run"] = nlohmann::json::parse(config::resolved_json(run));

  Stages stages(run);
  model::Optimizer optimizer(run);
  // Other and larger weights than the initial ones, so that a wrong path shows: encoder and decoder start equal, gains
  // with one.
  for (auto& model : stages.models) {
    for (auto& p : model.parameters()) {
      const CounterRandom random(7, p.name);
      at::Tensor noise = torch::empty_like(p.master);
      for (std::int64_t i = 0; i < noise.numel(); ++i)
        noise.data_ptr<float>()[i] = static_cast<float>(0.1 * random.normal(static_cast<std::uint64_t>(i)));
      p.spec.decays() ? p.master.mul_(3.0) : p.master.add_(noise);
    }
    model.settle();
    for (const auto& p : model.parameters()) dump.tensor("initial." + p.name, p.master);
  }
  const auto table = [](std::vector<float> values, std::int64_t rows) {
    return torch::tensor(values).view({rows, -1});
  };
  dump.tensor("basis",
              table(compress::subspace_basis(run.run.seed, run.model.hidden, run.boundary.rank), run.model.hidden));
  dump.tensor("embedding", table(compress::fixed_embedding(run.run.seed, run.model.vocabulary, run.model.hidden),
                                 run.model.vocabulary));
  const CounterRandom random(5, "ids");
  const std::int64_t sequences = run.train.sequences_per_microbatch;
  at::Tensor ids = torch::empty({sequences, run.model.context + 1}, torch::kLong);
  for (std::int64_t i = 0; i < ids.numel(); ++i)
    ids.data_ptr<std::int64_t>()[i] =
        static_cast<std::int64_t>(random.below(run.model.vocabulary, static_cast<std::uint64_t>(i)));
  dump.tensor("ids", ids);
  dump.tensor("logits", stages.logits(ids));

  nlohmann::json losses = nlohmann::json::array();
  const double tokens = static_cast<double>(sequences) * run.model.context;
  for (int step = 0; step < 10; ++step) {
    model::GradientSums sums(false);
    losses.push_back(stages.gradients(ids, tokens, sums) / tokens);
    const torch::NoGradGuard no_graph;
    double norm2 = 0;
    for (auto& model : stages.models)
      for (const auto& p : model.parameters()) {
        norm2 += sums.value(p).square().sum().item<double>();
        if (step == 0) dump.tensor("gradient." + p.name, sums.value(p));
      }
    const std::uint64_t taken = optimizer.steps();
    for (auto& model : stages.models) {
      optimizer.set_steps(taken);
      optimizer.step(model.parameters(), sums, std::min(1.0, 1.0 / std::sqrt(norm2)), run.train.learning_rate);
      model.settle();
      sums.clear(model.parameters());
    }
  }
  dump.index["losses"] = losses;
  for (const auto& model : stages.models)
    for (const auto& p : model.parameters()) dump.tensor("final." + p.name, p.master);
  std::ofstream(dump.folder + "/index.json") << dump.index.dump(1);
  return 0;
}

}  // namespace

// One process for all cases: libtorch takes longer to load than a case does.
int main(int argc, char** argv) {
  if (argc < 3) return 2;
  at::set_num_threads(1);
  for (int i = 2; i < argc; ++i) {
    std::istringstream words(argv[i]);
    const std::vector<std::string> overrides{std::istream_iterator<std::string>(words), {}};
    if (const int code = dump_case(std::string(argv[1]) + "/" + std::to_string(i - 2), overrides); code != 0)
      return code;
  }
  return 0;
}
