#include "app/run_folder.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "app/line_file.h"
#include "config/load_run.h"
#include "scheduler/make_plan.h"
#include "stage/checkpoint.h"

namespace isthmus {

namespace {

namespace fs = std::filesystem;

// Keys that a continuation may change: they alter how fast the run goes or how long, not what it computes.
bool may_differ(const std::string& difference) {
  for (const std::string key :
       {"run.steps", "run.name", "link.", "checkpoint.", "pipeline.threads", "pipeline.credits",
        "pipeline.schedule", "pipeline.activation_mb", "pipeline.recompute", "emulated.", "recovery."})
    if (difference.starts_with(key)) return true;
  return false;
}

Status same_run(const RunFolder& folder, const RunConfig& run) {
  const auto before = load_run(folder.run_file());
  if (!before)
    return fail("{} cannot be read: {}; restore it or start again with another --out",
                folder.run_file(), before.error().front().text());
  std::string different;
  for (const auto& difference : differences(*before, run))
    if (!may_differ(difference)) different += "\n  " + difference;
  if (before->pipeline.stage != run.pipeline.stage)
    return fail("the run in {} was another one; then / now:{}\nresume with the same run file; on another layer-to-stage map, or with other replicas, "
                "a new run goes on from this one: --out NEW --from {}", folder.path, different, folder.path);
  if (!different.empty())
    return fail("the run in {} was another one; then / now:{}\nresume with the same run file, or start "
                "a new run with another --out", folder.path, different);
  return {};
}

}  // namespace

// A line of metrics.jsonl stays if its step was committed at or before the checkpoint.
Result<std::string> metrics_until(const std::string& path, std::uint64_t version) {
  if (!fs::exists(path)) return std::string();
  const auto text = read_whole(path);
  if (!text) return tl::unexpected(text.error());
  std::istringstream lines(*text);
  std::string kept;
  for (std::string line; std::getline(lines, line);) {
    const auto json = nlohmann::json::parse(line, nullptr, false);
    if (!json.is_object() || !json.contains("step") || !json["step"].is_number_unsigned()) continue;
    const std::uint64_t step = json["step"];
    // The evaluation of version v belongs to step v + 1, which a continuation runs again.
    if (step < version || (step == version && !json.contains("validation_loss"))) kept += line + "\n";
  }
  return kept;
}

Status check_no_run(const RunFolder& folder) {
  std::error_code error;
  if (!fs::exists(folder.decision_log(), error)) return {};
  return fail("{} already holds a run; continue it with --resume or choose another --out", folder.path);
}

Result<RunStart> open_run_folder(const RunFolder& folder, const RunConfig& run, bool resume) {
  std::error_code error;
  const auto stages = static_cast<std::uint32_t>(run.pipeline.stage.size());
  RunStart start;
  const Status none = check_no_run(folder);
  if (resume) {
    if (none)
      return fail("there is no run to resume in {}; leave --resume out to start one", folder.path);
    if (auto same = same_run(folder, run); !same) return tl::unexpected(same.error());
    start.version = newest_common_version(folder.checkpoints(), stages).value_or(0);
    if (start.version >= make_plan(run).final_step().value)
      return fail("the checkpoint in {} is of step {}, the run has {} steps; raise run.steps to go on",
                  folder.path, start.version, run.run.steps);
    auto kept = metrics_until(folder.metrics(), std::min(start.version, run.run.steps));
    if (!kept) return tl::unexpected(kept.error());
    if (auto written = write_whole(folder.metrics(), *kept); !written)
      return tl::unexpected(written.error());
  } else if (!none) {
    return tl::unexpected(none.error());
  } else if (fs::exists(folder.origin(), error)) {
    // A run that was to go on from another one's checkpoint and never began.
    fs::remove_all(folder.checkpoints(), error);
  }
  for (const std::string& path : {folder.path, folder.keys(), folder.checkpoints()}) {
    fs::create_directories(path, error);
    if (error) return fail("cannot make the folder {}: {}", path, error.message());
  }
  fs::permissions(folder.keys(), fs::perms::owner_all, error);
  if (auto written = write_whole(folder.run_file(), resolved_toml(run)); !written)
    return tl::unexpected(written.error());
  return start;
}

}  // namespace isthmus
