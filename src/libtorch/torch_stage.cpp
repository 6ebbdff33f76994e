#include "libtorch/torch_stage.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <optional>
#include <thread>
#include <utility>

#include "base/digest.h"
#include "base/little_endian.h"
#include "compress/token_ids.h"
#include "libtorch/cuda_memory.h"
#include "libtorch/layer_timing.h"
#include "libtorch/stage_boundary.h"
#include "libtorch/tensor_heap.h"
#include "libtorch/weight_bytes.h"
#include "model/arithmetic.h"
#include "model/optimizer.h"
#include "model/stage_model.h"
#include "model/torch.h"
#include "model/weight_work.h"
#include "scheduler/planner/make_plan.h"
#include "spec/stage_memory.h"
#include "stage/available_memory.h"
#include "stage/outer_optimizer.h"
#include "store/checkpoint.h"

namespace isthmus::libtorch {

namespace {

// What a stage keeps of a training microbatch between its F, I and W.
struct Kept {
  StepId step;
  at::Tensor ids;
  at::Tensor input;            // leaf
  at::Tensor output;           // root of the graph; undefined when it is to be recomputed
  model::WeightWorkList work;  // after I
};

constexpr std::int64_t kNormNumbers = 1 << 20;

class TorchStage final : public runner::StageCompute {
 public:
  TorchStage(const spec::RunConfig& run, StageId stage, ReplicaId replica)
      : run_(run),
        stage_(stage),
        first_layer_(run.pipeline.stage[stage.value].first_layer),
        end_layer_(run.pipeline.stage[stage.value].end_layer),
        model_(run, first_layer_, end_layer_),
        optimizer_(run),
        sums_(run.run.deterministic),
        outputs_(run, stage, compress::Direction::kForward),
        gradients_(run, stage, compress::Direction::kBackward),
        tokens_(std::int64_t{run.train.sequences_per_microbatch} * run.model.context),
        recompute_(run.host.recompute == "always"),
        graph_bytes_(
            spec::graph_bytes(run, first_layer_, end_layer_, double(at::elementSize(model::arithmetic(run))))) {
    if (!planner::is_local(run, stage)) return;
    outer_ = std::make_unique<stage::OuterOptimizer>(run, planner::synced_tensors(run, stage),
                                                     stage::RehearsedLiar::of(run, stage, replica));
    outer_->begin(flat_weights(model_.parameters()));
  }

  protocol::DeviceFigures measure() override {
    protocol::DeviceFigures device = time_layers(model_, run_);
    device.memory_bytes = model_.device().is_cuda() ? available_cuda_memory() : stage::available_memory();
    return device;
  }

  Result<ForwardResult> forward(StepId step, MicrobatchId m, bool training,
                                const compress::EncodedTensor& input) override {
    const std::int64_t sequences = run_.train.sequences_per_microbatch, length = std::int64_t{run_.model.context} + 1;
    auto ids = compress::unpack_token_ids(*input.tokens, sequences, length - 1, run_.model.vocabulary);
    if (!ids) return tl::unexpected(ids.error());
    Kept kept;
    kept.step = step;
    kept.ids = torch::from_blob(ids->data(), {sequences, length}, torch::kLong).clone().to(model_.device());
    if (model_.has_embedding()) {
      kept.input = torch::zeros({1}, torch::TensorOptions(model_.device()));
    } else {
      auto values = outputs_.decode(input, model_.device());
      if (!values) return tl::unexpected(values.error());
      kept.input = *values;
    }
    ForwardResult result;
    at::Tensor output;
    if (training) {
      // Held in the map before the graph is built: the graph points at the list of its weight work.
      Kept& held = kept_[m] = std::move(kept);
      held.input.requires_grad_(true);
      if (should_recompute()) {
        const torch::NoGradGuard no_graph;
        output = model_.forward(held.ids, held.input, nullptr);
      } else {
        const torch::AutoGradMode graph(true);
        output = held.output = model_.forward(held.ids, held.input, &held.work);
      }
    } else {
      const torch::NoGradGuard no_graph;
      output = model_.forward(kept.ids, kept.input, nullptr);
    }
    if (model_.has_head()) {
      result.loss = protocol::MicrobatchLoss{m, output.item<double>(), static_cast<std::uint32_t>(tokens_)};
    } else {
      result.output = outputs_.encode(output, step, m, training);
      result.output.tokens = input.tokens;
    }
    return result;
  }

  Result<compress::EncodedTensor> input_gradient(MicrobatchId m, const compress::EncodedTensor& gradient) override {
    Kept& kept = kept_.at(m);
    at::Tensor outer;
    if (model_.has_head()) {
      const double tokens = static_cast<double>(tokens_) * run_.train.microbatches_per_step;
      outer = torch::full({}, 1.0 / tokens, torch::TensorOptions(model_.device()));
    } else {
      auto values = gradients_.decode(gradient, model_.device());
      if (!values) return tl::unexpected(values.error());
      outer = *values;
    }
    const torch::AutoGradMode graph(true);
    if (!kept.output.defined()) kept.output = model_.forward(kept.ids, kept.input, &kept.work);
    torch::autograd::backward({kept.output}, {outer});
    kept.output = at::Tensor();
    compress::EncodedTensor result;
    if (!model_.has_embedding()) result = gradients_.encode(kept.input.grad(), kept.step, m, true);
    kept.input = at::Tensor();
    return result;
  }

  void weight_gradient(MicrobatchId m) override {
    const torch::NoGradGuard no_graph;
    const auto at = kept_.find(m);
    sums_.add(at->second.work);
    ++in_sum_;
    kept_.erase(at);
  }

  Sum close() override {
    const torch::NoGradGuard no_graph;
    Bytes bytes;
    bytes.reserve(parameters() * (run_.run.deterministic ? 8 : 4));
    for (const auto& p : model_.parameters()) {
      const at::Tensor sum = sums_.sum(p);
      const ByteView view = bytes_of(sum);
      bytes.insert(bytes.end(), view.begin(), view.end());
    }
    return {share(std::move(bytes)), sums_.finite()};
  }

  SharedBytes add(const std::vector<SharedBytes>& parts) const override {
    const torch::NoGradGuard no_graph;
    const auto type = run_.run.deterministic ? at::kLong : at::kFloat;
    std::vector<at::Tensor> sums;
    for (const auto& part : parts)
      sums.push_back(torch::from_blob(const_cast<std::uint8_t*>(part->data()),
                                      {static_cast<std::int64_t>(part->size() / at::elementSize(type))}, type));
    const at::Tensor total = sums_.add(sums);
    const ByteView view = bytes_of(total);
    return share(Bytes(view.begin(), view.end()));
  }

  SharedBytes total() const override {
    const torch::NoGradGuard no_graph;
    Bytes bytes;
    bytes.reserve(parameters() * 4);
    for (const auto& p : model_.parameters()) {
      const at::Tensor value = sums_.value(p).to(at::kCPU).contiguous();
      const ByteView view = bytes_of(value);
      bytes.insert(bytes.end(), view.begin(), view.end());
    }
    return share(std::move(bytes));
  }

  Prepared prepare(const std::vector<SharedBytes>& totals, bool finite) override {
    const torch::NoGradGuard no_graph;
    for (auto& p : model_.parameters()) p.total = at::Tensor();
    if (!totals.empty()) {
      const SharedBytes whole = joined(totals);
      ByteView rest = *whole;
      for (auto& p : model_.parameters()) p.total = take_floats(rest, p.master);
    }
    Prepared prepared;
    prepared.finite = totals.empty() ? sums_.finite() : finite;
    Digest digest;
    for (const auto& p : model_.parameters()) {
      const at::Tensor gradient = sums_.value(p);
      // Piece by piece: a large matrix in doubles, twice, would be more than all that the stage holds.
      double norm2 = 0;
      for (const at::Tensor& piece : gradient.flatten().split(kNormNumbers))
        norm2 += piece.to(at::kDouble).square().sum().item<double>();
      if (prepared.norms.empty() || prepared.norms.back().unit != p.spec.unit)
        prepared.norms.push_back({p.spec.unit, 0.0});
      prepared.norms.back().norm2 += norm2;
      prepared.finite = prepared.finite && std::isfinite(norm2);
      if (run_.run.deterministic) digest.update(bytes_of(gradient.to(at::kCPU).contiguous()));
    }
    // A norm that is no number cannot travel as one; `finite` says it.
    for (auto& unit : prepared.norms)
      if (!std::isfinite(unit.norm2)) unit.norm2 = 0;
    if (run_.run.deterministic) prepared.sum_digest = digest.hex();
    return prepared;
  }

  runner::OuterStep* outer() override { return outer_.get(); }

  std::vector<SharedBytes> updates(std::uint64_t version) override {
    return outer_->updates(version, flat_weights(model_.parameters()), std::exchange(microbatches_, 0));
  }

  void settle_sync() override {
    const torch::NoGradGuard no_graph;
    std::vector<float> weights = flat_weights(model_.parameters());
    outer_->apply(weights);
    take_weights(weights);
  }

  void apply(const protocol::Commit& commit, double learning_rate) override {
    const torch::NoGradGuard no_graph;
    if (commit.apply) {
      microbatches_ += in_sum_;
      optimizer_.step(model_.parameters(), sums_, commit.scale, learning_rate);
      model_.settle();
    }
    drop_step();
  }

  void drop_step() override {
    kept_.clear();
    in_sum_ = 0;
    sums_.clear(model_.parameters());
  }

  store::StageTensors copy() const override {
    const torch::NoGradGuard no_graph;
    const auto copies = std::make_shared<std::vector<at::Tensor>>();
    store::StageTensors all{{}, {}, copies};
    const auto view = [&](const std::string& name, const at::Tensor& tensor) {
      copies->push_back(torch::empty(tensor.sizes()));
      copies->back().copy_(tensor);
      return store::NamedTensor{name, tensor.sizes().vec(), bytes_of(copies->back())};
    };
    for (const auto& p : model_.parameters()) {
      all.weights.push_back(view(p.name, p.master));
      const auto names = store::moment_names(run_, p.spec);
      for (std::size_t i = 0; i < names.size(); ++i) all.optimizer.push_back(view(names[i], p.moments[i]));
    }
    if (outer_) {
      for (const auto& [name, values] :
           {std::pair("sync.anchor", &outer_->anchor()), std::pair("sync.momentum", &outer_->momentum())})
        all.optimizer.push_back(
            view(name, torch::from_blob(const_cast<float*>(values->data()), {std::ssize(*values)})));
    }
    all.optimizer.push_back(
        view(store::kOptimizerSteps, torch::tensor(at::ArrayRef<float>(store::optimizer_steps(optimizer_.steps())))));
    return all;
  }

  Status load(const store::LoadedCheckpoint& loaded) override {
    const torch::NoGradGuard no_graph;
    // All of it is checked before any of it is used.
    std::vector<std::pair<at::Tensor, at::Tensor>> copies;
    const auto take = [&](const store::SafetensorsFile& file, const std::string& name,
                          const at::Tensor& target) -> Status {
      const auto at = file.tensors.find(name);
      if (at == file.tensors.end() || at->second.shape != target.sizes().vec())
        return fail(
            "the checkpoint of step {} of stage {} has no tensor {} of the run's shape; resume with the run file it "
            "was written with",
            loaded.version, stage_, name);
      at::Tensor values = torch::empty(target.sizes());
      std::memcpy(values.mutable_data_ptr(), at->second.bytes.data(), at->second.bytes.size());
      copies.emplace_back(target, values);
      return {};
    };
    Status fits = take(loaded.optimizer, store::kOptimizerSteps, torch::zeros({2}));
    for (auto& p : model_.parameters()) {
      if (fits) fits = take(loaded.weights, p.name, p.master);
      const auto names = store::moment_names(run_, p.spec);
      for (std::size_t i = 0; i < names.size() && fits; ++i) fits = take(loaded.optimizer, names[i], p.moments[i]);
    }
    // Of a run whose replicas did not step on their own, or of another map, there is none: its weights are what all
    // agree on.
    at::Tensor anchor, momentum;
    if (outer_ && loaded.optimizer.tensors.contains("sync.anchor")) {
      anchor = torch::empty({std::ssize(outer_->anchor())});
      momentum = torch::empty({std::ssize(outer_->momentum())});
      if (fits) fits = take(loaded.optimizer, "sync.anchor", anchor);
      if (fits) fits = take(loaded.optimizer, "sync.momentum", momentum);
    }
    if (!fits) return fits;
    for (auto& [target, values] : copies) target.copy_(values);
    optimizer_.set_steps(store::optimizer_steps(loaded.optimizer.tensors.at(store::kOptimizerSteps)));
    const auto floats = [](const at::Tensor& t) {
      return std::vector<float>(t.const_data_ptr<float>(), t.const_data_ptr<float>() + t.numel());
    };
    if (anchor.defined())
      outer_->set(floats(anchor), floats(momentum));
    else if (outer_)
      outer_->begin(flat_weights(model_.parameters()));
    begin_anew();
    return {};
  }

  SharedBytes state() const override {
    if (outer_) return outer_->state();
    const torch::NoGradGuard no_graph;
    Bytes bytes;
    bytes.reserve(planner::state_bytes_of(run_, first_layer_, end_layer_));
    for (const auto& p : model_.parameters())
      for (const auto& tensor : trained_tensors(p)) {
        const at::Tensor values = tensor.to(at::kCPU).contiguous();
        const ByteView view = bytes_of(values);
        bytes.insert(bytes.end(), view.begin(), view.end());
      }
    append_le(bytes, optimizer_.steps());
    return share(std::move(bytes));
  }

  Status restore(ByteView state) override {
    const torch::NoGradGuard no_graph;
    if (outer_) {
      if (auto restored = outer_->restore(state); !restored) return restored;
      drop_step();
      // Moments belong to the weights they were made with.
      for (auto& p : model_.parameters())
        for (auto& moment : p.moments) moment.zero_();
      optimizer_.set_steps(0);
      take_weights(outer_->anchor());
      begin_anew();
      return {};
    }
    const std::uint64_t expected = planner::state_bytes_of(run_, first_layer_, end_layer_);
    if (state.size() != expected) return fail("a state of {} bytes, this stage's has {}", state.size(), expected);
    drop_step();
    for (auto& p : model_.parameters())
      for (const auto& tensor : trained_tensors(p)) tensor.copy_(take_floats(state, tensor));
    optimizer_.set_steps(*take_le<std::uint64_t>(state));
    begin_anew();
    return {};
  }

  std::vector<protocol::UnitDigest> weight_digests() const override {
    std::vector<protocol::UnitDigest> digests;
    std::optional<Digest> digest;
    const auto close = [&] {
      if (digest) digests.back().hex = digest->hex();
    };
    for (const auto& p : model_.parameters()) {
      if (digests.empty() || digests.back().unit != p.spec.unit) {
        close();
        digests.push_back({p.spec.unit, ""});
        digest.emplace();
      }
      digest->update(bytes_of(p.master.to(at::kCPU).contiguous()));
    }
    close();
    return digests;
  }

 private:
  void take_weights(std::span<const float> weights) {
    ByteView bytes{reinterpret_cast<const std::uint8_t*>(weights.data()), weights.size_bytes()};
    for (auto& p : model_.parameters()) p.master.copy_(take_floats(bytes, p.master));
    model_.settle();
  }

  std::uint64_t parameters() const { return planner::parameters_of(run_, first_layer_, end_layer_); }

  // After the masters came from elsewhere.
  void begin_anew() {
    microbatches_ = 0;
    model::refresh_compute_copies(model_.parameters());
    outputs_.clear();
    gradients_.clear();
  }

  // auto: keep graphs while they fit into pipeline.activation_mb, the first one in any case.
  bool should_recompute() const {
    if (run_.host.recompute != "auto") return recompute_;
    const auto graphs = std::ranges::count_if(kept_, [](const auto& k) { return k.second.output.defined(); });
    return graphs > 0 && static_cast<double>(graphs + 1) * graph_bytes_ > run_.host.activation_mb * 1048576.0;
  }

  const spec::RunConfig run_;
  const StageId stage_;
  const std::uint32_t first_layer_;
  const std::uint32_t end_layer_;
  model::StageModel model_;
  model::Optimizer optimizer_;
  model::GradientSums sums_;
  StageBoundary outputs_;    // forward
  StageBoundary gradients_;  // backward
  const std::int64_t tokens_;
  const bool recompute_;
  const double graph_bytes_;  // of one microbatch
  std::map<MicrobatchId, Kept> kept_;
  std::unique_ptr<stage::OuterOptimizer> outer_;  // replicas that step on their own
  std::uint32_t in_sum_ = 0;                      // microbatches of the step
  std::uint32_t microbatches_ = 0;                // that the weights have seen since the last sync
};

int thread_count(const spec::RunConfig& run) {
  if (run.run.deterministic) return 1;
  if (run.host.threads > 0) return static_cast<int>(run.host.threads);
  std::size_t workers = 0;
  for (const auto& stage : run.pipeline.stage) workers += stage.replicas;
  return static_cast<int>(std::max<std::size_t>(1, std::thread::hardware_concurrency() / workers));
}

}  // namespace

Result<std::unique_ptr<runner::StageCompute>> make_torch_stage(const spec::RunConfig& run, StageId stage,
                                                               ReplicaId replica) {
  use_tensor_heap();
  at::set_num_threads(thread_count(run));
  if (run.host.device == "cuda" && !torch::cuda::is_available())
    return fail(
        "pipeline.device is \"cuda\", but this libtorch finds no CUDA device; install a driver, use a CUDA build of "
        "libtorch, or set pipeline.device = \"cpu\"");
  return std::make_unique<TorchStage>(run, stage, replica);
}

}  // namespace isthmus::libtorch
