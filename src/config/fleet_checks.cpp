#include "config/fleet_checks.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "config/boundary_form.h"
#include "config/fleet_links.h"
#include "config/quoted.h"
#include "config/resolve_run.h"
#include "config/stage_costs.h"

namespace isthmus {

namespace {

constexpr std::uint32_t kMachinesMax = 10'000;
constexpr std::size_t kHolesShown = 5;

class FleetChecks {
 public:
  FleetChecks(const RunDocument& document, const RunConfig& run, ProblemList& problems) : document_(document), run_(run), problems_(problems) {}

  void check() {
    if (!document_.has("fleet")) return;
    if (machines().empty()) {
      if (problems_.sound({"fleet", "fleet.machine"})) add("fleet", "[fleet] without a [[fleet.machine]]", "at least one, or no such table");
      return;
    }
    for (std::size_t t = 0; t < machines().size(); ++t) check_speed(t);
    check_replicas();
    if (!check_count()) return;
    if (names_are_sound()) check_links(check_names());
    check_memory();
  }

 private:
  const std::vector<RunConfig::Machine>& machines() const { return run_.fleet.machine; }
  static std::string machine_path(std::size_t t) { return fmt::format("fleet.machine[{}]", t); }
  static std::string link_path(std::size_t l) { return fmt::format("fleet.link[{}]", l); }

  void add(const std::string& path, std::string what, std::string expected) {
    problems_.add(document_.place(path), path, std::move(what), std::move(expected));
  }
  bool sound(std::initializer_list<std::string_view> paths) const { return problems_.sound(paths); }

  void check_speed(std::size_t t) {
    const std::string path = machine_path(t);
    const auto has = [&](const char* key) { return document_.has(path + key); };
    const int times = has(".forward_ms") + has(".input_gradient_ms") + has(".weight_gradient_ms");
    for (const char* part : {".embedding_ms", ".head_ms"})
      if (sound({path}) && has(part) && has(".gflops"))
        add(path + part, fmt::format("{}{} with gflops", path, part), "the times of a layer beside it: what it takes is compared with them");
    if (!sound({path}) || (has(".gflops") ? times == 0 : times == 3)) return;
    add(path,
        has(".gflops") ? fmt::format("{} has both gflops and times per layer", path)
        : times == 0   ? fmt::format("{} has no speed", path)
                       : fmt::format("{} has {} of its three times per layer", path, times),
        "gflops, or forward_ms, input_gradient_ms and weight_gradient_ms");
  }

  // Replicas follow from the placement.
  void check_replicas() {
    if (run_.pipeline.replicas != 1 && run_.pipeline.layout == "auto" && sound({"pipeline.replicas"}))
      add("pipeline.replicas", fmt::format("pipeline.replicas is {}", run_.pipeline.replicas), "no such key with a fleet: its machines are the replicas");
    for (std::size_t s = 0; s < run_.pipeline.stage.size(); ++s)
      if (const std::string path = fmt::format("pipeline.stage[{}].replicas", s); document_.has(path) && sound({path}))
        add(path, fmt::format("{} with a fleet", path), "no such key: its machines are the replicas");
  }

  bool check_count() {
    std::uint64_t count = 0;
    for (std::size_t t = 0; t < machines().size(); ++t) {
      if (!sound({machine_path(t) + ".count"})) return false;
      count += machines()[t].count;
    }
    if (count > kMachinesMax) {
      add("fleet.machine", fmt::format("the fleet has {} machines", count), fmt::format("at most {}", kMachinesMax));
      return false;
    }
    const bool given = run_.pipeline.layout != "auto";
    const std::size_t stages = given ? run_.pipeline.stage.size() : run_.pipeline.stages;
    if (sound({"pipeline.stages", "pipeline.stage", "pipeline.layout"}) && count < stages)
      add(given ? "pipeline.stage" : "pipeline.stages", fmt::format("there are {} stages for {} machine{}", stages, count, count == 1 ? "" : "s"),
          "at least one machine per stage");
    return true;
  }

  bool names_are_sound() const {
    for (std::size_t t = 0; t < machines().size(); ++t)
      if (!sound({machine_path(t) + ".name"}) || !sound({machine_path(t) + ".region"})) return false;
    return true;
  }

  // Whether links can be told apart by names.
  bool check_names() {
    bool good = true;
    std::map<std::string, std::size_t> owner;  // of the names of tables and machines
    for (std::size_t t = 0; t < machines().size(); ++t) {
      const auto& table = machines()[t];
      std::vector<std::string> names = {table.name};
      for (std::uint32_t n = 0; table.count > 1 && n < table.count; ++n) names.push_back(machine_name(table, n));
      for (const auto& name : names) {
        const auto [at, added] = owner.emplace(name, t);
        if (added) continue;
        add(machine_path(t) + ".name", fmt::format("a second machine is called {}", quoted(name)),
            fmt::format("another name than that of {}", machine_path(at->second)));
        good = false;
        break;
      }
    }
    for (std::size_t t = 0; t < machines().size(); ++t) {
      const auto at = owner.find(machines()[t].region);
      if (at == owner.end() || (at->second == t && at->first == machines()[t].name)) continue;
      add(machine_path(t) + ".region", fmt::format("the region {} is called like a machine", quoted(at->first)), fmt::format("another name than that of {}", machine_path(at->second)));
      good = false;
    }
    return good;
  }

  void check_links(bool names_differ) {
    const auto& links = run_.fleet.link;
    if (links.empty()) return;
    const FleetLinks fleet(run_.fleet);
    bool whole = sound({"fleet.link"});
    for (std::size_t l = 0; l < links.size(); ++l) {
      whole = whole && links[l].between.size() == 2 && sound({link_path(l) + ".between"});
      for (std::size_t end = 0; end < links[l].between.size(); ++end) {
        const std::string path = fmt::format("{}.between[{}]", link_path(l), end);
        if (!sound({path}) || fleet.knows(links[l].between[end])) continue;
        add(path, fmt::format("there is no machine or region {}", quoted(links[l].between[end])), "a name of [[fleet.machine]] or one of their regions");
        whole = false;
      }
    }
    for (const auto& [again, first] : fleet.repeated())
      add(link_path(again) + ".between", fmt::format("{} to {} has a link already", quoted(links[again].between[0]), quoted(links[again].between[1])),
          fmt::format("one [[fleet.link]]; the other is in line {}", document_.place(link_path(first)).line));
    // A wrong name leaves holes that say nothing new.
    if (whole && names_differ) check_cover(fleet);
  }

  void check_cover(const FleetLinks& fleet) {
    const auto& sites = fleet.sites();
    std::set<std::pair<std::size_t, std::size_t>> rivals;
    std::vector<std::string> holes;
    std::set<std::string> seen;
    const auto region = [&](std::uint32_t site) {
      const auto& table = machines()[sites[site].table];
      return table.region.empty() ? table.name : table.region;
    };
    for (std::uint32_t a = 0; a < sites.size(); ++a)
      for (std::uint32_t b = a; b < sites.size(); ++b) {
        if (a == b && sites[a].machines < 2) continue;
        const auto choice = fleet.between(a, b);
        if (choice.rival) rivals.insert(std::minmax(*choice.link, *choice.rival));
        // A region's name says it for all of its machines.
        if (!choice.link)
          if (auto hole = fmt::format("{} to {}", region(a), region(b)); seen.insert(hole).second) holes.push_back(std::move(hole));
      }
    for (const auto& [first, second] : rivals)
      add(link_path(second), fmt::format("{} to {} and {} to {} hold for the same machines", quoted(run_.fleet.link[second].between[0]), quoted(run_.fleet.link[second].between[1]),
                                         quoted(run_.fleet.link[first].between[0]), quoted(run_.fleet.link[first].between[1])),
          fmt::format("one of them to be narrower; the other is in line {}", document_.place(link_path(first)).line));
    if (holes.empty()) return;
    const std::size_t shown = std::min(holes.size(), kHolesShown);
    const std::string more = holes.size() > shown ? fmt::format(" and {} more", holes.size() - shown) : "";
    add("fleet.link", fmt::format("no link for {}{}", fmt::join(holes.begin(), holes.begin() + static_cast<std::ptrdiff_t>(shown), ", "), more),
        "a [[fleet.link]] for every pair once there is one, or none at all");
  }

  void check_memory() {
    if (!sound({"model.layers", "model.hidden", "model.heads", "model.context", "model.vocabulary", "model.mlp", "model.token_path", "model.token_window",
                "model.token_width", "train.sequences_per_microbatch", "train.optimizer", "train.precision", "boundary.codec", "boundary.rank",
                "boundary.factored_layers", "pipeline.layout", "pipeline.stages", "pipeline.stage", "pipeline.recompute", "pipeline.activation_mb"}))
      return;
    double most = 0;
    for (std::size_t t = 0; t < machines().size(); ++t) {
      if (!sound({machine_path(t) + ".memory_gb"})) return;
      most = std::max(most, machines()[t].memory_gb);
    }
    RunConfig run = run_;
    resolve_values(run);
    const std::uint32_t layers = run.model.layers;
    const auto& map = run.pipeline.stage;
    const bool given = run.pipeline.layout != "auto";
    if (given && (map.empty() || map.back().first_layer >= map.back().end_layer)) return;
    if (!run.boundary.factored_layers) run.boundary.factored_layers = given ? map.back().first_layer : layers - 1;
    // The least it takes: one microbatch in flight, and its boundary tensors not counted.
    const auto needs = [&](const std::string& path, const std::string& what, std::uint32_t first, std::uint32_t end) {
      const double gb = stage_memory(run, first, end, 1, 0).total() * 1e-9;
      if (gb > most) add(path, fmt::format("{} needs {:.3g} GB", what, gb), fmt::format("a machine that has as much; the largest has {:.3g} GB", most));
    };
    for (std::size_t s = 0; given && s < map.size(); ++s) {
      const std::string path = fmt::format("pipeline.stage[{}].layers", s);
      if (sound({path}) && map[s].first_layer < map[s].end_layer && map[s].end_layer <= layers) needs(path, fmt::format("stage {}", s), map[s].first_layer, map[s].end_layer);
    }
    if (given) return;
    // Those in between are alike.
    for (const std::uint32_t layer : std::set<std::uint32_t>{0, std::min(1u, layers - 1), layers - 1}) {
      std::string what = fmt::format("layer {}", layer);
      if (layer == 0) what += " with the embedding";
      if (layer + 1 == layers) what += " with the head";
      needs("fleet.machine", what, layer, layer + 1);
    }
  }

  const RunDocument& document_;
  const RunConfig& run_;
  ProblemList& problems_;
};

}  // namespace

void check_fleet(const RunDocument& document, const RunConfig& run, ProblemList& problems) {
  FleetChecks(document, run, problems).check();
}

}  // namespace isthmus
