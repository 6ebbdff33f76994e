#include "config/load_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <sstream>
#include <toml++/toml.h>

#include "config/layer_map.h"
#include "config/run_fields.h"
#include "config/run_schema.h"
#include "config/schema_check.h"

namespace isthmus {

using nlohmann::json;

namespace {

constexpr std::uintmax_t kFileBytesMax = 1 << 20;
// A microbatch on a boundary, and what one has to hold of it, must stay far away from overflow.
constexpr double kMicrobatchBytesMax = 2147483648.0;

const json& schema() {
  static const json parsed = json::parse(kRunSchema);
  return parsed;
}

class Loader {
 public:
  Loader(std::string_view text, std::string file, const std::vector<std::string>& overrides)
      : text_(text), file_(std::move(file)), overrides_(overrides) {}

  tl::expected<RunConfig, std::vector<Problem>> load() {
    try {
      root_ = toml::parse(text_, file_);
    } catch (const toml::parse_error& error) {
      const auto at = error.source().begin;
      problems_.push_back({file_, static_cast<int>(at.line), static_cast<int>(at.column),
                           std::string(error.description()), "a TOML file"});
      return tl::unexpected(std::move(problems_));
    }
    for (const auto& text : overrides_) override_with(text);
    check_against_schema(root_, schema(), "",
                         [&](const toml::node* where, const std::string& path, std::string what, std::string expected) {
                           wrong_.insert(path);
                           add(where, path, std::move(what), std::move(expected));
                         });
    read_fields();
    read_stages();
    check_model();
    check_training();
    check_map();
    check_boundary();
    resolve();
    if (!problems_.empty()) {
      std::ranges::stable_sort(problems_, {}, [](const Problem& p) { return std::pair(p.line, p.column); });
      return tl::unexpected(std::move(problems_));
    }
    return run_;
  }

 private:
  // ------------------------------------------------------------------------------------- problems
  void add(const toml::node* where, const std::string& path, std::string what, std::string expected) {
    Problem problem{file_, 0, 0, std::move(what), std::move(expected)};
    if (overridden_.contains(path)) {
      problem.file = "--set";
    } else if (where) {
      problem.line = static_cast<int>(where->source().begin.line);
      problem.column = static_cast<int>(where->source().begin.column);
    }
    problems_.push_back(std::move(problem));
  }

  // The node of "section.key", or its table's, or none.
  const toml::node* place(const std::string& path) const {
    const auto dot = path.find('.');
    const toml::node* section = root_.get(path.substr(0, dot));
    if (!section || dot == std::string::npos || !section->is_table()) return section;
    const toml::node* node = section->as_table()->get(path.substr(dot + 1));
    return node ? node : section;
  }
  bool present(const std::string& path) const {
    const auto dot = path.find('.');
    const auto* section = root_.get_as<toml::table>(path.substr(0, dot));
    return section && section->contains(path.substr(dot + 1));
  }
  void problem_at(const std::string& path, std::string what, std::string expected) {
    add(place(path), path, std::move(what), std::move(expected));
  }
  bool sound(std::initializer_list<const char*> paths) const {
    return std::ranges::none_of(paths, [&](const char* path) { return wrong_.contains(path); });
  }

  // ------------------------------------------------------------------------------------- overrides
  void override_with(const std::string& text) {
    const auto equals = text.find('=');
    const auto dot = text.find('.');
    if (equals == std::string::npos || dot == std::string::npos || dot > equals) {
      problems_.push_back({"--set", 0, 0, fmt::format("\"{}\"", text), "section.key=value"});
      return;
    }
    const std::string section = text.substr(0, dot), key = text.substr(dot + 1, equals - dot - 1);
    const std::string value = text.substr(equals + 1);
    if (section == "pipeline" && key == "stage") {
      problems_.push_back({"--set", 0, 0, "pipeline.stage is a list of tables",
                           "a change in the run file, or pipeline.layout=auto with pipeline.stages=N"});
      return;
    }
    toml::table parsed;
    try {
      parsed = toml::parse("v = " + value);
    } catch (const toml::parse_error&) {
      parsed.insert_or_assign("v", value);  // a bare word is a text
    }
    if (parsed.size() != 1 || !parsed.contains("v")) {
      problems_.push_back({"--set", 0, 0, fmt::format("\"{}\"", text), "one value"});
      return;
    }
    if (!root_.contains(section)) root_.insert(section, toml::table());
    auto* table = root_.get_as<toml::table>(section);
    if (!table) {
      problems_.push_back({"--set", 0, 0, fmt::format("{} is not a table in {}", section, file_), "[section] tables"});
      return;
    }
    overridden_.insert(section + "." + key);
    parsed.get("v")->visit([&](auto& node) { table->insert_or_assign(key, node); });
  }

  // ------------------------------------------------------------------------------------- reading
  template <class T>
  static void assign(T& member, const toml::node& node) {
    if constexpr (std::is_same_v<T, std::string>) {
      if (const auto text = node.value_exact<std::string>())
        member = *text;
      else if (const auto number = node.value_exact<std::int64_t>())
        member = std::to_string(*number);  // pipeline.credits
    } else if constexpr (std::is_same_v<T, std::optional<std::uint32_t>>) {
      if (const auto number = node.value_exact<std::int64_t>()) member = static_cast<std::uint32_t>(*number);
    } else if constexpr (std::is_same_v<T, bool>) {
      member = node.value_exact<bool>().value_or(member);
    } else if constexpr (std::is_floating_point_v<T>) {
      member = node.value<double>().value_or(member);
    } else {
      if (const auto number = node.value_exact<std::int64_t>()) member = static_cast<T>(*number);
    }
  }

  void read_fields() {
    for_each_field(run_, [&](const char* section, const char* key, auto& member) {
      const std::string path = fmt::format("{}.{}", section, key);
      if (wrong_.contains(path) || !present(path)) return;
      assign(member, *root_.get_as<toml::table>(section)->get(key));
    });
  }

  void read_stages() {
    const auto* pipeline = root_.get_as<toml::table>("pipeline");
    const auto* stages = pipeline ? pipeline->get_as<toml::array>("stage") : nullptr;
    if (!stages) return;
    for (std::size_t i = 0; i < stages->size(); ++i) {
      const auto* table = stages->get_as<toml::table>(i);
      const std::string path = fmt::format("pipeline.stage[{}]", i);
      if (!table || wrong_.contains(path)) continue;
      RunConfig::Stage stage;
      stage_places_.push_back(table);
      if (const auto* replicas = table->get("replicas"); replicas && !wrong_.contains(path + ".replicas")) {
        assign(stage.replicas, *replicas);
        if (stage.replicas > 1)
          add(replicas, path, fmt::format("{}.replicas is {}", path, stage.replicas),
              "1: several replicas of a stage are not served yet");
      }
      const auto* layers = table->get_as<std::string>("layers");
      if (!layers && !table->contains("layers"))
        add(table, path, fmt::format("{} has no layers", path), "layers = \"first:end\"");
      if (!layers || wrong_.contains(path + ".layers") || !parse_range(layers->get(), stage)) {
        if (layers && !wrong_.contains(path + ".layers"))
          add(layers, path, fmt::format("{}.layers is \"{}\"", path, layers->get()), "first:end with first below end");
        map_is_readable_ = false;
        continue;
      }
      run_.pipeline.stage.push_back(stage);
    }
  }

  static bool parse_range(const std::string& text, RunConfig::Stage& stage) {
    const auto colon = text.find(':');
    const char* const begin = text.data();
    const char* const end = begin + text.size();
    const auto first = std::from_chars(begin, begin + colon, stage.first_layer);
    const auto last = std::from_chars(begin + colon + 1, end, stage.end_layer);
    return first.ec == std::errc() && last.ec == std::errc() && stage.first_layer < stage.end_layer;
  }

  // ------------------------------------------------------------------------------------- checks
  void check_model() {
    if (!sound({"model.hidden", "model.heads"})) return;
    const auto& m = run_.model;
    if (m.hidden % m.heads != 0)
      problem_at("model.heads", fmt::format("model.heads is {}", m.heads), fmt::format("a divisor of hidden = {}", m.hidden));
    else if (m.hidden / m.heads % 2 != 0)
      problem_at("model.heads", fmt::format("each head is {} wide", m.hidden / m.heads),
                 "an even width (rotary embedding turns pairs)");
  }

  void check_training() {
    const auto& t = run_.train;
    if (sound({"train.warmup_steps", "run.steps"}) && t.warmup_steps > run_.run.steps) {
      // Only an explicit one is a contradiction; the default shrinks with a short run.
      if (present("train.warmup_steps"))
        problem_at("train.warmup_steps", fmt::format("train.warmup_steps is {}", t.warmup_steps),
                   fmt::format("at most run.steps = {}", run_.run.steps));
      else
        run_.train.warmup_steps = run_.run.steps;
    }
    const double tokens = static_cast<double>(t.sequences_per_microbatch) * run_.model.context;
    if (tokens * run_.model.hidden * 4 > kMicrobatchBytesMax)
      problem_at("train.sequences_per_microbatch",
                 fmt::format("a microbatch of {} sequences × {} tokens × hidden {} is {:.1f} GiB", t.sequences_per_microbatch,
                             run_.model.context, run_.model.hidden, tokens * run_.model.hidden * 4 / 1073741824),
                 "at most 2 GiB; fewer sequences per microbatch, more microbatches");
    if (run_.pipeline.device != "emulated") {
      for (const auto& [path, value] : {std::pair("data.train", run_.data.train), std::pair("data.validation", run_.data.validation)})
        if (value.empty() && sound({path}))
          problem_at(path, fmt::format("{} is missing", path), "the path of a token shard (isthmus data pack makes one)");
      if (root_.contains("emulated"))
        problem_at("emulated", "[emulated] has no effect", fmt::format("pipeline.device = \"emulated\", not \"{}\"", run_.pipeline.device));
    }
    if (run_.run.name.empty() || run_.run.name.find_first_of("/\\") != std::string::npos || run_.run.name.starts_with("."))
      problem_at("run.name", fmt::format("run.name is \"{}\"", run_.run.name), "a plain name: it is a folder below runs/");
    for (const auto& [path, value] : {std::pair("run.name", run_.run.name), std::pair("data.train", run_.data.train),
                                      std::pair("data.validation", run_.data.validation)})
      if (std::ranges::any_of(value, [](char c) { return static_cast<unsigned char>(c) < 32; }))
        problem_at(path, fmt::format("{} holds a control character", path), "printable text");
    if (run_.run.deterministic && run_.pipeline.threads > 1)
      problem_at("pipeline.threads", fmt::format("pipeline.threads is {}", run_.pipeline.threads),
                 "1, or 0, in a deterministic run: sums depend on the number of threads");
    if (run_.pipeline.credits != "auto" && run_.pipeline.credits.find_first_not_of("0123456789") != std::string::npos)
      problem_at("pipeline.credits", fmt::format("pipeline.credits is \"{}\"", run_.pipeline.credits), "auto or a number");
  }

  void check_map() {
    auto& p = run_.pipeline;
    const auto layers = run_.model.layers;
    if (p.layout == "auto") {
      if (!stage_places_.empty())
        add(stage_places_.front(), "pipeline.stage", "[[pipeline.stage]] with layout = \"auto\"",
            "either the stages or layout = \"auto\" with a number of them");
      if (p.stages == 0 || p.stages > layers)
        problem_at("pipeline.stages", fmt::format("pipeline.stages is {}", p.stages),
                   fmt::format("1 to model.layers = {} with layout = \"auto\"", layers));
      else
        p.stage = balanced_layers(layers, p.stages, static_cast<double>(run_.model.vocabulary) / (12.0 * run_.model.hidden));
      return;
    }
    if (stage_places_.empty()) {
      problem_at("pipeline", "no [[pipeline.stage]]", "one per stage, or layout = \"auto\" with stages = N");
      return;
    }
    if (!map_is_readable_ || !sound({"model.layers"})) return;
    if (present("pipeline.stages") && p.stages != p.stage.size())
      problem_at("pipeline.stages", fmt::format("pipeline.stages is {}", p.stages),
                 fmt::format("{}, the number of [[pipeline.stage]] tables", p.stage.size()));
    std::uint32_t next = 0;
    for (std::size_t i = 0; i < p.stage.size(); ++i) {
      const auto& stage = p.stage[i];
      const auto say = [&](std::string what, std::string expected) {
        add(stage_places_[i], "pipeline.stage", std::move(what), std::move(expected));
      };
      if (stage.first_layer > next)
        say(fmt::format("layers {} to {} are in no stage", next, stage.first_layer - 1), fmt::format("stage {} to begin with layer {}", i, next));
      if (stage.first_layer < next)
        say(fmt::format("layer {} is in two stages", stage.first_layer), fmt::format("stage {} to begin with layer {}", i, next));
      if (stage.end_layer > layers)
        say(fmt::format("stage {} ends with layer {}", i, stage.end_layer - 1), fmt::format("at most {}, the last of model.layers = {}", layers - 1, layers));
      next = std::max(next, stage.end_layer);
    }
    if (next < layers)
      add(stage_places_.back(), "pipeline.stage", fmt::format("layers {} to {} are in no stage", next, layers - 1),
          fmt::format("the last stage to end with {}", layers));
  }

  void check_boundary() {
    const auto& b = run_.boundary;
    if (b.codec == "identity") {
      for (const char* path : {"boundary.rank", "boundary.factored_layers"})
        if (present(path)) problem_at(path, fmt::format("{} with codec = \"identity\"", path), "codec = \"subspace\", or no such key");
      return;
    }
    if (sound({"boundary.rank", "model.hidden"}) && b.rank > run_.model.hidden)
      problem_at("boundary.rank", fmt::format("boundary.rank is {}", b.rank), fmt::format("at most hidden = {}", run_.model.hidden));
    if (!b.factored_layers || run_.pipeline.stage.empty() || !sound({"boundary.factored_layers"})) return;
    const auto tail = run_.pipeline.stage.back().first_layer;
    if (*b.factored_layers < tail || *b.factored_layers > run_.model.layers)
      problem_at("boundary.factored_layers", fmt::format("boundary.factored_layers is {}", *b.factored_layers),
                 fmt::format("{} to {}: every layer before the last boundary writes through the subspace", tail, run_.model.layers));
  }

  void resolve() {
    run_.pipeline.layout = "explicit";
    run_.pipeline.stages = static_cast<std::uint32_t>(run_.pipeline.stage.size());
    if (run_.model.mlp == 0) run_.model.mlp = (run_.model.hidden * 8 / 3 + 31) / 32 * 32;
    if (run_.pipeline.stage.empty()) return;
    if (run_.boundary.codec == "identity")
      run_.boundary.factored_layers = 0;
    else if (!run_.boundary.factored_layers)
      run_.boundary.factored_layers = run_.pipeline.stage.back().first_layer;
  }

  const std::string_view text_;
  const std::string file_;
  const std::vector<std::string>& overrides_;
  toml::table root_;
  RunConfig run_;
  std::vector<Problem> problems_;
  std::set<std::string> wrong_;
  std::set<std::string> overridden_;
  std::vector<const toml::table*> stage_places_;
  bool map_is_readable_ = true;
};

}  // namespace

std::string Problem::text() const {
  const std::string place = line > 0 ? fmt::format("{}:{}:{}", file, line, column) : file;
  return fmt::format("{}: {}, expected {}", place, what, expected);
}

tl::expected<RunConfig, std::vector<Problem>> parse_run(std::string_view text, const std::string& file,
                                                       const std::vector<std::string>& overrides) {
  return Loader(text, file, overrides).load();
}

tl::expected<RunConfig, std::vector<Problem>> load_run(const std::string& path,
                                                      const std::vector<std::string>& overrides) {
  const auto refuse = [&](std::string what, std::string expected) {
    return tl::unexpected(std::vector<Problem>{{path, 0, 0, std::move(what), std::move(expected)}});
  };
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return refuse("no such file", "a run file; configs/ holds examples");
  if (!std::filesystem::is_regular_file(path, error)) return refuse("not a file", "a run file; configs/ holds examples");
  if (std::filesystem::file_size(path, error) > kFileBytesMax) return refuse("larger than 1 MiB", "a run file");
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  if (!in) return refuse("cannot be read", "a readable file");
  return parse_run(text.str(), path, overrides);
}

std::string resolved_toml(const RunConfig& run) {
  std::string out, section_now;
  const auto quoted = [](const std::string& text) { return json(text).dump(); };
  for_each_field(run, [&](const std::string& section, const std::string& key, const auto& member) {
    using T = std::decay_t<decltype(member)>;
    if (section == "emulated" && run.pipeline.device != "emulated") return;
    if (section == "boundary" && run.boundary.codec == "identity" && (key == "rank" || key == "factored_layers")) return;
    if (section == "pipeline" && key == "layout") {
      out += "\n[pipeline]\nlayout = \"explicit\"\n";
      section_now = section;
      return;
    }
    if (section != section_now) out += fmt::format("{}[{}]\n", out.empty() ? "" : "\n", section);
    section_now = section;
    if constexpr (std::is_same_v<T, std::string>)
      out += fmt::format("{} = {}\n", key, quoted(member));
    else if constexpr (std::is_same_v<T, std::optional<std::uint32_t>>)
      out += member ? fmt::format("{} = {}\n", key, *member) : "";
    else if constexpr (std::is_floating_point_v<T>)
      out += fmt::format("{} = {}\n", key, json(member).dump());
    else
      out += fmt::format("{} = {}\n", key, member);
  });
  for (const auto& stage : run.pipeline.stage)
    out += fmt::format("\n[[pipeline.stage]]\nlayers = \"{}:{}\"\nreplicas = {}\n", stage.first_layer, stage.end_layer, stage.replicas);
  return out;
}

std::string resolved_json(const RunConfig& run) {
  json out;
  for_each_field(run, [&](const char* section, const char* key, const auto& member) {
    if constexpr (std::is_same_v<std::decay_t<decltype(member)>, std::optional<std::uint32_t>>) {
      if (member) out[section][key] = *member;
    } else {
      out[section][key] = member;
    }
  });
  for (const auto& stage : run.pipeline.stage)
    out["pipeline"]["stage"].push_back(
        {{"layers", fmt::format("{}:{}", stage.first_layer, stage.end_layer)}, {"replicas", stage.replicas}});
  return out.dump();
}

std::vector<std::string> differences(const RunConfig& a, const RunConfig& b) {
  const json left = json::parse(resolved_json(a)), right = json::parse(resolved_json(b));
  std::vector<std::string> out;
  for (const auto& [section, values] : left.items())
    for (const auto& [key, value] : values.items()) {
      const json other = right[section].value(key, json());
      if (value != other) out.push_back(fmt::format("{}.{}: {} / {}", section, key, value.dump(), other.dump()));
    }
  return out;
}

}  // namespace isthmus
