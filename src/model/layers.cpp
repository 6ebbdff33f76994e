#include "model/layers.h"

#include <cmath>

#include "model/deferred_weight.h"
#include "model/torch.h"
#include "spec/attention_chunk.h"

namespace isthmus::model {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr double kEpsilon = 1e-5;

struct Linear : torch::autograd::Function<Linear> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& input, std::int64_t parameter, std::int64_t work) {
    auto& weight = *reinterpret_cast<Parameter*>(parameter);
    ctx->save_for_backward({input});
    remember(ctx, weight, reinterpret_cast<WeightWorkList*>(work));
    return at::mm(input, weight.compute.t());
  }
  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const at::Tensor input = ctx->get_saved_variables()[0];
    const at::Tensor gradient = gradients[0].contiguous();
    leave(ctx, {.kind = WeightWork::Kind::kLinear, .input = input, .gradient = gradient});
    return {at::mm(gradient, remembered_parameter(ctx).compute), {}, {}};
  }
};

struct LinearTransposed : torch::autograd::Function<LinearTransposed> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& input, std::int64_t parameter, std::int64_t work) {
    auto& weight = *reinterpret_cast<Parameter*>(parameter);
    ctx->save_for_backward({input});
    remember(ctx, weight, reinterpret_cast<WeightWorkList*>(work));
    return at::mm(input, weight.compute);
  }
  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const at::Tensor input = ctx->get_saved_variables()[0];
    const at::Tensor gradient = gradients[0].contiguous();
    leave(ctx, {.kind = WeightWork::Kind::kLinear, .input = gradient, .gradient = input});
    return {at::mm(gradient, remembered_parameter(ctx).compute.t()), {}, {}};
  }
};

struct RmsNorm : torch::autograd::Function<RmsNorm> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& input, std::int64_t parameter, std::int64_t work,
                            std::int64_t out) {
    auto& weight = *reinterpret_cast<Parameter*>(parameter);
    const at::Tensor x = input.to(at::kFloat);
    const at::Tensor inverse = x.square().mean(-1, true).add_(kEpsilon).rsqrt_();
    const at::Tensor normed = x * inverse;
    ctx->save_for_backward({normed, inverse});
    ctx->saved_data["type"] = static_cast<std::int64_t>(input.scalar_type());
    remember(ctx, weight, reinterpret_cast<WeightWorkList*>(work));
    return (normed * weight.compute).to(static_cast<at::ScalarType>(out));
  }
  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor& normed = saved[0];
    const at::Tensor gradient = gradients[0].to(at::kFloat);
    leave(ctx, {.kind = WeightWork::Kind::kReady, .gradient = (gradient * normed).sum(0)});
    const at::Tensor scaled = gradient * remembered_parameter(ctx).compute;
    const at::Tensor along = (scaled * normed).mean(-1, true);
    const at::Tensor result = (scaled - normed * along).mul_(saved[1]);
    return {result.to(static_cast<at::ScalarType>(ctx->saved_data["type"].toInt())), {}, {}, {}};
  }
};

struct TableRows : torch::autograd::Function<TableRows> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor&, const at::Tensor& ids, std::int64_t parameter,
                            std::int64_t work) {
    auto& table = *reinterpret_cast<Parameter*>(parameter);
    ctx->save_for_backward({ids});
    remember(ctx, table, reinterpret_cast<WeightWorkList*>(work));
    return table.master.index_select(0, ids);
  }
  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    leave(ctx, {.kind = WeightWork::Kind::kTable, .input = ctx->get_saved_variables()[0], .gradient = gradients[0]});
    return {{}, {}, {}, {}};
  }
};

struct SwiGlu : torch::autograd::Function<SwiGlu> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& gate_up) {
    ctx->save_for_backward({gate_up});
    const std::int64_t n = gate_up.size(1) / 2;
    return at::silu(gate_up.narrow(1, 0, n)).mul_(gate_up.narrow(1, n, n));
  }
  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const at::Tensor gate_up = ctx->get_saved_variables()[0];
    const std::int64_t n = gate_up.size(1) / 2;
    const at::Tensor gate = gate_up.narrow(1, 0, n), up = gate_up.narrow(1, n, n);
    at::Tensor result = at::empty_like(gate_up);
    at::mul_out(*std::make_unique<at::Tensor>(result.narrow(1, n, n)), gradients[0], at::silu(gate));
    result.narrow(1, 0, n).copy_(at::silu_backward(gradients[0] * up, gate));
    return {result};
  }
};

at::Tensor rotate(const at::Tensor& x, const RotaryTables& rotary) {
  const std::int64_t half = x.size(-1) / 2;
  const at::Tensor turned = at::cat({x.narrow(-1, half, half).neg(), x.narrow(-1, 0, half)}, -1);
  return x * rotary.cos + turned * rotary.sin;
}

// Softmax attention in query chunks. A chunk sees only the keys up to its end, which saves the half of the scores that
// the mask would throw away; for short contexts on a CPU that is twice as fast as the flash kernel.
constexpr std::int64_t kChunk = spec::kAttentionChunk;

at::Tensor chunked_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const std::int64_t context = q.size(2);
  const at::Tensor scaled = q * (1.0 / std::sqrt(static_cast<double>(q.size(3))));
  const at::Tensor mask = at::full({kChunk, kChunk}, -std::numeric_limits<double>::infinity(), q.options()).triu_(1);
  std::vector<at::Tensor> out;
  for (std::int64_t at = 0; at < context; at += kChunk) {
    const std::int64_t end = at + kChunk;
    at::Tensor scores = at::matmul(scaled.narrow(2, at, kChunk), k.narrow(2, 0, end).transpose(-1, -2));
    // Only the last block of a chunk's scores has anything to mask.
    scores = at == 0 ? scores + mask : at::cat({scores.narrow(-1, 0, at), scores.narrow(-1, at, kChunk) + mask}, -1);
    out.push_back(at::matmul(at::softmax(scores, -1), v.narrow(2, 0, end)));
  }
  return at::cat(out, 2);
}

}  // namespace

at::Tensor linear(const at::Tensor& input, Parameter& weight, WeightWorkList* work) {
  if (!work) return at::mm(input, weight.compute.t());
  return Linear::apply(input, as_number(&weight), as_number(work));
}

at::Tensor linear_transposed(const at::Tensor& input, Parameter& weight, WeightWorkList* work) {
  if (!work) return at::mm(input, weight.compute);
  return LinearTransposed::apply(input, as_number(&weight), as_number(work));
}

at::Tensor rms_norm(const at::Tensor& input, Parameter& weight, at::ScalarType out, WeightWorkList* work) {
  return RmsNorm::apply(input, as_number(&weight), as_number(work), static_cast<std::int64_t>(out));
}

at::Tensor swiglu(const at::Tensor& gate_up) { return SwiGlu::apply(gate_up); }

at::Tensor table_rows(const at::Tensor& anchor, const at::Tensor& ids, Parameter& table, WeightWorkList* work) {
  if (!work) return table.master.index_select(0, ids);
  return TableRows::apply(anchor, ids, as_number(&table), as_number(work));
}

RotaryTables rotary_tables(std::int64_t context, std::int64_t head_width, const at::Tensor& like) {
  const at::Tensor exponent = at::arange(0, head_width, 2, at::kDouble) / static_cast<double>(head_width);
  const at::Tensor frequency = at::pow(at::full({1}, 10000.0, at::kDouble), -exponent);
  const at::Tensor angle = at::outer(at::arange(context, at::kDouble), frequency);
  const at::Tensor both = at::cat({angle, angle}, 1);
  return {both.cos().to(like.options()), both.sin().to(like.options())};
}

at::Tensor attention(const at::Tensor& qkv, std::int64_t sequences, std::int64_t heads, const RotaryTables& rotary) {
  const std::int64_t rows = qkv.size(0), hidden = qkv.size(1) / 3, context = rows / sequences;
  const at::Tensor split = qkv.view({sequences, context, 3 * heads, hidden / heads}).transpose(1, 2);
  const at::Tensor qk = rotate(split.narrow(1, 0, 2 * heads), rotary);
  // One copy of each now, or matmul would make one for every chunk and keep it for the backward pass.
  const at::Tensor q = qk.narrow(1, 0, heads).contiguous(), k = qk.narrow(1, heads, heads).contiguous(),
                   v = split.narrow(1, 2 * heads, heads).contiguous();
  const bool chunked = qkv.is_cpu() && context % kChunk == 0 && context <= spec::kChunkedContextMax;
  const at::Tensor mixed =
      chunked ? chunked_attention(q, k, v) : at::scaled_dot_product_attention(q, k, v, {}, 0.0, /*is_causal=*/true);
  return mixed.transpose(1, 2).reshape({rows, hidden});
}

at::Tensor cross_entropy_sum(const at::Tensor& logits, const at::Tensor& labels) {
  return at::cross_entropy_loss(logits.to(at::kFloat), labels, {}, at::Reduction::Sum);
}

}  // namespace isthmus::model
