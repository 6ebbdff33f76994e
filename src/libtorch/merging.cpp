#include "libtorch/merging.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <cstring>
#include <optional>
#include <utility>

#include "compress/subspace.h"
#include "spec/boundary_form.h"

namespace isthmus::libtorch {

namespace {

using Border = spec::BoundaryForm::Border;

at::Tensor as_tensor(const store::NamedTensor& tensor) {
  return at::from_blob(const_cast<std::uint8_t*>(tensor.bytes.data()), tensor.shape, at::kFloat);
}

at::Tensor matrix(const std::vector<float>& values, std::int64_t columns) {
  return at::from_blob(const_cast<float*>(values.data()), {static_cast<std::int64_t>(values.size()) / columns, columns},
                       at::kFloat)
      .clone();
}

void add(stage::MergedModel& model, const std::string& name, const at::Tensor& values) {
  const at::Tensor numbers = values.to(at::kFloat).contiguous();
  Bytes& bytes = model.made.emplace_back(numbers.nbytes());
  std::memcpy(bytes.data(), numbers.const_data_ptr(), bytes.size());
  model.tensors.push_back({name, numbers.sizes().vec(), bytes});
}

// The i-th of `count` matrices that stand on each other.
store::NamedTensor part(const store::NamedTensor& stacked, std::size_t i, std::int64_t count, std::string name) {
  const std::size_t bytes = stacked.bytes.size() / static_cast<std::size_t>(count);
  return {std::move(name), {stacked.shape[0] / count, stacked.shape[1]}, stacked.bytes.subspan(i * bytes, bytes)};
}

}  // namespace

stage::MergedModel llama_model(const spec::RunSpec& run, const std::map<std::string, store::NamedTensor>& weights) {
  const auto& m = run.model;
  const spec::BoundaryForm form = spec::boundary_form(run.boundary.codec);
  stage::MergedModel model;
  std::optional<at::Tensor> basis;  // what coefficients are seen through, double
  if (form.coefficients)
    basis = (form.private_basis
                 ? as_tensor(weights.at("basis.0.matrix"))
                 : matrix(compress::subspace_basis(run.run.seed, m.hidden, run.boundary.rank), run.boundary.rank))
                .to(at::kDouble);
  at::Tensor table = as_tensor(weights.at("embedding.table")).to(at::kDouble);
  if (basis) table = at::mm(table, basis->t());
  if (form.fixed_base)
    table = table + matrix(compress::fixed_embedding(run.run.seed, m.vocabulary, m.hidden), m.hidden);
  add(model, "model.embed_tokens.weight", table);

  for (std::uint32_t l = 0; l < m.layers; ++l) {
    const auto own = [&](const char* name) -> const store::NamedTensor& {
      return weights.at(fmt::format("layer.{}.{}", l, name));
    };
    const auto theirs = [&](const char* name) { return fmt::format("model.layers.{}.{}.weight", l, name); };
    const auto keep = [&](const char* from, const char* to) {
      model.tensors.push_back({theirs(to), own(from).shape, own(from).bytes});
    };
    const auto keep_writer = [&](const char* from, const char* to) {
      if (basis && l < *run.boundary.factored_layers)
        add(model, theirs(to), at::mm(*basis, as_tensor(own(from)).to(at::kDouble)));
      else
        keep(from, to);
    };
    keep("attention_norm", "input_layernorm");
    for (std::size_t i = 0; const char* name : {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"})
      model.tensors.push_back(part(own("qkv"), i++, 3, theirs(name)));
    keep_writer("attention_out", "self_attn.o_proj");
    keep("mlp_norm", "post_attention_layernorm");
    for (std::size_t i = 0; const char* name : {"mlp.gate_proj", "mlp.up_proj"})
      model.tensors.push_back(part(own("gate_up"), i++, 2, theirs(name)));
    keep_writer("down", "mlp.down_proj");
  }
  for (const auto& [from, to] :
       {std::pair("head.norm", "model.norm.weight"), std::pair("head.matrix", "lm_head.weight")})
    model.tensors.push_back({to, weights.at(from).shape, weights.at(from).bytes});
  return model;
}

stage::MergedModel isthmus_model(const spec::RunSpec& run, const std::map<std::string, store::NamedTensor>& weights) {
  const auto& m = run.model;
  const spec::BoundaryForm form = spec::boundary_form(run.boundary.codec);
  stage::MergedModel model;
  for (const auto& [name, tensor] : weights) model.tensors.push_back(tensor);
  if (form.border == Border::kFixed || (form.coefficients && !form.private_basis))
    add(model, "fixed.basis",
        matrix(compress::subspace_basis(run.run.seed, m.hidden, run.boundary.rank), run.boundary.rank));
  if (form.fixed_base)
    add(model, "fixed.embedding", matrix(compress::fixed_embedding(run.run.seed, m.vocabulary, m.hidden), m.hidden));
  return model;
}

}  // namespace isthmus::libtorch
