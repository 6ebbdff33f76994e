#include "config/load_run.h"

#include <filesystem>
#include <utility>

#include "config/config_file.h"
#include "config/fleet_checks.h"
#include "config/problem_list.h"
#include "config/read_run.h"
#include "config/resolve_run.h"
#include "config/run_checks.h"
#include "config/run_document.h"
#include "config/schema_check.h"
#include "spec/layer_map.h"

namespace isthmus::config {

namespace {

// The files as one tree; nothing if the run file is no TOML.
std::optional<RunDocument> document_of(const RunSource& source, ProblemList& problems) {
  auto document = RunDocument::parse(source.text, source.overrides, problems);
  if (!document) return document;
  if (source.host) document->take_host(source.host->text, source.host->file, problems);
  if (source.earlier) document->take_open(source.earlier->text, source.earlier->file, problems);
  if (source.measured) document->take_fleet(source.measured->text, source.measured->file, problems);
  return document;
}

void find_data(const RunDocument& document, const std::string& file, spec::HostConfig::Data& data) {
  for (const auto& [key, path] :
       {std::pair("data.train", &data.train), std::pair("data.validation", &data.validation)}) {
    const Place place = document.place(key);
    if (path->empty() || !document.has(key) || place.is_override) continue;
    const std::filesystem::path written_in = place.file.empty() ? file : place.file;
    *path = (written_in.parent_path() / *path).lexically_normal().string();
  }
}

}  // namespace

tl::expected<spec::RunConfig, std::vector<Problem>> parse_run(std::string_view text, const std::string& file,
                                                              const std::vector<std::string>& overrides,
                                                              const FileText* measured) {
  RunSource source{std::string(text), file, overrides};
  if (measured) source.measured = *measured;
  return parse_run(source);
}

std::vector<Problem> host_override_problems(const std::vector<std::string>& overrides) {
  ProblemList problems("--set");
  if (const auto document = RunDocument::parse("", overrides, problems))
    check_against_schema(document->root(), host_schema(), problems);
  return problems.take();
}

std::string host_device(std::string_view text) {
  ProblemList ignored("");
  const auto document = RunDocument::parse(text, {}, ignored);
  const auto* device = document ? document->find("pipeline.device") : nullptr;
  return device == nullptr ? std::string() : device->value_or(std::string());
}

tl::expected<spec::RunConfig, std::vector<Problem>> parse_run(const RunSource& source) {
  ProblemList problems(source.file);
  auto document = document_of(source, problems);
  if (!document) return tl::unexpected(problems.take());
  check_against_schema(document->root(), run_schema(), problems);
  spec::RunConfig run = read_run(*document, problems);
  check_run(*document, run, problems);
  check_fleet(*document, run, problems);
  if (!problems.empty()) return tl::unexpected(problems.take());
  find_data(*document, source.file, run.host.data);
  resolve_values(run);
  // How many replicas the stages of a fleet have, and so how they agree, is its planner's; the layers, unless they are
  // given.
  if (run.fleet.machine.empty())
    resolve_map(run, spec::layer_map(run));
  else if (run.pipeline.layout != "auto")
    resolve_layers(run, spec::layer_map(run));
  return run;
}

tl::expected<RunSource, std::vector<Problem>> run_source(const RunFiles& files) {
  const auto text = config_file_text(files.run, "a run file");
  std::vector<Problem> problems;
  if (!text) problems.push_back(text.error());
  RunSource source{text.value_or(""), files.run, files.overrides};
  const auto read = [&](const std::string& path, const std::string& kind) -> std::optional<FileText> {
    if (path.empty()) return std::nullopt;
    const auto other = config_file_text(path, kind);
    if (!other) problems.push_back(other.error());
    return FileText{other.value_or(""), path};
  };
  source.measured = read(files.measured, "a fleet.toml that a run left behind");
  source.host = read(files.host, "a host file");
  source.earlier = read(files.earlier, "the run.toml of the run that goes on");
  if (!problems.empty()) return tl::unexpected(problems);
  return source;
}

tl::expected<spec::RunConfig, std::vector<Problem>> load_run(const std::string& path,
                                                             const std::vector<std::string>& overrides,
                                                             const std::string& measured) {
  const auto source = run_source({path, overrides, measured});
  if (!source) return tl::unexpected(source.error());
  return parse_run(*source);
}

namespace {

// What is found in the texts of a run that were parsed before.
template <class Find>
std::vector<Problem> problems_in(const RunSource& source, const Find& find) {
  ProblemList problems(source.file);
  const auto document = document_of(source, problems);
  if (!document) return problems.take();
  find(*document, problems);
  return problems.take();
}

}  // namespace

std::vector<Problem> problems_at(const RunSource& source, const std::vector<KeyProblem>& found) {
  return problems_in(source, [&](const RunDocument& document, ProblemList& problems) {
    for (const auto& problem : found) problems.add(document.place(problem.path), problem.what, problem.expected);
  });
}

std::vector<Problem> problems_of_planned(const RunSource& source, const spec::RunConfig& planned) {
  return problems_in(
      source, [&](const RunDocument& document, ProblemList& problems) { check_run(document, planned, problems); });
}

}  // namespace isthmus::config
