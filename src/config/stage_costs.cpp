#include "config/stage_costs.h"

#include <algorithm>

#include "config/boundary_form.h"
#include "config/stage_tensors.h"

namespace isthmus {

double forward_operations(const RunConfig& run, std::uint32_t first_layer, std::uint32_t end_layer) {
  double operations = 0;
  for (const auto& tensor : stage_tensors(run, first_layer, end_layer))
    if (tensor.kind != TensorSpec::Kind::kTable && tensor.columns > 0) operations += 2.0 * static_cast<double>(tensor.numbers());
  const double d = run.model.hidden, layers = end_layer - first_layer;
  operations += layers * 2.0 * d * run.model.context;
  if (boundary_form(run.boundary.codec).coefficients) operations += layers * 4 * d * run.boundary.rank;
  return operations;
}

double middle_layer_operations(const RunConfig& run) {
  RunConfig body = run;
  body.model.layers += 2;
  body.boundary.factored_layers = run.boundary.factored_layers.value_or(body.model.layers);
  return forward_operations(body, 0, 2) - forward_operations(body, 0, 1);
}

double head_operations(const RunConfig& run) {
  double operations = 0;
  for (const auto& tensor : stage_tensors(run, run.model.layers - 1, run.model.layers))
    if (tensor.kind == TensorSpec::Kind::kHead) operations += 2.0 * static_cast<double>(tensor.numbers());
  return operations;
}

double step_bits_most(const RunConfig& run) {
  const double tokens = static_cast<double>(run.train.sequences_per_microbatch) * (run.model.context + 1.0);
  // Numbers and where they stood, in 4 bytes each, and a token's id; in 64 KiB with a frame around.
  const double bytes = 2 * std::max(tokens * (8.0 * run.model.hidden + 8), static_cast<double>(std::max(run.emulated.forward_bytes, run.emulated.backward_bytes)));
  return bytes * 8 * 1.1 * run.train.microbatches_per_step / (1 - run.link.loss);
}

StageMemory stage_memory(const RunConfig& run, std::uint32_t first_layer, std::uint32_t end_layer, std::uint32_t in_flight,
                         double boundary_bytes) {
  double parameters = 0, moments = 0;
  for (const auto& tensor : stage_tensors(run, first_layer, end_layer)) {
    parameters += static_cast<double>(tensor.numbers());
    moments += static_cast<double>(tensor.numbers()) * optimizer_moments(run, tensor);
  }
  const bool bf16 = run.train.precision == "bf16";
  StageMemory memory;
  memory.weights = parameters * (bf16 ? 6 : 4);
  memory.optimizer = 8 + moments * 4;
  memory.gradients = parameters * (run.run.deterministic ? 8 : 4);
  const double tokens = static_cast<double>(run.train.sequences_per_microbatch) * run.model.context;
  const double per_layer = 12.0 * run.model.hidden + 4.0 * run.model.mlp + double(run.model.heads) * std::min(run.model.context, 1024u);
  const double graph = tokens * per_layer * (end_layer - first_layer) * (bf16 ? 2 : 4);
  const double budget = static_cast<double>(run.pipeline.activation_mb) * 1048576;
  memory.kept = run.pipeline.recompute == "always" ? graph : std::min(graph * in_flight, std::max(graph, run.pipeline.recompute == "auto" ? budget : graph * in_flight));
  memory.kept += in_flight * boundary_bytes * 2;
  return memory;
}

}  // namespace isthmus
