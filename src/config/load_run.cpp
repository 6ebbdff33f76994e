#include "config/load_run.h"

#include <filesystem>
#include <fstream>
#include <iterator>

#include "config/boundary_form.h"
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
  check_against_schema(*document, problems);
  RunConfig run = read_run(*document, problems);
  check_run(*document, run, problems);
  if (!problems.empty()) return tl::unexpected(problems.take());
  resolve(run);
  return run;
}

tl::expected<RunConfig, std::vector<Problem>> load_run(const std::string& path,
                                                       const std::vector<std::string>& overrides) {
  const auto refuse = [&](std::string what, std::string expected) {
    return tl::unexpected(std::vector<Problem>{{path, 0, 0, std::move(what), std::move(expected)}});
  };
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status))
    return refuse("there is no such file", "a run file; configs/ holds examples");
  if (std::filesystem::is_directory(status)) return refuse("this is a folder", "a run file");
  std::ifstream in(path, std::ios::binary);
  if (!in) return refuse("the file cannot be opened", "a readable run file");
  // One byte more than a run file may have: what is longer need not be read to be refused.
  std::string text(kRunFileBytesMax + 1, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (in.bad()) return refuse("the file cannot be read", "a readable run file");
  text.resize(static_cast<std::size_t>(in.gcount()));
  return parse_run(text, path, overrides);
}

}  // namespace isthmus
