#include "record/continuation.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <type_traits>
#include <variant>

#include "config/load_run.h"
#include "record/decision_log.h"
#include "record/line_file.h"
#include "record/signed_lines.h"
#include "spec/learning_rate.h"
#include "store/checkpoint.h"

namespace isthmus::record {

namespace {

// Keys that a continuation may change: they alter how fast the run goes or how long, not what it computes. The schedule
// is among them because its change is asked for by name.
bool may_differ(const std::string& difference) {
  for (const std::string key : {"run.steps", "run.name", "train.schedule_steps", "link.", "checkpoint.",
                                "pipeline.credits", "pipeline.schedule", "emulated.", "recovery."})
    if (difference.starts_with(key)) return true;
  return false;
}

// Of a run that has more steps than before or another schedule; empty: its learning rates are what they were.
std::string schedule_change(const spec::RunSpec& before, const spec::RunSpec& run, StepId next) {
  const auto was = spec::schedule_steps(before), is = spec::schedule_steps(run);
  if (was != is)
    return fmt::format("the learning rate's schedule has {} steps, was {}: step {} has {:.3g}, would have had {:.3g}",
                       is, was, next, spec::learning_rate(run, next), spec::learning_rate(before, next));
  if (run.run.steps <= is) return "";
  spec::RunSpec longer = run;
  longer.train.schedule_steps = run.run.steps;
  return fmt::format(
      "the learning rate's schedule still ends with step {}: step {} has {:.3g}; with train.schedule_steps = {} it "
      "would "
      "have {:.3g}",
      is, next, spec::learning_rate(run, next), run.run.steps, spec::learning_rate(longer, next));
}

// By stage, the checkpoints that the log says were written, less those of a past that was given up.
Result<std::map<std::uint32_t, std::set<std::uint64_t>>> written_checkpoints(const RunFolder& folder,
                                                                             std::uint32_t stages) {
  const auto text = read_whole(folder.decision_log(), kLogBytesMax);
  if (!text) return tl::unexpected(text.error());
  const auto lines = check_lines(*text, Signatures::kLast);
  if (!lines)
    return fail("{}:{}: this line {}; restore the file or start again with another --out", folder.decision_log(),
                lines.error().line, lines.error().what);
  std::map<std::uint32_t, std::set<std::uint64_t>> written;
  const auto back_to = [&](std::uint64_t version) {
    for (auto& [stage, versions] : written) versions.erase(versions.upper_bound(version), versions.end());
  };
  for (const auto& line : lines->texts) {
    const auto record = decode_record(line);
    if (!record) return fail("{}: {}", folder.decision_log(), record.error().message);
    if (const auto* checkpoint = std::get_if<coordinator::CheckpointRecord>(&*record))
      written[checkpoint->stage.value].insert(checkpoint->version);
    if (const auto* rollback = std::get_if<coordinator::RollbackRecord>(&*record)) back_to(rollback->version);
    if (const auto* init = std::get_if<coordinator::InitRecord>(&*record)) {
      back_to(init->version);
      for (std::uint32_t stage = 0; stage < stages && init->version > 0; ++stage) written[stage].insert(init->version);
    }
  }
  std::erase_if(written, [](const auto& stage) { return stage.second.empty(); });
  return written;
}

}  // namespace

Result<std::vector<std::string>> changes_of(const RunFolder& folder, const spec::RunSpec& run, std::uint64_t version) {
  const auto before = config::load_run(folder.run_file());
  if (!before)
    return fail("{} cannot be read: {}; restore it or start again with another --out", folder.run_file(),
                before.error().front().text());
  std::vector<std::string> changes;
  std::string different;
  for (const auto& difference : config::differences(*before, run))
    if (!may_differ(difference))
      different += "\n  " + difference;
    else if (!difference.starts_with("train.schedule_steps"))
      changes.push_back("not as before: " + difference);
  const std::string what = fmt::format("the run in {} was another one; then / now:{}\n", folder.path, different);
  if (before->pipeline.stage != run.pipeline.stage)
    return fail(
        "{}resume with the same run file; on another layer-to-stage map, or with other replicas, a new run goes on "
        "from "
        "this one: --out NEW --from {}",
        what, folder.path);
  if (!different.empty())
    return fail("{}resume with the same run file and data, or start a new run with another --out", what);
  if (auto change = schedule_change(*before, run, StepId(version + 1)); !change.empty())
    changes.push_back(std::move(change));
  return changes;
}

Result<WholeVersion> whole_version(const RunFolder& folder, std::uint32_t stages) {
  const auto written = written_checkpoints(folder, stages);
  if (!written) return tl::unexpected(written.error());
  const auto common = store::newest_common_version(folder.checkpoints(), stages);
  std::string there, lost;
  for (std::uint32_t stage = 0; stage < stages; ++stage) {
    const auto versions = store::checkpoint_versions(folder.checkpoints(), StageId(stage));
    const auto had = written->find(stage);
    if (had != written->end()) {
      const std::uint64_t newest = *had->second.rbegin();
      if (versions.empty())
        return fail(
            "stage {} has no checkpoint in {}, though the run wrote one of step {}; put it back, or begin again with "
            "another --out",
            stage, folder.checkpoints(), newest);
      if (std::ranges::find(versions, newest) == versions.end())
        lost += fmt::format("{} of step {} of stage {}", lost.empty() ? "" : ",", newest, stage);
    }
    there += fmt::format("\n  stage {}: {}", stage,
                         versions.empty() ? "none" : fmt::format("{}", fmt::join(versions, ", ")));
  }
  if (common)
    return WholeVersion{*common, lost.empty() ? ""
                                              : fmt::format("the run wrote checkpoints that are not in {} any more:{}; "
                                                            "it goes on from step {}, the newest of every stage",
                                                            folder.checkpoints(), lost, *common)};
  // A run that ended while its stages wrote their first one begins again.
  if (written->size() < stages) return WholeVersion{};
  return fail("in {} is no checkpoint that every stage has; steps:{}\nput one back, or begin again with another --out",
              folder.checkpoints(), there);
}

}  // namespace isthmus::record
