#include "model/parameter.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "base/counter_random.h"
#include "compress/subspace.h"
#include "model/arithmetic.h"

namespace isthmus::model {

namespace {

using Kind = spec::TensorSpec::Kind;

at::Tensor initial_values(const spec::RunConfig& run, const spec::TensorSpec& spec) {
  if (spec.kind == Kind::kNorm) return at::ones({spec.rows}, at::kFloat);
  at::Tensor values = at::empty({spec.rows, spec.columns}, at::kFloat);
  float* const out = values.data_ptr<float>();
  if (spec.kind == Kind::kBasis || spec.kind == Kind::kEncoder || spec.kind == Kind::kDecoder) {
    std::ranges::copy(compress::subspace_basis(run.run.seed, spec.rows, spec.columns), out);
    return values;
  }
  const CounterRandom random(run.run.seed, spec.name());
  for (std::int64_t i = 0; i < spec.numbers(); ++i)
    out[i] = static_cast<float>(spec.deviation * random.normal(static_cast<std::uint64_t>(i)));
  return values;
}

}  // namespace

std::vector<Parameter> make_parameters(const spec::RunConfig& run, std::uint32_t first_layer, std::uint32_t end_layer) {
  const at::Device device = run.host.device == "cuda" ? at::Device(at::kCUDA, 0) : at::Device(at::kCPU);
  std::vector<Parameter> parameters;
  for (const auto& spec : spec::stage_tensors(run, first_layer, end_layer)) {
    Parameter p;
    p.spec = spec;
    p.name = spec.name();
    p.master = initial_values(run, spec).to(device);
    // Gains stay fp32 in every precision: they are small and sit in fp32 arithmetic. So does what an fp32 stream meets
    // at a boundary.
    const bool wide = spec.kind == Kind::kNorm || spec.kind == Kind::kEncoder || spec.kind == Kind::kDecoder;
    p.compute = wide ? p.master : p.master.to(arithmetic(run));
    for (std::uint32_t i = 0; i < spec::optimizer_moments(run, spec); ++i)
      p.moments.push_back(at::zeros_like(p.master));
    parameters.push_back(std::move(p));
  }
  return parameters;
}

void refresh_compute_copies(std::vector<Parameter>& parameters) {
  for (auto& p : parameters)
    if (!p.compute.is_same(p.master)) p.compute.copy_(p.master);
}

}  // namespace isthmus::model
