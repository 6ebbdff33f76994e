#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <optional>

#include "config/boundary_form.h"
#include "config/load_run.h"
#include "config/run_fields.h"

namespace isthmus {

namespace {

using Json = nlohmann::ordered_json;

// Keys that the loader refuses in such a run.
bool belongs(const RunConfig& run, std::string_view section, std::string_view key) {
  if (section == "emulated") return run.pipeline.device == "emulated";
  if (section == "rehearsal") return run.rehearsal.liar != 0;
  // Before a fleet has a plan, nobody knows how its replicas agree.
  if (section == "sync" && run.sync.mode.empty()) return false;
  if (section == "sync" && key != "mode") {
    if (run.sync.mode == "exact" || (key == "every" && run.sync.every == 0)) return false;
    if (key == "share") return run.sync.mode == "slices";
    if (key == "error_feedback" || key == "residual") return run.sync.mode == "sparseloco";
  }
  const BoundaryForm form = boundary_form(run.boundary.codec);
  if (section == "boundary" && key == "rank") return form.narrow;
  if (section == "boundary" && key == "factored_layers") return form.constrained;
  if (section == "boundary" && key == "error_feedback") return form.sparse;
  return true;
}

template <class T>
Json value_of(std::string_view key, const T& member) {
  if constexpr (std::is_same_v<T, std::optional<std::uint32_t>> || std::is_same_v<T, std::optional<double>>) {
    return member ? Json(*member) : Json();
  } else if constexpr (std::is_same_v<T, std::string>) {
    // "auto" or a number: the run file has the number without quotes.
    if (key == "credits" && member != "auto") return Json::parse(member, nullptr, false);
    return member;
  } else {
    return member;
  }
}

std::string layers_of(const RunConfig::Stage& stage) {
  return fmt::format("{}:{}", stage.first_layer, stage.end_layer);
}

// Only what was given: a machine has a speed or times of its own.
Json fleet_json(const RunConfig::Fleet& fleet) {
  Json machines = Json::array(), links = Json::array();
  for (const auto& machine : fleet.machine) {
    Json& table = machines.emplace_back();
    for_each_machine_field(machine, [&](const char* key, const auto& member) {
      if constexpr (std::is_same_v<std::decay_t<decltype(member)>, double>)
        if (member == 0) return;
      table[key] = member;
    });
  }
  for (const auto& link : fleet.link) {
    Json& table = links.emplace_back();
    table["between"] = link.between;
    for_each_link_field(link, [&](const char* key, const auto& member) { table[key] = member; });
  }
  return {{"machine", machines}, {"link", links}};
}

Json json_of(const RunConfig& run) {
  Json out;
  for_each_field(run, [&](const char* section, const char* key, const auto& member) {
    out[section][key] = value_of(key, member);
  });
  auto& stages = out["pipeline"]["stage"] = Json::array();
  for (const auto& stage : run.pipeline.stage)
    stages.push_back({{"layers", layers_of(stage)}, {"replicas", stage.replicas}});
  out["fleet"] = fleet_json(run.fleet);
  return out;
}

}  // namespace

std::string resolved_toml(const RunConfig& run) {
  std::string out;
  std::string section_now;
  for_each_field(run, [&](const std::string& section, const char* key, const auto& member) {
    if (!belongs(run, section, key)) return;
    const Json value = value_of(key, member);
    if (value.is_null()) return;
    if (section != section_now) out += fmt::format("{}[{}]\n", out.empty() ? "" : "\n", section);
    section_now = section;
    // Numbers, truth values and strings are written in TOML as in JSON, escapes included.
    out += fmt::format("{} = {}\n", key, value.dump());
  });
  for (const auto& stage : run.pipeline.stage) {
    out += fmt::format("\n[[pipeline.stage]]\nlayers = \"{}\"\n", layers_of(stage));
    if (run.fleet.machine.empty()) out += fmt::format("replicas = {}\n", stage.replicas);
  }
  const Json fleet = fleet_json(run.fleet);
  for (const auto& [name, tables] : fleet.items())
    for (const auto& table : tables) {
      out += fmt::format("\n[[fleet.{}]]\n", name);
      for (const auto& [key, value] : table.items()) out += fmt::format("{} = {}\n", key, value.dump());
    }
  return out;
}

std::string resolved_json(const RunConfig& run) {
  Json json = json_of(run);
  if (run.fleet.machine.empty()) json.erase("fleet");
  return json.dump();
}

std::vector<std::string> differences(const RunConfig& a, const RunConfig& b) {
  const Json left = json_of(a);
  const Json right = json_of(b);
  std::vector<std::string> out;
  for (const auto& [section, values] : left.items())
    for (const auto& [key, value] : values.items())
      if (const Json& other = right[section][key]; value != other)
        out.push_back(fmt::format("{}.{}: {} / {}", section, key, value.dump(), other.dump()));
  return out;
}

}  // namespace isthmus
