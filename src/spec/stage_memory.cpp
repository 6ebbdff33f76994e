#include "spec/stage_memory.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "spec/attention_chunk.h"
#include "spec/boundary_form.h"
#include "spec/logits_slice.h"
#include "spec/stage_tensors.h"

namespace isthmus::spec {

namespace {

using Kind = TensorSpec::Kind;
using Border = BoundaryForm::Border;

// A process of this program whose stage has next to no layers, as measured (tests/libtorch/memory_probe.cpp):
// libraries, and what matrix products keep for themselves, which is more in bf16. A CUDA device's share has not been
// measured.
constexpr double kProgramBytes = 140e6, kProgramBytesBf16 = 165e6;
// glibc gives back what is larger, and keeps the holes that smaller tensors leave.
constexpr double kGivenBackBytes = 32 << 20;

// What one microbatch costs a stage, in bytes. `c`: bytes of a number that layers multiply.
class MicrobatchMemory {
 public:
  MicrobatchMemory(const RunConfig& run, std::uint32_t first, std::uint32_t end, double c)
      : run_(run),
        form_(boundary_form(run.boundary.codec)),
        first_(first),
        end_(end),
        c_(c),
        tokens_(double(run.train.sequences_per_microbatch) * run.model.context),
        d_(run.model.hidden),
        m_(run.model.mlp),
        k_(run.boundary.rank) {}

  // What crosses a boundary, as numbers; token ids.
  double borders() const {
    const double columns = form_.narrow && !form_.sparse ? k_ : d_;
    return tokens_ * ((first_ > 0 ? 4 * columns : 0) + 8);
  }

  // From F to I.
  double graph() const {
    // Of an attention and an MLP: each norm's result, in fp32 and as it goes on; q, k, v, what is mixed; gate and up,
    // and the product of both.
    double bytes = layers() * (2 * (4 + c_) * d_ + c_ * (4 * d_ + 3 * m_) + probabilities());
    if (form_.private_basis) bytes += c_ * k_ * (2 * factored() + 1);
    if (has_token_path()) bytes += c_ * (window() + 2 * d_);
    if (learned_border()) bytes += 4 * d_;
    if (!head()) bytes += 4 * (form_.narrow && !form_.sparse ? k_ : d_);
    if (head()) bytes += (4 + c_) * d_ + 8 + (sliced() ? c_ * d_ + 4 : 4.0 * run_.model.vocabulary);
    return tokens_ * bytes;
  }

  // From I to W: inputs and gradients of every matrix.
  double work() const {
    double bytes = c_ * (layers() * (6 * d_ + 3 * m_) + 2 * factored() * k_ + 2 * (layers() - factored()) * d_);
    if (form_.private_basis) bytes += c_ * (k_ + d_) * (2 * factored() + 1);
    if (has_token_path()) bytes += c_ * (window() + 3 * d_) + 4.0 * run_.model.token_width;
    if (first_ == 0) bytes += 4 * (form_.coefficients ? k_ : d_);
    if (learned_border()) bytes += 4 * (d_ + k_) * ((first_ > 0) + !head());
    if (head()) bytes += c_ * d_ + (sliced() ? 12 : c_ * run_.model.vocabulary);
    return tokens_ * bytes;
  }

  // While F or I run, beyond what they leave.
  double operating() const {
    // The backward pass of an attention has a gradient of q, k and v for all chunks beside that of one; of an MLP, of
    // gate and up. Both have the stream and its gradient.
    const double layer = 8 * d_ + c_ * std::max(12 * d_ + 3.0 * kAttentionChunk * run_.model.heads, 4 * m_);
    if (!head()) return tokens_ * layer;
    const double logits = 4 * tokens_ * run_.model.vocabulary;
    return std::max(tokens_ * layer, sliced() ? 3 * slice() : 2 * logits);
  }

 private:
  bool head() const { return end_ == run_.model.layers; }
  double layers() const { return end_ - first_; }
  double factored() const {
    if (!form_.coefficients) return 0;
    return std::clamp(run_.boundary.factored_layers.value_or(end_), first_, end_) - first_;
  }
  bool learned_border() const { return form_.border == Border::kFree || form_.border == Border::kOrthonormal; }
  bool has_token_path() const { return first_ > 0 && run_.model.token_path == "window"; }
  double window() const { return double(run_.model.token_window) * run_.model.token_width; }
  bool sliced() const { return slices_logits(static_cast<std::uint64_t>(tokens_), run_.model.vocabulary); }
  double slice() const {
    return 4.0 * run_.model.vocabulary *
           static_cast<double>(logits_rows(static_cast<std::uint64_t>(tokens_), run_.model.vocabulary));
  }
  // Of the attention of one token: chunks see the keys up to their end; other kernels keep a number per head.
  double probabilities() const {
    const auto& model = run_.model;
    const bool chunked =
        run_.host.device != "cuda" && model.context % kAttentionChunk == 0 && model.context <= kChunkedContextMax;
    return model.heads * (chunked ? c_ * (model.context + kAttentionChunk) / 2 : 4);
  }

  const RunConfig& run_;
  const BoundaryForm form_;
  const std::uint32_t first_, end_;
  const double c_, tokens_, d_, m_, k_;
};

// Parameters, and what the optimizer needs for itself.
struct TensorMemory {
  double parameters = 0, copied = 0, moments = 0, largest = 0;
  double stepping = 0;  // bytes
};

TensorMemory tensor_memory(const RunConfig& run, std::uint32_t first, std::uint32_t end) {
  const bool fixed_point = run.run.deterministic;
  TensorMemory memory;
  std::map<std::pair<bool, bool>, double> groups;  // model/optimizer.cpp: what AdamW updates in one call
  double muon = 0;
  for (const auto& tensor : stage_tensors(run, first, end)) {
    const auto numbers = static_cast<double>(tensor.numbers());
    memory.parameters += numbers;
    if (tensor.kind != Kind::kNorm && tensor.kind != Kind::kEncoder && tensor.kind != Kind::kDecoder)
      memory.copied += numbers;
    memory.moments += numbers * optimizer_moments(run, tensor);
    memory.largest = std::max(memory.largest, numbers);
    if (optimizer_moments(run, tensor) == 1) {
      // The scaled gradient, its sum with the momentum, and two of the iteration, with its square matrices.
      const double part = numbers / tensor.stacked, rows = double(tensor.rows) / tensor.stacked,
                   side = std::min<double>(rows, double(tensor.columns));
      muon = std::max(muon, (fixed_point ? 4 * numbers : 0) + 16 * part + 12 * side * side);
    } else {
      groups[{tensor.writes, tensor.decays()}] += numbers;
    }
  }
  double adamw = 0;
  for (const auto& [group, numbers] : groups) adamw = std::max(adamw, 4 * numbers);
  // A sum in fixed point is read through doubles.
  memory.stepping = std::max(muon, adamw + (fixed_point ? 12 * memory.largest : 0));
  return memory;
}

}  // namespace

StageUse fullest_use(const RunSpec& run, std::uint32_t end_layer, std::uint32_t credits, std::uint32_t replicas) {
  const std::uint32_t all = run.train.microbatches_per_step;
  StageUse use;
  use.in_flight = end_layer == run.model.layers ? 1 : std::min(credits, all);
  use.waiting = run.pipeline.schedule == "1f1b" ? 0 : all - use.in_flight;
  use.replicas = replicas;
  use.within_budget = true;
  return use;
}

double graph_bytes(const RunConfig& run, std::uint32_t first_layer, std::uint32_t end_layer, double number_bytes) {
  return MicrobatchMemory(run, first_layer, end_layer, number_bytes).graph();
}

StageMemory stage_memory(const RunConfig& run, std::uint32_t first_layer, std::uint32_t end_layer, const StageUse& use,
                         double boundary_bytes, bool bf16) {
  const double c = bf16 ? 2 : 4;
  const BoundaryForm form = boundary_form(run.boundary.codec);
  const TensorMemory tensors = tensor_memory(run, first_layer, end_layer);
  const MicrobatchMemory microbatch(run, first_layer, end_layer, c);
  const double fixed = form.fixed_base ? double(run.model.vocabulary) * run.model.hidden : 0;
  const double state = 4 * (tensors.parameters + tensors.moments);
  const bool local = use.replicas > 1 && run.sync.mode != "exact";

  StageMemory memory;
  memory.weights = 4 * tensors.parameters + c * fixed + (bf16 ? 2 * tensors.copied : 0);
  memory.optimizer = 8 + 4 * tensors.moments;
  memory.gradients = tensors.parameters * (run.run.deterministic ? 8 : 4);
  memory.checkpoint = state;
  memory.program = run.host.device == "cuda" ? 0 : bf16 ? kProgramBytesBf16 : kProgramBytes;
  // Anchor, momentum, and what was not told yet.
  if (local) {
    const double outer = 4 * tensors.parameters * (run.sync.momentum.value_or(0) > 0 ? 2 : 1);
    memory.optimizer += outer + (run.sync.mode == "sparseloco" ? 4 * tensors.parameters : 0);
    memory.checkpoint += outer;
  }

  // A graph that is not kept is made again for its I.
  const double graph = microbatch.graph(), budget = static_cast<double>(run.host.activation_mb) * 1048576;
  double graphs = use.in_flight;
  if (run.host.recompute == "always") graphs = 1;
  if (run.host.recompute == "auto") graphs = std::clamp(std::floor(budget / graph), 1.0, graphs);
  const double all = use.in_flight + use.waiting, waiting = std::max(0.0, all - graphs);
  double held = graphs * graph + waiting * microbatch.work();
  if (use.within_budget && run.host.recompute != "never") held = std::min(held, std::max(graph, budget));
  memory.kept = held + all * (microbatch.borders() + 2 * boundary_bytes);

  // The peak is where the most is held, or at the beginning, when the fixed table is made, or where the optimizer
  // steps: no microbatch is left then, but for large tensors the heap has no place in what they left.
  const double summing = tensors.largest * (run.run.deterministic ? 24 : 4);
  double stepping = tensors.stepping;
  // Sums that go to the siblings and come back as totals.
  if (use.replicas > 1) stepping += tensors.parameters * (local ? 12 : (run.run.deterministic ? 8 : 4) + 12);
  const double making = fixed * (bf16 ? 8 : 4) - memory.gradients - memory.checkpoint;
  const double operating = std::max(microbatch.operating(), summing);
  const double stepped = 4 * tensors.largest < kGivenBackBytes ? stepping : memory.kept + stepping;
  const double peak = std::max({memory.kept + operating, stepped, making});
  memory.working = peak - memory.kept;
  return memory;
}

StageMemory stage_memory(const RunConfig& run, std::uint32_t first_layer, std::uint32_t end_layer, const StageUse& use,
                         double boundary_bytes) {
  const auto with = [&](bool bf16) { return stage_memory(run, first_layer, end_layer, use, boundary_bytes, bf16); };
  const StageMemory wide = with(false);
  if (run.train.precision != "bf16") return wide;
  const StageMemory narrow = with(true);
  return run.host.device == "cuda" || narrow.total() > wide.total() ? narrow : wide;
}

}  // namespace isthmus::spec
