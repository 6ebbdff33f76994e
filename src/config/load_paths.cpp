#include "config/load_paths.h"

#include <fmt/format.h>

#include <filesystem>
#include <map>
#include <numeric>

#include "config/config_file.h"
#include "config/problem_list.h"
#include "config/quoted.h"
#include "config/run_document.h"
#include "config/schema_check.h"
#include "spec/step_limits.h"

namespace isthmus::config {

namespace {

// How many stages a path has room for, and whether anybody could play so many.
template <class Add>
void check_visits(const PathsConfig& paths, const ProblemList& problems, const Add& add) {
  const std::size_t stages = paths.stages.size();
  if (!problems.sound({"stages", "visits", "end", "skips_in_a_row"})) return;
  const bool last = paths.end == "last_stage";
  const std::size_t least = last && stages > 1 ? 2 : 1;
  if (paths.visits > stages)
    return add("visits", fmt::format("visits is {}", paths.visits), fmt::format("at most the {} stages", stages));
  if (paths.visits < least)
    return add("visits", fmt::format("visits is {}", paths.visits),
               "at least 2: neither the first stage is skipped nor the last, which has the loss");
  const std::size_t gaps = last ? paths.visits - 1 : paths.visits;
  if (stages - paths.visits > gaps * paths.skips_in_a_row)
    add("visits", fmt::format("visits is {}, of {} stages", paths.visits, stages),
        fmt::format("as many that they leave out at most {} between them, skips_in_a_row = {} at a time",
                    gaps * paths.skips_in_a_row, paths.skips_in_a_row));
  if (!problems.sound({"stages[0]", "microbatches"})) return;
  const double visits = path_visits(paths);
  if (visits > kPathVisitsMax)
    return add("microbatches",
               fmt::format("{} microbatches at each of {} nodes make {:.0f} visits", paths.microbatches,
                           paths.stages[0], visits),
               fmt::format("at most {}", kPathVisitsMax));
  if (!problems.sound({"forward_seconds", "backward", "loss", "microbatch_bytes", "link.slowest_mbps",
                       "link.slowest_rtt_ms", "link.overhead_seconds"}))
    return;
  const double compute = paths.forward_seconds * (1 + paths.backward + paths.loss);
  const double transfers = 2 * (paths.link.slowest_rtt_ms / 2000 + paths.link.overhead_seconds +
                                static_cast<double>(paths.microbatch_bytes) * 8 / (paths.link.slowest_mbps * 1e6));
  if (const double seconds = visits * (compute + transfers); seconds > spec::kStepSecondsMax)
    add("microbatches", fmt::format("all visits one after the other take {:.2g} s", seconds),
        fmt::format("at most {:.0e} s", spec::kStepSecondsMax));
}

// What the schema cannot say.
void check_paths(const PathsConfig& paths, const RunDocument& document, ProblemList& problems) {
  const auto add = [&](const std::string& path, std::string what, std::string expected) {
    problems.add(document.place(path), path, std::move(what), std::move(expected));
  };
  if (problems.sound({"stages"})) {
    if (const auto nodes = std::accumulate(paths.stages.begin(), paths.stages.end(), 0u); nodes > kPathNodesMax)
      add("stages", fmt::format("the stages have {} nodes", nodes), fmt::format("at most {}", kPathNodesMax));
  }
  check_visits(paths, problems, add);
  if (problems.sound({"link"})) {
    // Each only where both ends can be read.
    if (problems.sound({"link.fastest_rtt_ms", "link.slowest_rtt_ms"}) &&
        paths.link.fastest_rtt_ms >= paths.link.slowest_rtt_ms)
      add("link.slowest_rtt_ms", fmt::format("link.slowest_rtt_ms is {}", paths.link.slowest_rtt_ms),
          fmt::format("above link.fastest_rtt_ms = {}", paths.link.fastest_rtt_ms));
    if (problems.sound({"link.fastest_mbps", "link.slowest_mbps"}) && paths.link.fastest_mbps < paths.link.slowest_mbps)
      add("link.slowest_mbps", fmt::format("link.slowest_mbps is {}", paths.link.slowest_mbps),
          fmt::format("at most link.fastest_mbps = {}", paths.link.fastest_mbps));
  }
  std::map<std::string, std::size_t> named;
  for (std::size_t i = 0; i < paths.region.size(); ++i) {
    const std::string name = fmt::format("region[{}].name", i);
    if (!problems.sound({name})) continue;
    if (const auto [at, added] = named.emplace(paths.region[i].name, i); !added)
      add(name, fmt::format("a second region is called {}", quoted(paths.region[i].name)),
          fmt::format("another name than that of region[{}]", at->second));
  }
  for (std::size_t i = 0; i < paths.region.size(); ++i)
    if (const std::string path = fmt::format("region[{}].rtt_ms", i);
        problems.sound({path}) && paths.region[i].rtt_ms.size() != i)
      add(path, fmt::format("{} has {} entries", path, paths.region[i].rtt_ms.size()),
          fmt::format("{}, one for each region above", i));
}

}  // namespace

double path_visits(const PathsConfig& paths) {
  return static_cast<double>(paths.stages[0]) * paths.microbatches * paths.visits;
}

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
    for (std::size_t j = 0; j < paths.region[i].rtt_ms.size(); ++j)
      read(fmt::format("{}.rtt_ms[{}]", region, j), paths.region[i].rtt_ms[j]);
  }
  check_paths(paths, *document, problems);
  if (!problems.empty()) return tl::unexpected(problems.take());
  return paths;
}

}  // namespace isthmus::config
