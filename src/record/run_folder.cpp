#include "record/run_folder.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>

#include "config/load_run.h"
#include "record/continuation.h"
#include "record/line_file.h"
#include "scheduler/planner/make_plan.h"

namespace isthmus::record {

namespace {

namespace fs = std::filesystem;

bool has_entries(const std::string& folder) {
  std::error_code error;
  return fs::exists(folder, error) && !fs::is_empty(folder, error);
}

// How run.toml and host.toml in the folder of a run begin.
constexpr const char* kWritten = "# Written by isthmus; a change here changes nothing in the run.\n";

// A person's own file of such a name stays.
Status check_no_own_file(const std::string& path) {
  std::error_code error;
  if (!fs::exists(path, error)) return {};
  const auto text = read_whole(path, kSummaryBytesMax);
  if (!text) return tl::unexpected(text.error());
  if (text->starts_with(kWritten)) return {};
  return fail("{} is a file that no run wrote, and a run writes one of that name; choose another --out", path);
}

// What only a run that has begun leaves behind.
std::vector<std::string> parts_of_run(const RunFolder& folder) {
  std::vector<std::string> parts;
  std::error_code error;
  for (const std::string& path :
       {folder.decision_log(), folder.metrics(), folder.events(), folder.summary(), folder.trace(), folder.fleet()})
    if (fs::exists(path, error)) parts.push_back(path);
  for (const auto& entry : fs::directory_iterator(folder.path, error)) {
    const WorkerHome home{entry.path().string()};
    if (entry.path().filename().string().starts_with("worker-") && has_entries(home.journal()))
      parts.push_back(home.journal());
  }
  // One that was to go on from another's checkpoint and never began is no run.
  if (has_entries(folder.checkpoints()) && (!parts.empty() || !fs::exists(folder.origin(), error)))
    parts.push_back(folder.checkpoints());
  return parts;
}

// Keeps the owner's key, and what a run did not write.
Status clear(const RunFolder& folder) {
  std::error_code error;
  auto parts = parts_of_run(folder);
  parts.insert(parts.end(), {folder.run_file(), folder.host_file(), folder.checkpoints()});
  for (const auto& part : parts) {
    fs::remove_all(part, error);
    if (error) return fail("cannot remove {}: {}", part, error.message());
  }
  return {};
}

// The metrics of a run that goes on from there.
Status cut_metrics(const RunFolder& folder, std::uint64_t version) {
  const auto kept = metrics_until(folder.metrics(), version);
  if (!kept) return tl::unexpected(kept.error());
  return write_whole(folder.metrics(), *kept);
}

}  // namespace

// A line of metrics.jsonl stays if its step was committed at or before the checkpoint.
Result<std::string> metrics_until(const std::string& path, std::uint64_t version) {
  if (!fs::exists(path)) return std::string();
  const auto text = read_whole(path, kLogBytesMax);
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
  const auto parts = parts_of_run(folder);
  if (parts.empty()) return {};
  return fail("{} already holds a run, or what is left of one ({}); {}clear it with --force, or choose another --out",
              folder.path, parts.front(), parts.front() == folder.decision_log() ? "continue it with --resume, " : "");
}

Result<RunStart> open_run_folder(const RunFolder& folder, const spec::RunConfig& run, Begin begin) {
  std::error_code error;
  // Before the folder is made.
  if (begin == Begin::kResumed && !fs::exists(folder.decision_log(), error))
    return fail("there is no run to resume in {}; leave --resume out to start one", folder.path);
  auto claim = FolderClaim::take(folder.path);
  if (!claim) return tl::unexpected(claim.error());
  RunStart start;
  start.claim = std::move(*claim);
  if (begin == Begin::kResumed) {
    const auto whole = whole_version(folder, static_cast<std::uint32_t>(run.pipeline.stage.size()));
    if (!whole) return tl::unexpected(whole.error());
    start.version = whole->version;
    auto changes = changes_of(folder, run, start.version);
    if (!changes) return tl::unexpected(changes.error());
    start.changes = std::move(*changes);
    if (!whole->lost.empty()) start.changes.push_back(whole->lost);
    if (start.version >= planner::make_plan(run).final_step().value)
      return fail("the checkpoint in {} is of step {}, the run has {} steps; raise run.steps to go on", folder.path,
                  start.version, run.run.steps);
    if (auto cut = cut_metrics(folder, std::min(start.version, run.run.steps)); !cut)
      return tl::unexpected(cut.error());
  } else {
    if (begin == Begin::kFresh)
      if (auto none = check_no_run(folder); !none) return tl::unexpected(none.error());
    for (const std::string& path : {folder.run_file(), folder.host_file()})
      if (auto ours = check_no_own_file(path); !ours) return tl::unexpected(ours.error());
    if (auto cleared = clear(folder); !cleared) return tl::unexpected(cleared.error());
  }
  fs::create_directories(folder.checkpoints(), error);
  if (error) return fail("cannot make the folder {}: {}", folder.checkpoints(), error.message());
  if (auto written = write_whole(folder.run_file(), kWritten + config::resolved_toml(run, folder.path)); !written)
    return tl::unexpected(written.error());
  if (auto written = write_whole(folder.host_file(), kWritten + config::host_toml(run)); !written)
    return tl::unexpected(written.error());
  return start;
}

}  // namespace isthmus::record
