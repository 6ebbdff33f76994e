#include "spec/stage_costs.h"

#include <algorithm>

#include "spec/boundary_form.h"
#include "spec/stage_tensors.h"

namespace isthmus::spec {

double forward_operations(const RunSpec& run, std::uint32_t first_layer, std::uint32_t end_layer) {
  double operations = 0;
  for (const auto& tensor : stage_tensors(run, first_layer, end_layer))
    if (tensor.kind != TensorSpec::Kind::kTable && tensor.columns > 0)
      operations += 2.0 * static_cast<double>(tensor.numbers());
  const double d = run.model.hidden, layers = end_layer - first_layer;
  operations += layers * 2.0 * d * run.model.context;
  if (boundary_form(run.boundary.codec).coefficients) operations += layers * 4 * d * run.boundary.rank;
  return operations;
}

double middle_layer_operations(const RunSpec& run) {
  RunSpec body = run;
  body.model.layers += 2;
  body.boundary.factored_layers = run.boundary.factored_layers.value_or(body.model.layers);
  return forward_operations(body, 0, 2) - forward_operations(body, 0, 1);
}

double head_operations(const RunSpec& run) {
  double operations = 0;
  for (const auto& tensor : stage_tensors(run, run.model.layers - 1, run.model.layers))
    if (tensor.kind == TensorSpec::Kind::kHead) operations += 2.0 * static_cast<double>(tensor.numbers());
  return operations;
}

double step_bits_most(const RunSpec& run) {
  const double tokens = static_cast<double>(run.train.sequences_per_microbatch) * (run.model.context + 1.0);
  // Numbers and where they stood, in 4 bytes each, and a token's id; in 64 KiB with a frame around.
  const double bytes =
      2 * std::max(tokens * (8.0 * run.model.hidden + 8),
                   static_cast<double>(std::max(run.emulated.forward_bytes, run.emulated.backward_bytes)));
  return bytes * 8 * 1.1 * run.train.microbatches_per_step / (1 - run.link.loss);
}

}  // namespace isthmus::spec
