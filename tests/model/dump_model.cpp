// Writes a model's initial weights, one microbatch, and what this project computes from them, for
// tests/reference/reference.py to compare with its own: dump_model CODEC FOLDER

#include <torch/torch.h>

#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "base/counter_random.h"
#include "compress/subspace.h"
#include "model/optimizer.h"
#include "model/stage_model.h"

using namespace isthmus;

namespace {

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

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  at::set_num_threads(1);
  RunConfig run;
  run.boundary.codec = argv[1];
  run.boundary.rank = 8;
  run.boundary.factored_layers = run.boundary.codec == "subspace" ? 2 : 0;
  run.model = {3, 64, 4, 128, 97, 96};
  run.train.precision = "fp32";
  run.train.weight_decay = 0.1;
  run.train.microbatches_per_step = 1;
  Dump dump{argv[2], {}};

  StageModel model(run, 0, run.model.layers);
  Optimizer optimizer(run);
  GradientSums sums(false);
  // Larger weights than the initial ones, so that a wrong path shows.
  for (auto& p : model.parameters()) {
    if (p.spec.decays()) p.master.mul_(3.0);
    dump.tensor("initial." + p.name, p.master);
  }
  const auto table = [](std::vector<float> values, std::int64_t rows) { return torch::tensor(values).view({rows, -1}); };
  dump.tensor("basis", table(subspace_basis(run.run.seed, run.model.hidden, run.boundary.rank), run.model.hidden));
  dump.tensor("embedding", table(fixed_embedding(run.run.seed, run.model.vocabulary, run.model.hidden), run.model.vocabulary));
  const isthmus::CounterRandom random(5, "ids");
  at::Tensor ids = torch::empty({2, run.model.context + 1}, torch::kLong);
  for (std::int64_t i = 0; i < ids.numel(); ++i) ids.data_ptr<std::int64_t>()[i] = static_cast<std::int64_t>(random.below(run.model.vocabulary, static_cast<std::uint64_t>(i)));
  dump.tensor("ids", ids);

  nlohmann::json losses = nlohmann::json::array();
  const double tokens = 2.0 * run.model.context;
  for (int step = 0; step < 10; ++step) {
    WeightWorkList work;
    const at::Tensor anchor = torch::zeros({1}).requires_grad_(true);
    if (step == 0) {
      const torch::NoGradGuard no_graph;
      dump.tensor("logits", model.logits(ids, anchor, nullptr));
    }
    const at::Tensor loss = model.forward(ids, anchor, &work);
    losses.push_back(loss.item<double>() / tokens);
    torch::autograd::backward({loss}, {torch::full({}, 1.0 / tokens)});
    const torch::NoGradGuard no_graph;
    sums.add(work);
    double norm2 = 0;
    for (const auto& p : model.parameters()) norm2 += sums.value(p).square().sum().item<double>();
    if (step == 0)
      for (const auto& p : model.parameters()) dump.tensor("gradient." + p.name, sums.value(p));
    optimizer.step(model.parameters(), sums, std::min(1.0, 1.0 / std::sqrt(norm2)), 1e-3);
    model.settle();
    sums.clear(model.parameters());
  }
  dump.index["losses"] = losses;
  dump.index["codec"] = run.boundary.codec;
  dump.index["heads"] = run.model.heads;
  dump.index["layers"] = run.model.layers;
  dump.index["factored"] = *run.boundary.factored_layers;
  std::ofstream(dump.folder + "/index.json") << dump.index.dump(1);
  return 0;
}
