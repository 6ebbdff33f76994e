#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/digest.h"
#include "config/load_run.h"
#include "config/run_fields.h"
#include "spec/boundary_form.h"

namespace isthmus::config {

namespace {

using Json = nlohmann::ordered_json;

// Whether the shard that the key is about has been named.
bool data_is_known(const spec::RunSpec& run, std::string_view key) {
  return (key.starts_with("train") ? run.data.train : run.data.validation).known();
}

// Keys that the loader refuses in such a run.
bool belongs(const spec::RunSpec& run, std::string_view section, std::string_view key) {
  if (section == "emulated") return run.emulated.devices;
  if (section == "rehearsal") return run.rehearsal.liar != 0;
  // Before a fleet has a plan, nobody knows how its replicas agree.
  if (section == "sync" && run.sync.mode.empty()) return false;
  if (section == "sync" && key != "mode") {
    if (run.sync.mode == "exact" || (key == "every" && run.sync.every == 0)) return false;
    if (key == "share") return run.sync.mode == "slices";
    if (key == "error_feedback" || key == "residual") return run.sync.mode == "sparseloco";
  }
  if (section == "data") return key == "train" || key == "validation" || data_is_known(run, key);
  const spec::BoundaryForm form = spec::boundary_form(run.boundary.codec);
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

std::string layers_of(const spec::RunSpec::Stage& stage) {
  return fmt::format("{}:{}", stage.first_layer, stage.end_layer);
}

// Only what was given: a machine has a speed or times of its own.
Json fleet_json(const spec::RunSpec::Fleet& fleet) {
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

// The same place, relative to the folder: both may move together. Absolute where that cannot be said.
std::string seen_from(const std::string& folder, const std::string& path) {
  std::error_code error;
  const auto seen = std::filesystem::proximate(path, folder, error);
  return error ? std::filesystem::absolute(path, error).string() : seen.string();
}

Json stages_json(const spec::RunSpec& spec) {
  Json stages = Json::array();
  for (const auto& stage : spec.pipeline.stage)
    stages.push_back({{"layers", layers_of(stage)}, {"replicas", stage.replicas}});
  return stages;
}

Json json_of(const spec::RunSpec& spec) {
  Json out;
  for_each_spec_field(spec, [&](const char* section, const char* key, const auto& member) {
    out[section][key] = value_of(key, member);
  });
  out["emulated"]["devices"] = spec.emulated.devices;
  out["pipeline"]["stage"] = stages_json(spec);
  out["fleet"] = fleet_json(spec.fleet);
  return out;
}

Json spec_sections(const spec::RunSpec& spec) {
  Json sections;
  for_each_spec_field(spec, [&](const char* section, const char* key, const auto& member) {
    if (!belongs(spec, section, key)) return;
    if (const Json value = value_of(key, member); !value.is_null()) sections[section][key] = value;
  });
  return sections;
}

// The paths of [data] as seen from `folder`; empty: as they are.
void add_host(Json& sections, const spec::RunConfig& run, const std::string& folder) {
  spec::HostConfig host = run.host;
  for (std::string* path : {&host.data.train, &host.data.validation})
    if (!folder.empty() && !path->empty()) *path = seen_from(folder, *path);
  for_each_host_field(host, [&](const char* section, const char* key, const auto& member) {
    if (!belongs(run, section, key)) return;
    if (const Json value = value_of(key, member); !value.is_null()) sections[section][key] = value;
  });
}

// Numbers, truth values and strings are written in TOML as in JSON, escapes included.
void write_table(std::string& out, const std::string& header, const Json& table) {
  out += (out.empty() ? "" : "\n") + header + "\n";
  for (const auto& [key, value] : table.items()) out += fmt::format("{} = {}\n", key, value.dump());
}

std::string text_of(const Json& sections) {
  std::string out;
  for (const auto& [section, table] : sections.items()) write_table(out, fmt::format("[{}]", section), table);
  return out;
}

std::string text_of(const Json& sections, const spec::RunSpec& spec) {
  std::string out = text_of(sections);
  for (Json stage : stages_json(spec)) {
    // Those of a fleet are its machines.
    if (!spec.fleet.machine.empty()) stage.erase("replicas");
    write_table(out, "[[pipeline.stage]]", stage);
  }
  const Json fleet = fleet_json(spec.fleet);
  for (const auto& [name, tables] : fleet.items())
    for (const auto& table : tables) write_table(out, fmt::format("[[fleet.{}]]", name), table);
  return out;
}

}  // namespace

std::string resolved_toml(const spec::RunConfig& run, const std::string& folder) {
  Json sections = spec_sections(run);
  add_host(sections, run, folder);
  return text_of(sections, run);
}

std::string spec_toml(const spec::RunSpec& spec) {
  Json sections = spec_sections(spec);
  // That devices are emulated is the run's to say.
  if (spec.emulated.devices) sections["pipeline"]["device"] = "emulated";
  return text_of(sections, spec);
}

std::string host_toml(const spec::RunConfig& run) {
  Json sections;
  add_host(sections, run, "");
  if (run.emulated.devices) sections["pipeline"].erase("device");
  sections.erase("data");
  return text_of(sections);
}

std::string resolved_json(const spec::RunConfig& run) {
  Json json = json_of(run);
  json["emulated"].erase("devices");
  for_each_host_field(run.host, [&](const char* section, const char* key, const auto& member) {
    json[section][key] = value_of(key, member);
  });
  if (run.fleet.machine.empty()) json.erase("fleet");
  // Keys that may stay absent, because what they stand for is not one value.
  for (const char* key : {"silence_s", "reconnect_s"})
    if (json["recovery"][key].is_null()) json["recovery"].erase(key);
  return json.dump();
}

std::string spec_digest(const spec::RunSpec& spec) {
  const std::string text = json_of(spec).dump();
  return digest_hex(bytes_of(text));
}

std::vector<std::string> differences(const spec::RunSpec& a, const spec::RunSpec& b) {
  const Json left = json_of(a);
  const Json right = json_of(b);
  std::vector<std::string> out;
  for (const auto& [section, values] : left.items())
    for (const auto& [key, value] : values.items())
      if (const Json& other = right[section][key]; value != other)
        out.push_back(fmt::format("{}.{}: {} / {}", section, key, value.dump(), other.dump()));
  return out;
}

}  // namespace isthmus::config
