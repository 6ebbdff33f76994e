#include "config/run_checks.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "spec/boundary_form.h"
#include "spec/layer_map.h"
#include "spec/learning_rate.h"
#include "spec/stage_costs.h"
#include "spec/step_limits.h"

namespace isthmus::config {

namespace {

constexpr double kGib = 1073741824;

class RunChecks {
 public:
  RunChecks(const RunDocument& document, const spec::RunConfig& run, ProblemList& problems)
      : document_(document), run_(run), problems_(problems) {}

  void check() {
    check_heads();
    check_sizes();
    check_steps();
    check_data();
    check_device();
    check_sync();
    check_stages();
    const bool map_is_sound = run_.pipeline.layout == "auto" ? check_auto_map() : check_map();
    check_visits(map_is_sound);
    check_times(map_is_sound);
    check_boundary(map_is_sound);
  }

 private:
  using Paths = std::initializer_list<std::string_view>;

  void add(const std::string& path, std::string what, std::string expected) {
    problems_.add(document_.place(path), path, std::move(what), std::move(expected));
  }
  bool sound(Paths paths) const { return problems_.sound(paths); }

  void check_heads() {
    if (!sound({"model.hidden", "model.heads"})) return;
    const auto& m = run_.model;
    if (m.hidden % m.heads != 0)
      add("model.heads", fmt::format("model.heads is {}", m.heads),
          fmt::format("a divisor of model.hidden = {}", m.hidden));
    else if (m.hidden / m.heads % 2 != 0)
      add("model.heads", fmt::format("model.heads = {} makes heads {} wide", m.heads, m.hidden / m.heads),
          "an even width: the rotary embedding turns pairs");
  }

  // Products of limits are far above what any number or machine holds.
  void check_sizes() {
    const auto& m = run_.model;
    const auto& t = run_.train;
    const double tokens = static_cast<double>(t.sequences_per_microbatch) * m.context;
    if (sound({"train.sequences_per_microbatch", "model.context", "model.hidden"})) {
      const double bytes = tokens * m.hidden * 4;
      if (bytes > 2 * kGib)
        add("train.sequences_per_microbatch",
            fmt::format("a microbatch of {} sequences x {} tokens x hidden {} has {:.1f} GiB",
                        t.sequences_per_microbatch, m.context, m.hidden, bytes / kGib),
            "at most 2 GiB: fewer sequences in more microbatches");
    }
    if (sound({"train.sequences_per_microbatch", "model.context", "model.vocabulary"})) {
      const double bytes = tokens * m.vocabulary * 4;
      if (bytes > 1024 * kGib)
        add("train.sequences_per_microbatch",
            fmt::format("the logits of {} sequences x {} tokens x vocabulary {} have {:.0f} GiB",
                        t.sequences_per_microbatch, m.context, m.vocabulary, bytes / kGib),
            "at most 1024 GiB: fewer sequences in more microbatches");
    }
    if (sound({"model.hidden", "model.vocabulary"})) {
      const double bytes = 4.0 * m.hidden * m.vocabulary;
      if (bytes > 1024 * kGib)
        add("model.vocabulary",
            fmt::format("a table of vocabulary {} x hidden {} has {:.0f} GiB", m.vocabulary, m.hidden, bytes / kGib),
            "at most 1024 GiB");
    }
  }

  void check_steps() {
    if (sound({"train.warmup_steps", "train.schedule_steps", "run.steps"}) &&
        run_.train.warmup_steps > spec::schedule_steps(run_))
      add("train.warmup_steps", fmt::format("train.warmup_steps is {}", run_.train.warmup_steps),
          fmt::format("at most {} = {}", run_.train.schedule_steps > 0 ? "train.schedule_steps" : "run.steps",
                      spec::schedule_steps(run_)));
    if (sound({"pipeline.threads", "run.deterministic"}) && run_.run.deterministic && run_.host.threads > 1)
      add("pipeline.threads", fmt::format("pipeline.threads is {}", run_.host.threads),
          "0 or 1 with run.deterministic: sums depend on the number of threads");
  }

  void check_data() {
    check_shard("data.train", run_.host.data.train, run_.data.train);
    check_shard("data.validation", run_.host.data.validation, run_.data.validation);
  }

  void check_shard(const std::string& path, const std::string& value, const spec::RunSpec::Shard& shard) {
    const std::string digest = path + "_digest", bytes = path + "_bytes";
    if (sound({digest, bytes}) && document_.has(digest) != document_.has(bytes))
      add(document_.has(digest) ? digest : bytes,
          fmt::format("{} without {}", document_.has(digest) ? digest : bytes, document_.has(digest) ? bytes : digest),
          "both, or neither: a shard is named by digest and size");
    if (!sound({path})) return;
    if (std::ranges::any_of(value, [](char c) { return static_cast<unsigned char>(c) < 32; }))
      add(path, fmt::format("{} holds a control character", path), "the path of a token shard");
    // Who has the name needs the file only to read from it.
    if (value.empty() && !shard.known() && sound({"pipeline.device", digest}) && !run_.emulated.devices)
      add(path, fmt::format("{} is {}", path, document_.has(path) ? "empty" : "missing"),
          "the path of a token shard, as `isthmus data pack` writes it");
  }

  void check_device() {
    if (sound({"pipeline.device"}) && !run_.emulated.devices && document_.has("emulated"))
      add("emulated", fmt::format("[emulated] with pipeline.device = \"{}\"", run_.host.device),
          "no such table, or pipeline.device = \"emulated\"");
  }

  void check_sync() {
    const auto& sync = run_.sync;
    if (!sound({"sync.mode"})) return;
    const auto only = [&](const char* path, bool legal, const char* expected) {
      if (!legal && document_.has(path))
        add(path,
            sync.mode.empty() ? fmt::format("{} without sync.mode", path)
                              : fmt::format("{} with sync.mode = \"{}\"", path, sync.mode),
            expected);
    };
    for (const char* path : {"sync.every", "sync.learning_rate", "sync.momentum", "sync.rule", "sync.warmup"})
      only(path, !sync.mode.empty() && sync.mode != "exact",
           "no such key, or sync.mode = \"diloco\", \"sparseloco\" or \"slices\"");
    only("sync.share", sync.mode == "slices", "no such key, or sync.mode = \"slices\"");
    for (const char* path : {"sync.error_feedback", "sync.residual"})
      only(path, sync.mode == "sparseloco", "no such key, or sync.mode = \"sparseloco\"");
    if (run_.rehearsal.liar == 0 && document_.has("rehearsal.lie"))
      add("rehearsal.lie", "rehearsal.lie without rehearsal.liar",
          "the worker that tells it, counted from 1, or no such key");
    if (run_.run.deterministic && !sync.mode.empty() && sync.mode != "exact" && sound({"run.deterministic"}))
      add("sync.mode", fmt::format("sync.mode = \"{}\" with run.deterministic", sync.mode),
          "\"exact\": steps that replicas take on their own depend on who was given which microbatch");
  }

  void check_stages() {
    for (std::size_t i = 0; i < run_.pipeline.stage.size(); ++i) {
      const std::string path = fmt::format("pipeline.stage[{}]", i);
      const auto& stage = run_.pipeline.stage[i];
      if (sound({path + ".layers"}) && stage.first_layer >= stage.end_layer)
        add(path + ".layers", fmt::format("{}.layers is \"{}:{}\"", path, stage.first_layer, stage.end_layer),
            "\"first:end\" with first below end");
    }
  }

  // Whether the map can be made.
  bool check_auto_map() {
    if (document_.has("pipeline.stage"))
      add("pipeline.stage", "[[pipeline.stage]] with pipeline.layout = \"auto\"",
          "no such tables, or pipeline.layout = \"explicit\"");
    const auto stages = run_.pipeline.stages;
    if (!sound({"pipeline.stages", "model.layers"})) return false;
    // The planner makes the map, and the number of stages if there is none.
    if (has_fleet() && stages <= run_.model.layers) return false;
    if (stages >= 1 && stages <= run_.model.layers) return true;
    add("pipeline.stages",
        document_.has("pipeline.stages") ? fmt::format("pipeline.stages is {}", stages) : "pipeline.stages is missing",
        fmt::format("1 to model.layers = {}, with pipeline.layout = \"auto\"", run_.model.layers));
    return false;
  }

  // Whether the map is whole: every layer in one stage, in order.
  bool check_map() {
    const auto& map = run_.pipeline.stage;
    if (!sound({"pipeline.layout", "pipeline.stage"})) return false;
    if (map.empty()) {
      add("pipeline.stage", "there is no [[pipeline.stage]]",
          "one per stage, or pipeline.layout = \"auto\" with pipeline.stages = N");
      return false;
    }
    if (document_.has("pipeline.stages") && sound({"pipeline.stages"}) && run_.pipeline.stages != map.size())
      add("pipeline.stages", fmt::format("pipeline.stages is {}", run_.pipeline.stages),
          fmt::format("{}, the number of [[pipeline.stage]] tables, or pipeline.layout = \"auto\"", map.size()));
    if (sound({"pipeline.replicas"}) && run_.pipeline.replicas != 1)
      add("pipeline.replicas", fmt::format("pipeline.replicas is {}", run_.pipeline.replicas),
          "replicas in each [[pipeline.stage]] table, or pipeline.layout = \"auto\"");
    for (std::size_t i = 0; i < map.size(); ++i)
      if (!sound({fmt::format("pipeline.stage[{}].layers", i)})) return false;
    return check_cover();
  }

  bool check_cover() {
    const auto& map = run_.pipeline.stage;
    bool whole = true;
    std::uint32_t next = 0;
    for (std::size_t i = 0; i < map.size(); ++i) {
      if (map[i].first_layer != next) {
        add(fmt::format("pipeline.stage[{}].layers", i),
            map[i].first_layer > next
                ? fmt::format("layers {}:{} are in no stage", next, map[i].first_layer)
                : fmt::format("stage {} begins with layer {}, which an earlier one has", i, map[i].first_layer),
            fmt::format("stage {} to begin with layer {}", i, next));
        whole = false;
      }
      next = map[i].end_layer;
    }
    if (next != run_.model.layers && sound({"model.layers"})) {
      add(fmt::format("pipeline.stage[{}].layers", map.size() - 1), fmt::format("the last stage ends with {}", next),
          fmt::format("model.layers = {}", run_.model.layers));
      whole = false;
    }
    return whole;
  }

  // Or should have one: what is wrong with it is said elsewhere.
  bool has_fleet() const { return document_.has("fleet") || !sound({"fleet"}); }

  // Of a run whose map the planner of its fleet will make: how many stages that can have.
  struct StageCounts {
    std::uint32_t least, most;
  };
  std::optional<StageCounts> planned_counts() const {
    if (run_.pipeline.layout != "auto" || !has_fleet() ||
        !sound({"pipeline.layout", "pipeline.stages", "model.layers"}) || run_.pipeline.stages > run_.model.layers)
      return std::nullopt;
    if (run_.pipeline.stages > 0) return StageCounts{run_.pipeline.stages, run_.pipeline.stages};
    std::uint64_t machines = 0;
    for (std::size_t t = 0; t < run_.fleet.machine.size(); ++t)
      machines += sound({fmt::format("fleet.machine[{}].count", t)}) ? run_.fleet.machine[t].count : spec::kStagesMax;
    if (machines == 0) machines = spec::kStagesMax;
    return StageCounts{1, static_cast<std::uint32_t>(
                              std::min<std::uint64_t>(machines, std::min(run_.model.layers, spec::kStagesMax)))};
  }

  void check_visits(bool map_is_sound) {
    if (!sound({"train.microbatches_per_step"})) return;
    const auto planned = planned_counts();
    if (!map_is_sound && !planned) return;
    const std::uint64_t stages = planned ? planned->least : spec::layer_map(run_).size(),
                        visits = stages * run_.train.microbatches_per_step;
    if (visits > spec::kVisitsMax)
      add("train.microbatches_per_step",
          fmt::format("{} microbatches through {} stages are {} visits a step", run_.train.microbatches_per_step,
                      stages, visits),
          fmt::format("at most {}: fewer, larger microbatches", spec::kVisitsMax));
  }

  // Of what is no machine of a fleet.
  void check_times(bool map_is_sound) {
    const auto expected = fmt::format("at most {:.0e} s", spec::kStepSecondsMax);
    if (sound({"link.bandwidth_mbps", "link.loss", "train.sequences_per_microbatch", "train.microbatches_per_step",
               "model.context", "model.hidden", "emulated"}))
      if (const double seconds = spec::step_bits_most(run_) / (run_.link.bandwidth_mbps * 1e6);
          seconds > spec::kStepSecondsMax)
        add("link.bandwidth_mbps",
            fmt::format("link.bandwidth_mbps is {}: what a step may send takes {:.2g} s", run_.link.bandwidth_mbps,
                        seconds),
            expected);
    const auto& e = run_.emulated;
    if (sound({"emulated.slow_step", "emulated.slow_after"}) && e.slow_after > 0 && e.slow_step == 0)
      add("emulated.slow_after", fmt::format("emulated.slow_after is {}, of no step", e.slow_after),
          "emulated.slow_step beside it");
    if (!map_is_sound || !run_.emulated.devices ||
        !sound({"emulated.forward_ms", "emulated.input_gradient_ms", "emulated.weight_gradient_ms",
                "emulated.slow_factor", "train.microbatches_per_step"}))
      return;
    const double seconds = (e.forward_ms + e.input_gradient_ms + e.weight_gradient_ms) * 1e-3 * e.slow_factor *
                           (run_.train.microbatches_per_step + static_cast<double>(spec::layer_map(run_).size()));
    if (seconds > spec::kStepSecondsMax)
      add("emulated",
          fmt::format("an emulated stage takes {:.2g} s over a step of {} microbatches", seconds,
                      run_.train.microbatches_per_step),
          expected);
  }

  void check_skipping(const spec::BoundaryForm& form, bool map_is_sound) {
    const double share = run_.pipeline.skip_share;
    for (const auto& [path, asked] : {std::pair("pipeline.skip_share", share > 0),
                                      std::pair("recovery.skip_after_s", run_.recovery.skip_after_s.value_or(0) > 0)})
      if (asked && !form.shared())
        add(path, fmt::format("{} with boundary.codec = \"{}\"", path, run_.boundary.codec),
            "0: each boundary has an encoding of its own, so no stage can be passed by");
    if (share == 0 || !sound({"pipeline.skip_share", "train.microbatches_per_step"})) return;
    double most = 0;
    if (map_is_sound) {
      most = spec::skip_share_max(spec::layer_map(run_).size(), run_.train.microbatches_per_step);
    } else if (auto planned = planned_counts()) {
      // The tail may be no longer than what is not factored, nor shorter.
      const auto& factored = run_.boundary.factored_layers;
      if (planned->least < planned->most && form.constrained && factored && sound({"boundary.factored_layers"}))
        planned->most = std::min(planned->most, *factored + 1);
      for (std::uint32_t stages = planned->least; stages <= planned->most; ++stages)
        most = std::max(most, spec::skip_share_max(stages, run_.train.microbatches_per_step));
    } else {
      return;
    }
    if (share > most + 1e-9)
      add("pipeline.skip_share", fmt::format("pipeline.skip_share is {}", share),
          fmt::format("at most {:.3f} with these stages and microbatches: neither end is skipped, no two neighbours, a "
                      "third of a path at most, and every "
                      "stage sees half of the microbatches",
                      most));
  }

  void check_boundary(bool map_is_sound) {
    const auto& b = run_.boundary;
    if (!sound({"boundary.codec"})) return;
    const spec::BoundaryForm form = spec::boundary_form(b.codec);
    const auto only = [&](const char* path, bool legal, const char* codecs) {
      if (!legal && document_.has(path))
        add(path, fmt::format("{} with boundary.codec = \"{}\"", path, b.codec),
            fmt::format("no such key, or {}", codecs));
    };
    only("boundary.rank", form.narrow, "a codec other than identity");
    only("boundary.factored_layers", form.constrained, "one of the codecs subspace, narrow, projected");
    only("boundary.error_feedback", form.sparse, "boundary.codec = \"top_k\"");
    if (b.error_feedback && form.sparse && run_.run.deterministic)
      add("boundary.error_feedback", "boundary.error_feedback with run.deterministic",
          "one of them: what is fed back depends on the order of the microbatches");
    check_skipping(form, map_is_sound);
    if (!form.narrow) return;
    if (sound({"boundary.rank", "model.hidden"}) && b.rank > run_.model.hidden)
      add("boundary.rank", fmt::format("boundary.rank is {}", b.rank),
          fmt::format("at most model.hidden = {}", run_.model.hidden));
    if (const auto planned = planned_counts();
        planned && b.factored_layers && form.constrained && sound({"boundary.factored_layers"}) &&
        (*b.factored_layers + 1 < planned->least || *b.factored_layers > run_.model.layers))
      add("boundary.factored_layers", fmt::format("boundary.factored_layers is {}", *b.factored_layers),
          planned->least == 1
              ? fmt::format("at most model.layers = {}", run_.model.layers)
              : fmt::format("{} to {}: every layer before the last boundary writes through the subspace",
                            planned->least - 1, run_.model.layers));
    if (!map_is_sound || !b.factored_layers || !form.constrained ||
        !sound({"boundary.factored_layers", "model.layers", "model.hidden", "model.vocabulary"}))
      return;
    const auto tail = spec::layer_map(run_).back().first_layer;
    if (*b.factored_layers < tail || *b.factored_layers > run_.model.layers)
      add("boundary.factored_layers", fmt::format("boundary.factored_layers is {}", *b.factored_layers),
          fmt::format("{} to {}: every layer before the last boundary writes through the subspace", tail,
                      run_.model.layers));
  }

  const RunDocument& document_;
  const spec::RunConfig& run_;
  ProblemList& problems_;
};

}  // namespace

void check_run(const RunDocument& document, const spec::RunConfig& run, ProblemList& problems) {
  RunChecks(document, run, problems).check();
}

}  // namespace isthmus::config
