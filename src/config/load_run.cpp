#include "config/load_run.h"

#include "config/config_file.h"
#include "config/fleet_checks.h"
#include "config/layer_map.h"
#include "config/problem_list.h"
#include "config/read_run.h"
#include "config/resolve_run.h"
#include "config/run_checks.h"
#include "config/run_document.h"
#include "config/schema_check.h"

namespace isthmus {

tl::expected<RunConfig, std::vector<Problem>> parse_run(std::string_view text,
                                                        const std::string& file,
                                                        const std::vector<std::string>& overrides,
                                                        const FleetText* measured) {
  ProblemList problems(file);
  auto document = RunDocument::parse(text, overrides, problems);
  if (!document) return tl::unexpected(problems.take());
  if (measured) document->take_fleet(measured->text, measured->file, problems);
  check_against_schema(document->root(), run_schema(), problems);
  RunConfig run = read_run(*document, problems);
  check_run(*document, run, problems);
  check_fleet(*document, run, problems);
  if (!problems.empty()) return tl::unexpected(problems.take());
  resolve_values(run);
  // How many replicas the stages of a fleet have, and so how they agree, is its planner's; the layers, unless they are given.
  if (run.fleet.machine.empty())
    resolve_map(run, layer_map(run));
  else if (run.pipeline.layout != "auto")
    resolve_layers(run, layer_map(run));
  return run;
}

tl::expected<RunConfig, std::vector<Problem>> load_run(const std::string& path,
                                                       const std::vector<std::string>& overrides,
                                                       const std::string& measured) {
  const auto text = config_file_text(path, "a run file");
  if (!text) return tl::unexpected(std::vector<Problem>{text.error()});
  if (measured.empty()) return parse_run(*text, path, overrides);
  const auto fleet = config_file_text(measured, "a fleet.toml that a run left behind");
  if (!fleet) return tl::unexpected(std::vector<Problem>{fleet.error()});
  const FleetText given{*fleet, measured};
  return parse_run(*text, path, overrides, &given);
}

}  // namespace isthmus
