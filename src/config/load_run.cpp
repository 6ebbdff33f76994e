#include "config/load_run.h"

#include <algorithm>

#include "config/boundary_form.h"
#include "config/config_file.h"
#include "config/layer_map.h"
#include "config/problem_list.h"
#include "config/read_run.h"
#include "config/run_checks.h"
#include "config/run_document.h"
#include "config/schema_check.h"

namespace isthmus {

namespace {

// What the run file leaves to the loader. `run` has passed every check.
void resolve(RunConfig& run) {
  run.pipeline.stage = layer_map(run);
  run.pipeline.layout = "explicit";
  run.pipeline.replicas = 1;
  run.pipeline.stages = static_cast<std::uint32_t>(run.pipeline.stage.size());
  if (run.model.mlp == 0) run.model.mlp = ((run.model.hidden * 8 + 2) / 3 + 31) / 32 * 32;
  if (run.boundary.rank == 0) run.boundary.rank = std::max(1u, run.model.hidden * 4 / 17);
  if (!run.recovery.skip_after_s) run.recovery.skip_after_s = run.run.deterministic || !boundary_form(run.boundary.codec).shared() ? 0 : 20;
  if (run.boundary.gradient_values.empty()) run.boundary.gradient_values = run.boundary.values;
  if (!boundary_form(run.boundary.codec).constrained)
    run.boundary.factored_layers = 0;
  else if (!run.boundary.factored_layers)
    run.boundary.factored_layers = run.pipeline.stage.back().first_layer;
}

}  // namespace

tl::expected<RunConfig, std::vector<Problem>> parse_run(std::string_view text,
                                                        const std::string& file,
                                                        const std::vector<std::string>& overrides) {
  ProblemList problems(file);
  const auto document = RunDocument::parse(text, overrides, problems);
  if (!document) return tl::unexpected(problems.take());
  check_against_schema(document->root(), run_schema(), problems);
  RunConfig run = read_run(*document, problems);
  check_run(*document, run, problems);
  if (!problems.empty()) return tl::unexpected(problems.take());
  resolve(run);
  return run;
}

tl::expected<RunConfig, std::vector<Problem>> load_run(const std::string& path,
                                                       const std::vector<std::string>& overrides) {
  const auto text = config_file_text(path, "a run file");
  if (!text) return tl::unexpected(std::vector<Problem>{text.error()});
  return parse_run(*text, path, overrides);
}

}  // namespace isthmus
