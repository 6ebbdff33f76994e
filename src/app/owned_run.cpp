#include "app/owned_run.h"

#include <filesystem>

#include "app/owner_key.h"
#include "app/run_vault.h"
#include "config/load_run.h"
#include "record/run_folder.h"
#include "scheduler/planner/make_plan.h"
#include "store/whole_checkpoint.h"

namespace isthmus::app {

Result<OwnedRun> open_owned_run(const OwnedRunOptions& options) {
  const record::RunFolder folder{options.path};
  std::error_code error;
  if (!std::filesystem::exists(folder.run_file(), error))
    return fail("there is no run in {}: it has no run.toml; expected a folder that `isthmus train --out` made",
                options.path);
  auto run = config::load_run(folder.run_file());
  if (!run) return fail("{} cannot be read: {}; restore it", folder.run_file(), run.error().front().text());
  if (auto owner = check_owner(folder, options.owner_key); !owner) return tl::unexpected(owner.error());
  if (run->emulated.devices)
    return fail(
        "the run in {} has emulated devices, which have no weights; expected one with pipeline.device = \"cpu\" or "
        "\"cuda\"",
        options.path);
  if (auto brought = bring_checkpoints(folder, *run, planner::make_plan(*run), options.owner_key, options.step);
      !brought)
    return tl::unexpected(brought.error());
  const auto version =
      store::choose_version(folder.checkpoints(), static_cast<std::uint32_t>(run->pipeline.stage.size()), options.step);
  if (!version) return tl::unexpected(version.error());
  return OwnedRun{std::move(*run), folder.checkpoints(), *version};
}

}  // namespace isthmus::app
