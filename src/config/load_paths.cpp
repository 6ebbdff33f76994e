#include "config/load_paths.h"

#include <fmt/format.h>

#include <filesystem>
#include <numeric>

#include "config/config_file.h"
#include "config/problem_list.h"
#include "config/run_document.h"
#include "config/schema_check.h"

namespace isthmus {

namespace {

// What the schema cannot say.
void check_paths(const PathsConfig& paths, const RunDocument& document, ProblemList& problems) {
  const auto add = [&](const std::string& path, std::string what, std::string expected) { problems.add(document.place(path), path, std::move(what), std::move(expected)); };
  if (problems.sound({"stages"})) {
    if (const auto nodes = std::accumulate(paths.stages.begin(), paths.stages.end(), 0u); nodes > kPathNodesMax)
      add("stages", fmt::format("the stages have {} nodes", nodes), fmt::format("at most {}", kPathNodesMax));
  }
  if (problems.sound({"stages", "visits"}) && paths.visits > paths.stages.size())
    add("visits", fmt::format("visits is {}", paths.visits), fmt::format("at most the {} stages", paths.stages.size()));
  if (problems.sound({"link"})) {
    if (paths.link.fastest_rtt_ms >= paths.link.slowest_rtt_ms)
      add("link.slowest_rtt_ms", fmt::format("link.slowest_rtt_ms is {}", paths.link.slowest_rtt_ms), fmt::format("above link.fastest_rtt_ms = {}", paths.link.fastest_rtt_ms));
    if (paths.link.fastest_mbps < paths.link.slowest_mbps)
      add("link.slowest_mbps", fmt::format("link.slowest_mbps is {}", paths.link.slowest_mbps), fmt::format("at most link.fastest_mbps = {}", paths.link.fastest_mbps));
  }
  for (std::size_t i = 0; i < paths.region.size(); ++i)
    if (const std::string path = fmt::format("region[{}].rtt_ms", i); problems.sound({path}) && paths.region[i].rtt_ms.size() != i)
      add(path, fmt::format("{} has {} entries", path, paths.region[i].rtt_ms.size()), fmt::format("{}, one for each region above", i));
}

}  // namespace

tl::expected<PathsConfig, std::vector<Problem>> load_paths(const std::string& path) {
  const auto text = config_file_text(path, "a path planning case");
  if (!text) return tl::unexpected(std::vector<Problem>{text.error()});
  ProblemList problems(path);
  const auto document = RunDocument::parse(*text, {}, problems);
  if (!document) return tl::unexpected(problems.take());
  check_against_schema(document->root(), paths_schema(), problems);

  PathsConfig paths;
  paths.name = std::filesystem::path(path).stem().string();
  // Leaves the default where the file says nothing, or what the schema has refused.
  const auto read = [&](const std::string& key, auto& value) {
    if (const auto* node = problems.sound({key}) ? document->find(key) : nullptr)
      value = node->value<std::remove_reference_t<decltype(value)>>().value_or(value);
  };
  const auto entries = [&](const std::string& key) {
    const auto* node = problems.sound({key}) ? document->find(key) : nullptr;
    return node ? node->as_array()->size() : 0;
  };
  paths.stages.resize(entries("stages"));
  for (std::size_t i = 0; i < paths.stages.size(); ++i) read(fmt::format("stages[{}]", i), paths.stages[i]);
  read("visits", paths.visits);
  read("skips_in_a_row", paths.skips_in_a_row);
  read("end", paths.end);
  read("microbatches", paths.microbatches);
  read("memory", paths.memory);
  read("forward_seconds", paths.forward_seconds);
  read("backward", paths.backward);
  read("loss", paths.loss);
  read("microbatch_bytes", paths.microbatch_bytes);
  read("seed", paths.seed);
  read("draws", paths.draws);
  read("link.fastest_mbps", paths.link.fastest_mbps);
  read("link.fastest_rtt_ms", paths.link.fastest_rtt_ms);
  read("link.slowest_mbps", paths.link.slowest_mbps);
  read("link.slowest_rtt_ms", paths.link.slowest_rtt_ms);
  read("link.overhead_seconds", paths.link.overhead_seconds);
  paths.region.resize(entries("region"));
  for (std::size_t i = 0; i < paths.region.size(); ++i) {
    const std::string region = fmt::format("region[{}]", i);
    read(region + ".name", paths.region[i].name);
    paths.region[i].rtt_ms.resize(entries(region + ".rtt_ms"));
    for (std::size_t j = 0; j < paths.region[i].rtt_ms.size(); ++j) read(fmt::format("{}.rtt_ms[{}]", region, j), paths.region[i].rtt_ms[j]);
  }
  check_paths(paths, *document, problems);
  if (!problems.empty()) return tl::unexpected(problems.take());
  return paths;
}

}  // namespace isthmus
