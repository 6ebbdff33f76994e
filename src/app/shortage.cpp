#include "app/shortage.h"

#include <fmt/format.h>

#include "base/free_space.h"
#include "stage/available_memory.h"

namespace isthmus::app {

namespace {

constexpr double kBytesPerGiB = 1024.0 * 1024 * 1024;

}  // namespace

std::string shortage(const spec::RunConfig& run, const protocol::Plan& plan, StageId stage, const std::string& folder) {
  const auto& wanted = plan.stages[stage.value];
  const double has = static_cast<double>(stage::available_memory()), needs = static_cast<double>(wanted.memory_bytes);
  if (run.host.device == "cpu" && !run.emulated.devices && has > 0 && needs > has)
    return fmt::format(
        "stage {} needs {:.1f} GiB of memory, and {:.1f} GiB are free here; end other programs, lower "
        "pipeline.activation_mb, or ask for another stage with --stage",
        stage, needs / kBytesPerGiB, has / kBytesPerGiB);
  // One more is written before the oldest goes.
  const double disk = static_cast<double>(wanted.state_bytes) * (run.checkpoint.keep + 1);
  const double free = free_space(folder);
  if (free >= 0 && disk > free)
    return fmt::format(
        "stage {} needs {:.1f} GiB of disk for its checkpoints, and {:.1f} GiB are free in {}; make room, or choose "
        "another folder with --checkpoints",
        stage, disk / kBytesPerGiB, free / kBytesPerGiB, folder);
  return {};
}

}  // namespace isthmus::app
