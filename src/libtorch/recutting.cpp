#include "libtorch/recutting.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <set>
#include <utility>

#include "model/parameter.h"
#include "spec/boundary_form.h"
#include "spec/stage_tensors.h"

namespace isthmus::libtorch {

namespace {

using Kind = spec::TensorSpec::Kind;
using Border = spec::BoundaryForm::Border;

class Recutting {
 public:
  Recutting(const spec::RunConfig& before, const store::WholeCheckpoint& checkpoint, const spec::RunConfig& run)
      : before_(before), checkpoint_(checkpoint), run_(run), form_(spec::boundary_form(run.boundary.codec)) {}

  stage::Recut all() && {
    for (const auto& stage : run_.pipeline.stage) add(stage);
    std::set<std::string> left;
    for (const auto& [name, tensor] : checkpoint_.weights)
      if (!used_.contains(name)) left.insert(name.substr(0, name.rfind('.')));
    for (const auto& unit : left)
      out_.changes.push_back(fmt::format("{} has no place: the model is not cut there any more", unit));
    if (cuts(before_) != cuts(run_) && (form_.sparse || (form_.border == Border::kFixed && !form_.constrained)))
      out_.notes.push_back(fmt::format("boundary.codec = \"{}\" loses something at every cut, and the cuts are others",
                                       run_.boundary.codec));
    return std::move(out_);
  }

 private:
  static std::vector<std::uint32_t> cuts(const spec::RunConfig& run) {
    std::vector<std::uint32_t> firsts;
    for (const auto& stage : run.pipeline.stage) firsts.push_back(stage.first_layer);
    return firsts;
  }

  void add(const spec::RunConfig::Stage& stage) {
    stage::Recut::Stage& to = out_.stages.emplace_back();
    std::vector<model::Parameter> initial;  // made when they are needed
    for (const auto& spec : spec::stage_tensors(run_, stage.first_layer, stage.end_layer)) {
      if (checkpoint_.weights.contains(spec.name())) {
        take(spec, spec, to);
      } else if (const auto old = inherited(spec, stage.first_layer)) {
        take(*old, spec, to);
      } else {
        if (initial.empty()) initial = model::make_parameters(run_, stage.first_layer, stage.end_layer);
        begin(*std::ranges::find(initial, spec.name(), &model::Parameter::name), to);
      }
    }
    add_steps(stage, to);
  }

  // The tensor of the old stage whose layers this one continues, if a copy of it leaves the model as it was.
  std::optional<spec::TensorSpec> inherited(const spec::TensorSpec& spec, std::uint32_t first_layer) {
    const auto is_before = [&](const spec::RunConfig::Stage& s) { return first_layer < s.end_layer; };
    const std::uint32_t old_first = std::ranges::find_if(before_.pipeline.stage, is_before)->first_layer;
    spec::TensorSpec old = spec;
    if (spec.unit.starts_with("token_path.")) {
      if (!form_.fixed_base) return std::nullopt;
      old.unit = fmt::format("token_path.{}", old_first);
    } else if (spec.kind == Kind::kBasis) {
      old.unit = fmt::format("basis.{}", old_first);
    }
    if (old.unit == spec.unit || !checkpoint_.weights.contains(old.name())) return std::nullopt;
    note(fmt::format("{} begins as a copy of {}", spec.unit, old.unit));
    return old;
  }

  void take(const spec::TensorSpec& from, const spec::TensorSpec& spec, stage::Recut::Stage& to) {
    used_.insert(from.name());
    const auto& weights = checkpoint_.weights.at(from.name());
    to.weights.push_back({spec.name(), weights.shape, weights.bytes});
    const auto old = store::moment_names(run_, from), names = store::moment_names(run_, spec);
    for (std::size_t i = 0; i < names.size(); ++i) {
      const auto& moment = checkpoint_.moments.at(old[i]);
      to.optimizer.push_back({names[i], moment.shape, moment.bytes});
    }
  }

  // What no old stage has.
  void begin(const model::Parameter& p, stage::Recut::Stage& to) {
    const bool is_path = p.spec.unit.starts_with("token_path.");
    // What the path ends with; its other tensors need numbers to learn from.
    const bool is_end = is_path && p.spec.part == (run_.model.token_path == "table" ? "table" : "out");
    Bytes& bytes = out_.made.emplace_back(p.master.nbytes());
    if (!is_end) {
      const at::Tensor values = p.master.to(at::kCPU).contiguous();
      std::memcpy(bytes.data(), values.const_data_ptr(), bytes.size());
    }
    to.weights.push_back({p.name, p.spec.shape(), bytes});
    for (const auto& name : store::moment_names(run_, p.spec))
      to.optimizer.push_back({name, p.spec.shape(), out_.made.emplace_back(bytes.size())});
    if (is_path)
      note(fmt::format("{} is new and adds nothing at first", p.spec.unit));
    else
      out_.changes.push_back(fmt::format("{} is new: the model was not cut there", p.spec.unit));
  }

  void add_steps(const spec::RunConfig::Stage& stage, stage::Recut::Stage& to) {
    std::uint64_t fewest = ~std::uint64_t{0}, most = 0;
    for (std::size_t s = 0; s < before_.pipeline.stage.size(); ++s) {
      const auto& old = before_.pipeline.stage[s];
      if (old.first_layer >= stage.end_layer || stage.first_layer >= old.end_layer) continue;
      fewest = std::min(fewest, checkpoint_.steps[s]);
      most = std::max(most, checkpoint_.steps[s]);
    }
    if (fewest != most)
      note(fmt::format("layers {}:{} have taken {} to {} steps of the optimizer, which goes on from {}",
                       stage.first_layer, stage.end_layer, fewest, most, most));
    const auto numbers = store::optimizer_steps(most);
    Bytes& bytes = out_.made.emplace_back(sizeof numbers);
    std::memcpy(bytes.data(), numbers.data(), bytes.size());
    to.optimizer.push_back({store::kOptimizerSteps, {static_cast<std::int64_t>(numbers.size())}, bytes});
  }

  // Once for a unit.
  void note(std::string text) {
    if (std::ranges::find(out_.notes, text) == out_.notes.end()) out_.notes.push_back(std::move(text));
  }

  const spec::RunConfig& before_;
  const store::WholeCheckpoint& checkpoint_;
  const spec::RunConfig& run_;
  const spec::BoundaryForm form_;
  std::set<std::string> used_;
  stage::Recut out_;
};

}  // namespace

stage::Recut recut(const spec::RunConfig& before, const store::WholeCheckpoint& checkpoint,
                   const spec::RunConfig& run) {
  return Recutting(before, checkpoint, run).all();
}

}  // namespace isthmus::libtorch
