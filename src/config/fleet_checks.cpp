#include "config/fleet_checks.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <unordered_map>

#include "config/fleet_links.h"
#include "config/quoted.h"
#include "config/resolve_run.h"
#include "spec/boundary_form.h"
#include "spec/stage_costs.h"
#include "spec/stage_memory.h"
#include "spec/stage_tensors.h"
#include "spec/step_limits.h"

namespace isthmus::config {

namespace {

constexpr std::uint32_t kMachinesMax = 10'000;
constexpr std::size_t kFleetSitesMax = 2'048;  // the planner keeps the links of all pairs
constexpr std::size_t kHolesShown = 5;

// A name as it was written, also where it is not one.
std::string written(const RunDocument& document, const std::string& path) {
  const auto* node = document.find(path);
  return node ? node->value_or(std::string()) : std::string();
}

class FleetChecks {
 public:
  FleetChecks(const RunDocument& document, const spec::RunConfig& run, ProblemList& problems)
      : document_(document), run_(run), problems_(problems), fleet_(run.fleet) {}

  void check() {
    if (!document_.has("fleet")) return;
    if (machines().empty()) {
      if (problems_.sound({"fleet", "fleet.machine"}))
        add("fleet", "[fleet] without a [[fleet.machine]]", "at least one, or no such table");
      return;
    }
    read_what_is_unsound();
    for (std::size_t t = 0; t < machines().size(); ++t) check_speed(t);
    check_replicas();
    check_count();
    check_names();
    check_links();
    check_costs();
  }

 private:
  const std::vector<spec::RunConfig::Machine>& machines() const { return fleet_.machine; }
  static std::string machine_path(std::size_t t) { return fmt::format("fleet.machine[{}]", t); }
  static std::string link_path(std::size_t l) { return fmt::format("fleet.link[{}]", l); }

  void add(const std::string& path, std::string what, std::string expected) {
    add_for(path, path, std::move(what), std::move(expected));
  }
  // The same where `path` is, which says nothing against what else is in it.
  void add_for(const std::string& key, const std::string& path, std::string what, std::string expected) {
    problems_.add(document_.place(path), key, std::move(what), std::move(expected));
  }
  bool sound(std::initializer_list<std::string_view> paths) const { return problems_.sound(paths); }

  // One wrong name or number is no reason to say nothing of the rest: links may hold for a machine whose name is not
  // allowed, and of a table whose number is not known they may name any machine.
  void read_what_is_unsound() {
    counted_.resize(machines().size());
    told_apart_.resize(machines().size());
    for (std::size_t t = 0; t < machines().size(); ++t) {
      auto& machine = fleet_.machine[t];
      const std::string path = machine_path(t);
      if (!sound({path + ".name"})) machine.name = written(document_, path + ".name");
      if (!sound({path + ".region"})) machine.region = written(document_, path + ".region");
      told_apart_[t] = !machine.name.empty();
      counted_[t] = sound({path + ".count"});
      if (!counted_[t]) machine.count = kMachinesMax;
    }
    // Too few names, or too many.
    for (std::size_t l = 0; l < fleet_.link.size(); ++l) {
      const std::string path = link_path(l) + ".between";
      const auto* ends = sound({path}) ? nullptr : document_.find(path);
      for (std::size_t end = 0; ends && ends->is_array() && end < std::min<std::size_t>(ends->as_array()->size(), 3);
           ++end)
        fleet_.link[l].between.push_back(written(document_, fmt::format("{}[{}]", path, end)));
    }
  }

  void check_speed(std::size_t t) {
    const std::string path = machine_path(t);
    const auto has = [&](const char* key) { return document_.has(path + key); };
    const int times = has(".forward_ms") + has(".input_gradient_ms") + has(".weight_gradient_ms");
    for (const char* part : {".embedding_ms", ".head_ms"})
      if (sound({path}) && has(part) && has(".gflops"))
        add(path + part, fmt::format("{}{} with gflops", path, part),
            "the times of a layer beside it: what it takes is compared with them");
    if (!sound({path}) || (has(".gflops") ? times == 0 : times == 3)) return;
    add_for(path + ".gflops", path,
            has(".gflops") ? fmt::format("{} has both gflops and times per layer", path)
            : times == 0   ? fmt::format("{} has no speed", path)
                           : fmt::format("{} has {} of its three times per layer", path, times),
            "gflops, or forward_ms, input_gradient_ms and weight_gradient_ms");
  }

  // Replicas follow from the placement.
  void check_replicas() {
    if (run_.pipeline.replicas != 1 && run_.pipeline.layout == "auto" && sound({"pipeline.replicas"}))
      add("pipeline.replicas", fmt::format("pipeline.replicas is {}", run_.pipeline.replicas),
          "no such key with a fleet: its machines are the replicas");
    for (std::size_t s = 0; s < run_.pipeline.stage.size(); ++s)
      if (const std::string path = fmt::format("pipeline.stage[{}].replicas", s); document_.has(path) && sound({path}))
        add(path, fmt::format("{} with a fleet", path), "no such key: its machines are the replicas");
  }

  void check_count() {
    std::uint64_t count = 0;
    for (std::size_t t = 0; t < machines().size(); ++t)
      if (counted_[t]) count += machines()[t].count;
    if (count > kMachinesMax)
      add_for("fleet.count", "fleet.machine", fmt::format("the fleet has {} machines", count),
              fmt::format("at most {}", kMachinesMax));
    if (std::ranges::count(counted_, false) > 0) return;
    const bool given = run_.pipeline.layout != "auto";
    const std::size_t stages = given ? run_.pipeline.stage.size() : run_.pipeline.stages;
    if (sound({"pipeline.stages", "pipeline.stage", "pipeline.layout"}) && count < stages)
      add(given ? "pipeline.stage" : "pipeline.stages",
          fmt::format("there are {} stages for {} machine{}", stages, count, count == 1 ? "" : "s"),
          "at least one machine per stage");
  }

  // Links are told apart by names.
  void check_names() {
    std::unordered_map<std::string, std::size_t> tables;
    const auto same = [&](std::size_t t, const std::string& name, std::size_t other) {
      add_for(machine_path(t) + ".name.again", machine_path(t) + ".name",
              fmt::format("a second machine is called {}", quoted(name)),
              fmt::format("another name than that of {}", machine_path(other)));
    };
    for (std::size_t t = 0; t < machines().size(); ++t) {
      if (!told_apart_[t]) continue;
      const auto [at, added] = tables.emplace(machines()[t].name, t);
      if (added) continue;
      same(t, machines()[t].name, at->second);
      told_apart_[t] = false;
    }
    // Whose machine is called so.
    const auto numbered = [&](const std::string& name) -> std::optional<std::size_t> {
      const auto parts = numbered_name(name);
      const auto at = parts ? tables.find(parts->first) : tables.end();
      if (at == tables.end() || !counted_[at->second] || machines()[at->second].count == 1 ||
          parts->second >= machines()[at->second].count)
        return std::nullopt;
      return at->second;
    };
    for (std::size_t t = 0; t < machines().size(); ++t) {
      if (!told_apart_[t]) continue;
      const auto whose = numbered(machines()[t].name);
      if (!whose) continue;
      same(std::max(t, *whose), machines()[t].name, std::min(t, *whose));
      told_apart_[t] = false;
    }
    for (std::size_t t = 0; t < machines().size(); ++t) {
      const std::string& region = machines()[t].region;
      if (region.empty() || region == machines()[t].name) continue;
      const auto table = tables.find(region);
      const auto owner = table != tables.end() ? std::optional(table->second) : numbered(region);
      if (!owner) continue;
      add_for(machine_path(t) + ".region.again", machine_path(t) + ".region",
              fmt::format("the region {} is called like a machine", quoted(region)),
              fmt::format("another name than that of {}", machine_path(*owner)));
      told_apart_[t] = told_apart_[*owner] = false;
    }
  }

  void check_links() {
    const auto& links = fleet_.link;
    if (links.empty()) return;
    const FleetLinks fleet(fleet_);
    std::vector<std::string> half;  // known ends of links whose other end is not
    for (std::size_t l = 0; l < links.size(); ++l) {
      bool whole = links[l].between.size() == 2;
      for (std::size_t end = 0; end < links[l].between.size(); ++end) {
        const std::string path = fmt::format("{}.between[{}]", link_path(l), end);
        if (fleet.knows(links[l].between[end])) continue;
        whole = false;
        if (sound({path}))
          add(path, fmt::format("there is no machine or region {}", quoted(links[l].between[end])),
              "a name of [[fleet.machine]] or one of their regions");
      }
      if (!whole)
        for (const auto& name : links[l].between)
          if (fleet.knows(name)) half.push_back(name);
    }
    for (const auto& [again, first] : fleet.repeated())
      add(link_path(again) + ".between",
          fmt::format("{} to {} has a link already", quoted(links[again].between[0]), quoted(links[again].between[1])),
          fmt::format("one [[fleet.link]]; the other is in line {}", document_.place(link_path(first)).line));
    if (fleet.sites().size() > kFleetSitesMax) {
      add("fleet.link", fmt::format("links and tables tell {} places apart", fleet.sites().size()),
          fmt::format("at most {}: links between tables or regions instead of single machines", kFleetSitesMax));
      return;
    }
    check_cover(fleet, half);
  }

  void check_cover(const FleetLinks& fleet, const std::vector<std::string>& half) {
    const auto& sites = fleet.sites();
    // A region's name says it for all of its machines.
    std::vector<std::string> regions;
    std::unordered_map<std::string, std::uint32_t> numbers;
    std::vector<std::uint32_t> region_of(sites.size());
    std::vector<bool> told(sites.size());
    // A wrong name leaves holes around the other end of its link that say nothing new.
    std::vector<bool> explained(sites.size());
    for (std::uint32_t a = 0; a < sites.size(); ++a) {
      const auto& table = machines()[sites[a].table];
      const std::string& region = table.region.empty() ? table.name : table.region;
      const auto [at, added] = numbers.emplace(region, static_cast<std::uint32_t>(regions.size()));
      if (added) regions.push_back(region);
      region_of[a] = at->second;
      told[a] = told_apart_[sites[a].table];
      explained[a] = std::ranges::any_of(half, [&](const auto& name) { return fleet.reaches(name, a); });
    }
    std::vector<std::pair<std::size_t, std::size_t>> rivals;
    std::vector<bool> seen(regions.size() * regions.size());
    std::size_t holes = 0;
    std::vector<std::string> shown;
    for (std::uint32_t a = 0; a < sites.size(); ++a)
      for (std::uint32_t b = a; told[a] && b < sites.size(); ++b) {
        if (!told[b] || (a == b && (sites[a].machines < 2 || !counted_[sites[a].table]))) continue;
        const auto choice = fleet.between(a, b);
        if (choice.rival) rivals.push_back(std::minmax(*choice.link, *choice.rival));
        if (choice.link || explained[a] || explained[b]) continue;
        const auto [low, high] = std::minmax(region_of[a], region_of[b]);
        if (seen[low * regions.size() + high]) continue;
        seen[low * regions.size() + high] = true;
        if (++holes <= kHolesShown)
          shown.push_back(low == high ? fmt::format("two machines of {}", regions[low])
                                      : fmt::format("{} to {}", regions[region_of[a]], regions[region_of[b]]));
      }
    std::ranges::sort(rivals);
    const auto [end, last] = std::ranges::unique(rivals);
    rivals.erase(end, last);
    for (const auto& [first, second] : rivals)
      add(link_path(second),
          fmt::format("{} to {} and {} to {} hold for the same machines", quoted(run_.fleet.link[second].between[0]),
                      quoted(run_.fleet.link[second].between[1]), quoted(run_.fleet.link[first].between[0]),
                      quoted(run_.fleet.link[first].between[1])),
          fmt::format("one of them to be narrower; the other is in line {}", document_.place(link_path(first)).line));
    if (holes == 0) return;
    const std::string more = holes > shown.size() ? fmt::format(" and {} more", holes - shown.size()) : "";
    add("fleet.link", fmt::format("no link for {}{}", fmt::join(shown, ", "), more),
        "a [[fleet.link]] for every pair once there is one, or none at all");
  }

  // What the layers take of a machine, and machines and links of a step.
  void check_costs() {
    if (!sound({"model.layers",
                "model.hidden",
                "model.heads",
                "model.context",
                "model.vocabulary",
                "model.mlp",
                "model.token_path",
                "model.token_window",
                "model.token_width",
                "train.sequences_per_microbatch",
                "train.optimizer",
                "train.precision",
                "boundary.codec",
                "boundary.rank",
                "boundary.factored_layers",
                "pipeline.layout",
                "pipeline.stages",
                "pipeline.stage",
                "pipeline.recompute",
                "pipeline.activation_mb"}))
      return;
    spec::RunConfig run = run_;
    resolve_values(run);
    const std::uint32_t layers = run.model.layers;
    const auto& map = run.pipeline.stage;
    const bool given = run.pipeline.layout != "auto";
    if (given && (map.empty() || map.back().first_layer >= map.back().end_layer)) return;
    if (!run.boundary.factored_layers) run.boundary.factored_layers = given ? map.back().first_layer : layers - 1;
    check_times(run);
    double most = 0;
    std::size_t unknown = 0;
    for (std::size_t t = 0; t < machines().size(); ++t) {
      if (sound({machine_path(t) + ".memory_gb"}))
        most = std::max(most, machines()[t].memory_gb);
      else
        ++unknown;
    }
    if (unknown == machines().size()) return;
    // The least it takes: one microbatch in flight, and its boundary tensors not counted.
    const auto needs = [&](const std::string& path, const std::string& what, std::uint32_t first, std::uint32_t end) {
      const double gb = spec::stage_memory(run, first, end, {}, 0).total() * 1e-9;
      if (gb > most)
        add(path, fmt::format("{} needs {:.3g} GB", what, gb),
            fmt::format("a machine that has as much; the largest{} has {:.3g} GB", unknown > 0 ? " of the others" : "",
                        most));
    };
    for (std::size_t s = 0; given && s < map.size(); ++s) {
      const std::string path = fmt::format("pipeline.stage[{}].layers", s);
      if (sound({path}) && map[s].first_layer < map[s].end_layer && map[s].end_layer <= layers)
        needs(path, fmt::format("stage {}", s), map[s].first_layer, map[s].end_layer);
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

  // No machine and no link may take an age: not only is it a mistake, its nanoseconds would not be a number any more.
  void check_times(const spec::RunConfig& run) {
    const std::uint32_t layers = run.model.layers;
    const double tokens = static_cast<double>(run.train.sequences_per_microbatch) * run.model.context,
                 microbatches = run.train.microbatches_per_step;
    // Every layer as a stage of its own: no map has more to do.
    double operations = 0, parameters = 0;
    const auto count = [&](std::uint32_t first, double times) {
      operations += times * tokens * spec::forward_operations(run, first, first + 1);
      for (const auto& tensor : spec::stage_tensors(run, first, first + 1))
        parameters += times * static_cast<double>(tensor.numbers());
    };
    count(0, 1);
    if (layers > 1) count(layers - 1, 1);
    if (layers > 2) count(1, layers - 2);
    // Parts and totals of a sum, if replicas have to add theirs up.
    const double sum_bits = run.run.deterministic || run.sync.mode == "exact" ? parameters * 16 * 8 * 1.1 : 0;
    const double layer = spec::middle_layer_operations(run) * tokens;
    const auto times = [](const spec::RunConfig::Machine& m) {
      return (m.forward_ms + m.input_gradient_ms + m.weight_gradient_ms) * 1e-3;
    };
    for (const auto& machine : machines())
      // A median is at most twice the mean.
      if (times(machine) > 0)
        operations += 2 * (machine.embedding_ms + machine.head_ms) * 1e-3 / times(machine) * layer /
                      static_cast<double>(machines().size());
    const auto too_long = [](double seconds) { return seconds > spec::kStepSecondsMax; };
    const auto expected = fmt::format("at most {:.0e} s", spec::kStepSecondsMax);
    for (std::size_t t = 0; t < machines().size(); ++t) {
      const auto& machine = machines()[t];
      const std::string path = machine_path(t);
      if (!sound({path + ".gflops", path + ".forward_ms", path + ".input_gradient_ms", path + ".weight_gradient_ms"}))
        continue;
      const double seconds =
          operations * (microbatches + 1) * (machine.gflops > 0 ? 3e-9 / machine.gflops : times(machine) / layer);
      if (too_long(seconds))
        add_for(path + ".gflops", path,
                fmt::format("{} would take {:.2g} s over a step of {} microbatches through {} layers", path, seconds,
                            run.train.microbatches_per_step, layers),
                expected);
    }
    const auto check_rate = [&](const std::string& path, double mbps) {
      if (mbps == 0 || !sound({path})) return;
      const double seconds = (spec::step_bits_most(run) + sum_bits) / (mbps * 1e6);
      if (too_long(seconds))
        add(path, fmt::format("{} is {}: what a step may send takes {:.2g} s", path, mbps, seconds), expected);
    };
    for (std::size_t t = 0; t < machines().size(); ++t) {
      check_rate(machine_path(t) + ".uplink_mbps", run_.fleet.machine[t].uplink_mbps);
      check_rate(machine_path(t) + ".downlink_mbps", run_.fleet.machine[t].downlink_mbps);
    }
    for (std::size_t l = 0; l < fleet_.link.size(); ++l) check_rate(link_path(l) + ".mbps", fleet_.link[l].mbps);
  }

  const RunDocument& document_;
  const spec::RunConfig& run_;
  ProblemList& problems_;
  spec::RunConfig::Fleet fleet_;  // with what could be read of unsound values
  std::vector<bool> counted_;     // by table: its count is known
  std::vector<bool> told_apart_;  // by table: it has a name, and no other one has it
};

}  // namespace

void check_fleet(const RunDocument& document, const spec::RunConfig& run, ProblemList& problems) {
  FleetChecks(document, run, problems).check();
}

}  // namespace isthmus::config
