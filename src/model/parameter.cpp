#include "model/parameter.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <cmath>

#include "base/counter_random.h"

namespace isthmus {

namespace {

class Maker {
 public:
  Maker(const RunConfig& run) : run_(run) {}

  void matrix(const std::string& unit, const std::string& name, std::int64_t rows, std::int64_t columns, double deviation) {
    const CounterRandom random(run_.run.seed, unit + "." + name);
    at::Tensor values = at::empty({rows, columns}, at::kFloat);
    float* out = values.data_ptr<float>();
    for (std::int64_t i = 0; i < rows * columns; ++i)
      out[i] = static_cast<float>(deviation * random.normal(static_cast<std::uint64_t>(i)));
    add(unit, name, values, true);
  }
  void norm(const std::string& unit, const std::string& name) { add(unit, name, at::ones({run_.model.hidden}, at::kFloat), false); }

  std::vector<Parameter> take() { return std::move(parameters_); }

 private:
  void add(const std::string& unit, const std::string& name, const at::Tensor& values, bool decay) {
    const at::Device device = run_.pipeline.device == "cuda" ? at::Device(at::kCUDA, 0) : at::Device(at::kCPU);
    Parameter p;
    p.unit = unit;
    p.name = unit + "." + name;
    p.decay = decay;
    p.master = values.to(device);
    // Norms stay fp32 in every precision: they are small and sit in fp32 arithmetic.
    p.compute = run_.train.precision == "bf16" && decay ? p.master.to(at::kBFloat16) : p.master;
    p.exp_avg = at::zeros_like(p.master);
    p.exp_avg_sq = at::zeros_like(p.master);
    parameters_.push_back(std::move(p));
  }

  const RunConfig& run_;
  std::vector<Parameter> parameters_;
};

}  // namespace

std::vector<Parameter> make_parameters(const RunConfig& run, std::uint32_t first_layer, std::uint32_t end_layer) {
  const std::int64_t d = run.model.hidden, k = run.boundary.rank, m = run.model.mlp, v = run.model.vocabulary;
  const bool subspace = run.boundary.codec == "subspace";
  // Coefficients are written with the norm the dense form would have: deviations grow by sqrt(d / k).
  const double widen = std::sqrt(static_cast<double>(d) / static_cast<double>(k));
  const double output = 0.02 / std::sqrt(2.0 * run.model.layers);
  Maker make(run);
  if (first_layer == 0) make.matrix("embedding", "table", v, subspace ? k : d, subspace ? 0.02 * widen : 0.02);
  for (std::uint32_t l = first_layer; l < end_layer; ++l) {
    const std::string unit = fmt::format("layer.{}", l);
    const bool factored = l < run.boundary.factored_layers.value_or(0);
    make.norm(unit, "attention_norm");
    make.matrix(unit, "qkv", 3 * d, d, 0.02);
    make.matrix(unit, "attention_out", factored ? k : d, d, factored ? output * widen : output);
    make.norm(unit, "mlp_norm");
    make.matrix(unit, "gate_up", 2 * m, d, 0.02);
    make.matrix(unit, "down", factored ? k : d, m, factored ? output * widen : output);
  }
  if (end_layer == run.model.layers) {
    make.norm("head", "norm");
    make.matrix("head", "matrix", v, d, 0.02);
  }
  return make.take();
}

void refresh_compute_copies(std::vector<Parameter>& parameters) {
  for (auto& p : parameters)
    if (!p.compute.is_same(p.master)) p.compute.copy_(p.master);
}

}  // namespace isthmus
