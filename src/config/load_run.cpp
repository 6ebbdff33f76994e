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

tl::expected<RunConfig, std::vector<Problem>> parse_run(const RunSource& source) {
  return parse_run(source.text, source.file, source.overrides, source.measured ? &*source.measured : nullptr);
}

tl::expected<RunSource, std::vector<Problem>> run_source(const std::string& path, const std::vector<std::string>& overrides, const std::string& measured) {
  const auto text = config_file_text(path, "a run file");
  std::vector<Problem> problems;
  if (!text) problems.push_back(text.error());
  RunSource source{text.value_or(""), path, overrides, {}};
  if (!measured.empty()) {
    const auto fleet = config_file_text(measured, "a fleet.toml that a run left behind");
    if (!fleet) problems.push_back(fleet.error());
    source.measured = FleetText{fleet.value_or(""), measured};
  }
  if (!problems.empty()) return tl::unexpected(problems);
  return source;
}

tl::expected<RunConfig, std::vector<Problem>> load_run(const std::string& path, const std::vector<std::string>& overrides, const std::string& measured) {
  const auto source = run_source(path, overrides, measured);
  if (!source) return tl::unexpected(source.error());
  return parse_run(*source);
}

namespace {

// What is found in the texts of a run that were parsed before.
template <class Find>
std::vector<Problem> problems_in(const RunSource& source, const Find& find) {
  ProblemList problems(source.file);
  auto document = RunDocument::parse(source.text, source.overrides, problems);
  if (!document) return problems.take();
  if (source.measured) document->take_fleet(source.measured->text, source.measured->file, problems);
  find(*document, problems);
  return problems.take();
}

}  // namespace

std::vector<Problem> problems_at(const RunSource& source, const std::vector<KeyProblem>& found) {
  return problems_in(source, [&](const RunDocument& document, ProblemList& problems) {
    for (const auto& problem : found) problems.add(document.place(problem.path), problem.what, problem.expected);
  });
}

std::vector<Problem> problems_of_planned(const RunSource& source, const RunConfig& planned) {
  return problems_in(source, [&](const RunDocument& document, ProblemList& problems) { check_run(document, planned, problems); });
}

}  // namespace isthmus
