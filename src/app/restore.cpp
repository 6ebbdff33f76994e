#include "app/restore.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <filesystem>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "config/load_run.h"
#include "record/line_file.h"
#include "stage/torch_module.h"

namespace isthmus::app {

namespace {

namespace fs = std::filesystem;

// Keys that say which tensors a model has and what they mean; U and E follow from the seed.
bool is_of_model(std::string_view difference) {
  const auto keys = {
      "model.", "run.seed:", "boundary.codec:", "boundary.rank:", "boundary.factored_layers:", "train.optimizer:"};
  return std::ranges::any_of(keys, [&](std::string_view key) { return difference.starts_with(key); });
}

std::string other_model(const spec::RunConfig& before, const spec::RunConfig& run) {
  std::string out;
  for (const auto& difference : config::differences(before, run))
    if (is_of_model(difference)) out += "\n  " + difference;
  if (out.empty()) return out;
  out = "it is another model; there / here:" + out;
  if (before.boundary.factored_layers != run.boundary.factored_layers)
    out += fmt::format(
        "\n  (boundary.factored_layers follows from the map where it is not given: set it to {}, with a last stage "
        "that "
        "begins with that layer or before)",
        before.boundary.factored_layers.value_or(0));
  return out;
}

Status write_checkpoints(const record::RunFolder& folder, const spec::RunConfig& run, const stage::Recut& stages,
                         const OwnedRun& from, const std::string& from_path) {
  const std::string beside = folder.checkpoints() + ".writing";
  std::error_code error;
  fs::remove_all(beside, error);
  auto written = stage::write_recut(stages, run, beside, from.version).and_then([&] {
    const nlohmann::json origin = {
        {"run", from_path}, {"step", from.version}, {"changes", stages.changes}, {"notes", stages.notes}};
    return record::write_whole(beside + "/" + fs::path(folder.origin()).filename().string(), origin.dump(2) + "\n");
  });
  if (!written) {
    fs::remove_all(beside, error);
    return written;
  }
  fs::rename(beside, folder.checkpoints(), error);
  if (error)
    return fail("cannot rename {} to {}: {}; choose an --out without checkpoints", beside, folder.checkpoints(),
                error.message());
  return {};
}

}  // namespace

Result<record::RunStart> restore(const record::RunFolder& folder, const spec::RunConfig& run, record::Begin begin,
                                 const RestoreOptions& options) {
  if (begin == record::Begin::kFresh)
    if (auto none = record::check_no_run(folder); !none) return tl::unexpected(none.error());
  std::error_code error;
  if (fs::equivalent(folder.path, options.from.path, error))
    return fail("--from is --out, {}; choose another --out for the new run", folder.path);
  const auto from = open_owned_run(options.from);
  if (!from) return tl::unexpected(from.error());
  std::string problems = other_model(from->run, run);
  if (from->version > run.run.steps)
    problems += fmt::format("{}its checkpoint is of step {}, the new run has {} steps; raise run.steps to go on",
                            problems.empty() ? "" : "\n", from->version, run.run.steps);
  const auto whole =
      store::read_whole_checkpoint(from->run, from->checkpoints, from->version, store::Keep::kWeightsAndOptimizer);
  if (!whole) problems += (problems.empty() ? "" : "\n") + whole.error().message;
  if (!problems.empty()) return fail("the run cannot go on from {}: {}", options.from.path, problems);

  const auto torch = stage::torch_module();
  if (!torch) return fail("--from: {}", torch.error().message);
  const stage::Recut stages = (*torch)->recut(from->run, *whole, run);
  if (!stages.changes.empty() && !options.allow_model_change) {
    std::string text;
    for (const auto& change : stages.changes) text += "\n  " + change;
    return fail(
        "on this map the model of {} is not the same any more:{}\nkeep the old cuts, to which others may be added, or "
        "say "
        "--allow-model-change",
        options.from.path, text);
  }
  for (const auto& change : stages.changes) spdlog::warn("{}", change);
  for (const auto& note : stages.notes) spdlog::warn("{}", note);
  for (const auto& difference : config::differences(from->run, run))
    if (!difference.starts_with("pipeline.") && !difference.starts_with("run.name"))
      spdlog::info("not as in {}: {}", options.from.path, difference);
  spdlog::info("from step {} of {}: {} stages become {}", from->version, options.from.path,
               from->run.pipeline.stage.size(), run.pipeline.stage.size());

  auto start = record::open_run_folder(folder, run, begin);
  if (!start) return start;
  if (auto written = write_checkpoints(folder, run, stages, *from, options.from.path); !written)
    return tl::unexpected(written.error());
  start->version = from->version;
  return start;
}

}  // namespace isthmus::app
