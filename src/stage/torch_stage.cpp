#include "stage/torch_stage.h"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <optional>
#include <thread>
#include <utility>

#include "base/digest.h"
#include "base/little_endian.h"
#include "base/counter_random.h"
#include "compress/boundary_codec.h"
#include "compress/error_feedback.h"
#include "compress/token_ids.h"
#include "model/arithmetic.h"
#include "model/optimizer.h"
#include "model/stage_model.h"
#include "model/token_source.h"
#include "model/weight_work.h"
#include "scheduler/make_plan.h"
#include "stage/checkpoint.h"
#include "stage/device_memory.h"
#include "stage/layer_timing.h"

namespace isthmus {

namespace {

// What a stage keeps of a training microbatch between its F, I and W.
struct Kept {
  StepId step;
  at::Tensor ids;
  at::Tensor input;     // leaf
  at::Tensor output;    // root of the graph; undefined when it is to be recomputed
  WeightWorkList work;  // after I
};

ByteView bytes_of(const at::Tensor& cpu) {
  return {static_cast<const std::uint8_t*>(cpu.const_data_ptr()), cpu.nbytes()};
}

class TorchStage final : public StageCompute {
 public:
  TorchStage(const RunConfig& run, StageId stage, ReplicaId replica, const std::string& folder, std::optional<TokenSource> source)
      : run_(run),
        place_{folder, stage, run.pipeline.stage[stage.value].first_layer, run.pipeline.stage[stage.value].end_layer, replica},
        source_(std::move(source)),
        model_(run, place_.first_layer, place_.end_layer),
        optimizer_(run),
        sums_(run.run.deterministic),
        forward_codec_(make_boundary_codec(run, Direction::kForward)),
        backward_codec_(make_boundary_codec(run, Direction::kBackward)),
        shape_(boundary_shape(run)),
        tokens_(static_cast<std::int64_t>(shape_.tokens)),
        dither_(run.run.seed, fmt::format("dither of stage {}", stage)),
        recompute_(run.pipeline.recompute == "always") {
    if (!is_local(run, stage)) return;
    outer_ = std::make_unique<OuterOptimizer>(run, synced_tensors(run, stage), RehearsedLiar::of(run, stage, replica));
    outer_->begin(flat_weights());
  }

  DeviceFigures measure() override {
    DeviceFigures device = time_layers(model_, run_);
    device.memory_bytes = model_.device().is_cuda() ? available_cuda_memory() : available_memory();
    return device;
  }

  Result<ForwardResult> forward(StepId step, MicrobatchId m, bool training, const EncodedTensor& input) override {
    Bytes drawn;
    if (source_) drawn = training ? source_->training(step, m) : source_->evaluation(m);
    const ByteView packed = source_ ? ByteView(drawn) : input.tokens ? ByteView(*input.tokens) : ByteView();
    const std::int64_t sequences = run_.train.sequences_per_microbatch, length = std::int64_t{run_.model.context} + 1;
    auto ids = unpack_token_ids(packed, sequences, length - 1, run_.model.vocabulary);
    if (!ids) return tl::unexpected(ids.error());
    Kept kept;
    kept.step = step;
    kept.ids = torch::from_blob(ids->data(), {sequences, length}, torch::kLong).clone().to(model_.device());
    if (source_) {
      kept.input = torch::zeros({1}, torch::TensorOptions(model_.device()));
    } else {
      auto values = decoded(*forward_codec_, input);
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
        note_graph();
      }
    } else {
      const torch::NoGradGuard no_graph;
      output = model_.forward(kept.ids, kept.input, nullptr);
    }
    if (model_.has_head()) {
      result.loss = MicrobatchLoss{m, output.item<double>(), static_cast<std::uint32_t>(tokens_)};
    } else {
      result.output.values = share(encoded(*forward_codec_, training ? &forward_feedback_ : nullptr, output, step, m));
      result.output.tokens = source_ ? share(std::move(drawn)) : input.tokens;
    }
    return result;
  }

  Result<EncodedTensor> input_gradient(MicrobatchId m, const EncodedTensor& gradient) override {
    Kept& kept = kept_.at(m);
    at::Tensor outer;
    if (model_.has_head()) {
      const double tokens = static_cast<double>(tokens_) * run_.train.microbatches_per_step;
      outer = torch::full({}, 1.0 / tokens, torch::TensorOptions(model_.device()));
    } else {
      auto values = decoded(*backward_codec_, gradient);
      if (!values) return tl::unexpected(values.error());
      outer = *values;
    }
    const torch::AutoGradMode graph(true);
    if (!kept.output.defined()) kept.output = model_.forward(kept.ids, kept.input, &kept.work);
    torch::autograd::backward({kept.output}, {outer});
    kept.output = at::Tensor();
    EncodedTensor result;
    if (!model_.has_embedding()) result.values = share(encoded(*backward_codec_, &backward_feedback_, kept.input.grad(), kept.step, m));
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
      sums.push_back(torch::from_blob(const_cast<std::uint8_t*>(part->data()), {static_cast<std::int64_t>(part->size() / at::elementSize(type))}, type));
    const at::Tensor total = sums_.add(sums);
    const ByteView view = bytes_of(total);
    return share(Bytes(view.begin(), view.end()));
  }

  SharedBytes total() const override {
    const torch::NoGradGuard no_graph;
    Bytes bytes;
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
      Bytes whole;
      for (const auto& slice : totals) whole.insert(whole.end(), slice->begin(), slice->end());
      ByteView rest = whole;
      for (auto& p : model_.parameters()) p.total = take_floats(rest, p.master);
    }
    Prepared prepared;
    prepared.finite = totals.empty() ? sums_.finite() : finite;
    Digest digest;
    for (const auto& p : model_.parameters()) {
      const at::Tensor gradient = sums_.value(p);
      const double norm2 = gradient.to(at::kDouble).square().sum().item<double>();
      if (prepared.norms.empty() || prepared.norms.back().unit != p.spec.unit) prepared.norms.push_back({p.spec.unit, 0.0});
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

  OuterOptimizer* outer() override { return outer_.get(); }

  std::vector<SharedBytes> updates(std::uint64_t version) override {
    return outer_->updates(version, flat_weights(), std::exchange(microbatches_, 0));
  }

  void settle_sync() override {
    const torch::NoGradGuard no_graph;
    std::vector<float> weights = flat_weights();
    outer_->apply(weights);
    take_weights(weights);
  }

  void apply(const Commit& commit, double learning_rate) override {
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

  Write save(std::uint64_t version, std::uint32_t timeline) const override {
    const torch::NoGradGuard no_graph;
    std::vector<at::Tensor> copies;  // that the views point into
    std::vector<NamedTensor> weights, optimizer;
    const auto view = [&](const std::string& name, const at::Tensor& tensor) {
      copies.push_back(torch::empty(tensor.sizes()));
      copies.back().copy_(tensor);
      return NamedTensor{name, tensor.sizes().vec(), bytes_of(copies.back())};
    };
    for (const auto& p : model_.parameters()) {
      weights.push_back(view(p.name, p.master));
      const auto names = moment_names(run_, p.spec);
      for (std::size_t i = 0; i < names.size(); ++i) optimizer.push_back(view(names[i], p.moments[i]));
    }
    if (outer_) {
      for (const auto& [name, values] : {std::pair("sync.anchor", &outer_->anchor()), std::pair("sync.momentum", &outer_->momentum())})
        optimizer.push_back(view(name, torch::from_blob(const_cast<float*>(values->data()), {std::ssize(*values)})));
    }
    optimizer.push_back(view(kOptimizerSteps, torch::tensor(at::ArrayRef<float>(optimizer_steps(optimizer_.steps())))));
    return [=, place = place_, keep = run_.checkpoint.keep, copies = std::move(copies), weights = std::move(weights), optimizer = std::move(optimizer)] {
      return write_checkpoint(place, version, timeline, weights, optimizer, keep);
    };
  }

  Result<std::uint32_t> load(std::uint64_t version) override {
    const torch::NoGradGuard no_graph;
    const auto loaded = read_checkpoint(place_, version);
    if (!loaded) return tl::unexpected(loaded.error());
    // All of it is checked before any of it is used.
    std::vector<std::pair<at::Tensor, at::Tensor>> copies;
    const auto take = [&](const SafetensorsFile& file, const std::string& name, const at::Tensor& target) -> Status {
      const auto at = file.tensors.find(name);
      if (at == file.tensors.end() || at->second.shape != target.sizes().vec())
        return fail("the checkpoint of step {} of stage {} has no tensor {} of the run's shape; resume with the run file it was "
                    "written with", version, place_.stage, name);
      at::Tensor values = torch::empty(target.sizes());
      std::memcpy(values.mutable_data_ptr(), at->second.bytes.data(), at->second.bytes.size());
      copies.emplace_back(target, values);
      return {};
    };
    Status fits = take(loaded->optimizer, kOptimizerSteps, torch::zeros({2}));
    for (auto& p : model_.parameters()) {
      if (fits) fits = take(loaded->weights, p.name, p.master);
      const auto names = moment_names(run_, p.spec);
      for (std::size_t i = 0; i < names.size() && fits; ++i) fits = take(loaded->optimizer, names[i], p.moments[i]);
    }
    // Of a run whose replicas did not step on their own, or of another map, there is none: its weights are what all agree on.
    at::Tensor anchor, momentum;
    if (outer_ && loaded->optimizer.tensors.contains("sync.anchor")) {
      anchor = torch::empty({std::ssize(outer_->anchor())});
      momentum = torch::empty({std::ssize(outer_->momentum())});
      if (fits) fits = take(loaded->optimizer, "sync.anchor", anchor);
      if (fits) fits = take(loaded->optimizer, "sync.momentum", momentum);
    }
    if (!fits) return tl::unexpected(fits.error());
    for (auto& [target, values] : copies) target.copy_(values);
    optimizer_.set_steps(optimizer_steps(loaded->optimizer.tensors.at(kOptimizerSteps)));
    const auto floats = [](const at::Tensor& t) { return std::vector<float>(t.const_data_ptr<float>(), t.const_data_ptr<float>() + t.numel()); };
    if (anchor.defined())
      outer_->set(floats(anchor), floats(momentum));
    else if (outer_)
      outer_->begin(flat_weights());
    begin_anew();
    return loaded->timeline;
  }

  SharedBytes state() const override {
    if (outer_) return outer_->state();
    const torch::NoGradGuard no_graph;
    Bytes bytes;
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
    const std::uint64_t expected = state_bytes_of(run_, place_.first_layer, place_.end_layer);
    if (state.size() != expected) return fail("a state of {} bytes, this stage's has {}", state.size(), expected);
    drop_step();
    for (auto& p : model_.parameters())
      for (const auto& tensor : trained_tensors(p)) tensor.copy_(take_floats(state, tensor));
    optimizer_.set_steps(*take_le<std::uint64_t>(state));
    begin_anew();
    return {};
  }

  std::vector<UnitDigest> weight_digests() const override {
    std::vector<UnitDigest> digests;
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
  // The same bytes whenever the microbatch is computed again, by whichever replica.
  Bytes encoded(const BoundaryCodec& codec, ErrorFeedback* feedback, const at::Tensor& tensor, StepId step, MicrobatchId m) const {
    const at::Tensor values = tensor.detach().to(at::kCPU, at::kFloat).contiguous();
    const std::span<const float> numbers(values.const_data_ptr<float>(), static_cast<std::size_t>(values.numel()));
    const std::uint64_t dither = dither_.bits((step.value << 24) ^ m.value);
    return feedback && run_.boundary.error_feedback ? feedback->encode(numbers, shape_, dither) : codec.encode(numbers, shape_, dither);
  }

  Result<at::Tensor> decoded(const BoundaryCodec& codec, const EncodedTensor& tensor) const {
    at::Tensor values = torch::empty({tokens_, static_cast<std::int64_t>(shape_.columns)});
    const Status status = codec.decode(tensor.values ? ByteView(*tensor.values) : ByteView(), shape_,
                                       {values.data_ptr<float>(), static_cast<std::size_t>(values.numel())});
    if (!status) return tl::unexpected(status.error());
    return values.to(model_.device());
  }

  std::vector<float> flat_weights() const {
    const torch::NoGradGuard no_graph;
    std::vector<float> weights;
    for (const auto& p : model_.parameters()) {
      const at::Tensor values = p.master.to(at::kCPU).contiguous();
      weights.insert(weights.end(), values.const_data_ptr<float>(), values.const_data_ptr<float>() + values.numel());
    }
    return weights;
  }

  void take_weights(std::span<const float> weights) {
    ByteView bytes{reinterpret_cast<const std::uint8_t*>(weights.data()), weights.size_bytes()};
    for (auto& p : model_.parameters()) p.master.copy_(take_floats(bytes, p.master));
    model_.settle();
  }

  // After the masters came from elsewhere.
  void begin_anew() {
    microbatches_ = 0;
    refresh_compute_copies(model_.parameters());
    forward_feedback_.clear();
    backward_feedback_.clear();
  }

  // What a replica needs to go on as another: weights, then what the optimizer keeps.
  static std::vector<at::Tensor> trained_tensors(const Parameter& p) {
    std::vector<at::Tensor> tensors{p.master};
    tensors.insert(tensors.end(), p.moments.begin(), p.moments.end());
    return tensors;
  }

  // The next values of these bytes, as a tensor like this one. REQUIRES: there are as many.
  static at::Tensor take_floats(ByteView& bytes, const at::Tensor& like) {
    at::Tensor values = torch::empty(like.sizes());
    std::memcpy(values.mutable_data_ptr(), bytes.data(), values.nbytes());
    bytes = bytes.subspan(values.nbytes());
    return values.to(like.device());
  }

  // auto: keep graphs while they fit into pipeline.activation_mb, by the size the first one was found to have.
  bool should_recompute() const {
    if (run_.pipeline.recompute != "auto") return recompute_;
    const auto graphs = static_cast<std::uint64_t>(std::ranges::count_if(kept_, [](const auto& k) { return k.second.output.defined(); }));
    return graph_bytes_ > 0 && (graphs + 1) * graph_bytes_ > (run_.pipeline.activation_mb << 20);
  }

  // Per token and layer, in numbers of the compute type: the inputs of the four matrices, q, k, v, the MLP's middle,
  // two norms in fp32, the attention's probabilities.
  void note_graph() {
    if (graph_bytes_ != 0) return;
    const auto& m = run_.model;
    const std::uint64_t numbers = 12ull * m.hidden + 4ull * m.mlp + std::uint64_t{m.heads} * std::min<std::uint64_t>(m.context, 1024);
    const std::uint64_t width = at::elementSize(arithmetic(run_));
    graph_bytes_ = static_cast<std::uint64_t>(tokens_) * (place_.end_layer - place_.first_layer) * numbers * width;
    if (model_.has_head()) graph_bytes_ += static_cast<std::uint64_t>(tokens_) * m.vocabulary * 4;
  }

  const RunConfig run_;
  const CheckpointPlace place_;
  const std::optional<TokenSource> source_;  // head stage only
  StageModel model_;
  Optimizer optimizer_;
  GradientSums sums_;
  const std::unique_ptr<BoundaryCodec> forward_codec_;
  const std::unique_ptr<BoundaryCodec> backward_codec_;
  ErrorFeedback forward_feedback_{*forward_codec_};
  ErrorFeedback backward_feedback_{*backward_codec_};
  const BoundaryShape shape_;
  const std::int64_t tokens_;
  const CounterRandom dither_;
  const bool recompute_;
  std::uint64_t graph_bytes_ = 0;
  std::map<MicrobatchId, Kept> kept_;
  std::unique_ptr<OuterOptimizer> outer_;  // replicas that step on their own
  std::uint32_t in_sum_ = 0;               // microbatches of the step
  std::uint32_t microbatches_ = 0;         // that the weights have seen since the last sync
};

int thread_count(const RunConfig& run) {
  if (run.run.deterministic) return 1;
  if (run.pipeline.threads > 0) return static_cast<int>(run.pipeline.threads);
  std::size_t workers = 0;
  for (const auto& stage : run.pipeline.stage) workers += stage.replicas;
  return static_cast<int>(std::max<std::size_t>(1, std::thread::hardware_concurrency() / workers));
}

}  // namespace

Result<std::unique_ptr<StageCompute>> make_torch_stage(const RunConfig& run, StageId stage, ReplicaId replica, const std::string& checkpoint_folder) {
  at::set_num_threads(thread_count(run));
  if (run.pipeline.device == "cuda" && !torch::cuda::is_available())
    return fail("pipeline.device is \"cuda\", but this libtorch finds no CUDA device; install a driver, use a CUDA build of "
                "libtorch, or set pipeline.device = \"cpu\"");
  std::optional<TokenSource> source;
  if (stage == StageId(0)) {
    auto opened = TokenSource::open(run);
    if (!opened) return tl::unexpected(opened.error());
    source.emplace(std::move(*opened));
  }
  return std::unique_ptr<StageCompute>(new TorchStage(run, stage, replica, checkpoint_folder, std::move(source)));
}

}  // namespace isthmus
