#include "spec/stage_tensors.h"

#include <fmt/format.h>

#include <cmath>

#include "spec/boundary_form.h"

namespace isthmus::spec {

namespace {

using Kind = TensorSpec::Kind;

void add_token_path(const RunSpec& run, const std::string& unit, std::vector<TensorSpec>& out) {
  const std::int64_t d = run.model.hidden, v = run.model.vocabulary, r = run.model.token_width,
                     w = run.model.token_window;
  if (run.model.token_path == "table") out.push_back({unit, "table", Kind::kTable, v, d, 0.02});
  if (run.model.token_path != "window") return;
  // The last matrix starts small, so that a stage begins as if it had no token path.
  out.push_back({unit, "table", Kind::kTable, v, r, 0.5});
  out.push_back({unit, "in", Kind::kTokenPath, d, w * r, 0.05});
  out.push_back({unit, "out", Kind::kTokenPath, d, d, 0.01});
}

}  // namespace

std::vector<TensorSpec> stage_tensors(const RunSpec& run, std::uint32_t first_layer, std::uint32_t end_layer) {
  const std::int64_t d = run.model.hidden, k = run.boundary.rank, m = run.model.mlp, v = run.model.vocabulary;
  const BoundaryForm form = boundary_form(run.boundary.codec);
  const bool head = end_layer == run.model.layers;
  const bool learned_border =
      form.border == BoundaryForm::Border::kFree || form.border == BoundaryForm::Border::kOrthonormal;
  // Coefficients have the norm of the full-width stream they stand for: each is sqrt(d / k) larger.
  const double widen = std::sqrt(static_cast<double>(d) / static_cast<double>(k));
  const double output = 0.02 / std::sqrt(2.0 * run.model.layers);
  std::vector<TensorSpec> out;
  if (first_layer == 0) {
    TensorSpec table{"embedding", "table", Kind::kTable, v, form.coefficients ? k : d, 0.02};
    if (form.coefficients) table.deviation *= widen;
    if (form.constrained && !form.coefficients) table.in_subspace = TensorSpec::InSubspace::kRows;
    out.push_back(table);
  } else {
    if (learned_border) out.push_back({fmt::format("border.{}.decoder", first_layer), "matrix", Kind::kDecoder, d, k});
    add_token_path(run, fmt::format("token_path.{}", first_layer), out);
  }
  if (form.private_basis) out.push_back({fmt::format("basis.{}", first_layer), "matrix", Kind::kBasis, d, k});
  for (auto l = first_layer; l < end_layer; ++l) {
    const std::string unit = fmt::format("layer.{}", l);
    const bool constrained = form.constrained && l < run.boundary.factored_layers.value_or(0);
    // What writes into the residual stream.
    const auto writer = [&](const char* part, std::int64_t columns) {
      TensorSpec tensor{unit, part, Kind::kMatrix, d, columns, output};
      tensor.writes = true;
      if (constrained && form.coefficients) {
        tensor.rows = k;
        tensor.deviation *= widen;
      } else if (constrained) {
        tensor.in_subspace = TensorSpec::InSubspace::kColumns;
      }
      return tensor;
    };
    out.push_back({unit, "attention_norm", Kind::kNorm, d});
    out.push_back({.unit = unit,
                   .part = "qkv",
                   .kind = Kind::kMatrix,
                   .rows = 3 * d,
                   .columns = d,
                   .deviation = 0.02,
                   .stacked = 3});
    out.push_back(writer("attention_out", d));
    out.push_back({unit, "mlp_norm", Kind::kNorm, d});
    out.push_back({.unit = unit,
                   .part = "gate_up",
                   .kind = Kind::kMatrix,
                   .rows = 2 * m,
                   .columns = d,
                   .deviation = 0.02,
                   .stacked = 2});
    out.push_back(writer("down", m));
  }
  if (head) {
    out.push_back({"head", "norm", Kind::kNorm, d});
    out.push_back({"head", "matrix", Kind::kHead, v, d, 0.02});
  } else if (learned_border) {
    out.push_back({fmt::format("border.{}.encoder", end_layer), "matrix", Kind::kEncoder, d, k});
  }
  return out;
}

std::uint32_t optimizer_moments(const RunSpec& run, const TensorSpec& tensor) {
  return run.train.optimizer == "muon" && tensor.maps() ? 1 : 2;
}

}  // namespace isthmus::spec
