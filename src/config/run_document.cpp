#include "config/run_document.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "config/quoted.h"
#include "config/schema_check.h"
#include "spec/boundary_form.h"

namespace isthmus::config {

namespace {

// toml++ 3.3 limits the nesting of values (256) but not of dotted keys, and frees its tree by
// recursion: a line "a.a.a…" of some hundred kilobytes would overflow the stack. A run file needs
// one dot per key.
constexpr std::ptrdiff_t kDotsMax = 64;

// Why the text must not reach the parser, if so.
std::optional<Problem> refusal(std::string_view text) {
  if (text.size() > kRunFileBytesMax)
    return Problem{"", 0, 0, "there is more than 1 MiB of it", "a run file of at most 1 MiB"};
  int line = 1;
  for (std::size_t begin = 0; begin < text.size(); ++line) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const auto dots = std::ranges::count(text.substr(begin, end - begin), '.');
    if (dots > kDotsMax)
      return Problem{"", line, 1, fmt::format("the line has {} dots", dots),
                     fmt::format("at most {} in a line", kDotsMax)};
    begin = end + 1;
  }
  return std::nullopt;
}

// A table with the one key "value"; nothing if the text is neither a TOML value nor a bare word.
std::optional<toml::table> parse_value(const std::string& text) {
  if (refusal(text)) return std::nullopt;
  const auto parse = [](const std::string& right_side) -> std::optional<toml::table> {
    try {
      auto parsed = toml::parse("value = " + right_side);
      // A line break would smuggle in a second key.
      if (parsed.size() != 1) return std::nullopt;
      return parsed;
    } catch (const toml::parse_error&) {
      return std::nullopt;
    }
  };
  if (auto parsed = parse(text)) return parsed;
  if (text.empty() || text.find_first_of("'\"\\[]{}=#\n\r") != std::string::npos) return std::nullopt;
  return parse('"' + text + '"');
}

// Another file than the run file; what is wrong with it goes to `refuse(place, what)`.
template <class Refuse>
std::optional<toml::table> parse_other(std::string_view text, const std::string& file, const Refuse& refuse) {
  const auto at = [&](Place place, const std::string& what) {
    place.file = file;
    refuse(place, what);
    return std::nullopt;
  };
  if (auto refused = refusal(text)) return at({refused->line, refused->column}, refused->what);
  try {
    return toml::parse(text, file);
  } catch (const toml::parse_error& error) {
    return at(RunDocument::place_of(error.source()), std::string(error.description()));
  }
}

}  // namespace

std::optional<RunDocument> RunDocument::parse(std::string_view text, const std::vector<std::string>& overrides,
                                              ProblemList& problems) {
  if (auto refused = refusal(text)) {
    problems.add({refused->line, refused->column}, refused->what, refused->expected);
    return std::nullopt;
  }
  RunDocument document;
  try {
    document.root_ = toml::parse(text);
  } catch (const toml::parse_error& error) {
    problems.add(place_of(error.source()), std::string(error.description()), "a TOML file");
    return std::nullopt;
  }
  for (const auto& override_text : overrides) document.override_with(override_text, problems);
  document.drop_replaced();
  return document;
}

void RunDocument::take_host(std::string_view text, const std::string& file, ProblemList& problems) {
  auto host = parse_other(text, file, [&](const Place& place, const std::string& what) {
    problems.add(place, what, "a host file: [data], [pipeline] and [recovery] with this machine's own keys");
  });
  if (!host) return;
  check_against_schema(*host, host_schema(), problems);
  const auto* device = find("pipeline.device");
  const bool emulated = device && device->value<std::string_view>() == "emulated";
  for (const auto& [section, schema] : host_schema().at("properties").items())
    for (const auto& [key, ignored] : schema.at("properties").items()) {
      const std::string path = section + "." + key;
      auto* value = host->at_path(path).node();
      if (!value || !problems.sound({path}) || is_override(path)) continue;
      if (path == "pipeline.device" && emulated) {
        problems.add(place_of(value->source()), path, "pipeline.device in a run whose devices are all emulated",
                     "no such key");
        continue;
      }
      put(section, key, *value);
    }
}

void RunDocument::take_open(std::string_view text, const std::string& file, ProblemList& problems) {
  auto earlier = parse_other(text, file, [&](const Place& place, const std::string& what) {
    problems.add(place, what, "the run that was begun; restore the file");
  });
  if (!earlier) return;
  std::vector<std::pair<const char*, const char*>> keys = {{"train", "warmup_steps"}, {"train", "schedule_steps"}};
  // How replicas agree follows from the link, if the file does not say it.
  if (!has("sync.mode"))
    for (const char* key : {"mode", "every", "learning_rate", "momentum"}) keys.emplace_back("sync", key);
  for (const auto& [section, key] : keys) {
    const std::string path = fmt::format("{}.{}", section, key);
    if (auto* value = earlier->at_path(path).node(); value && !has(path)) put(section, key, *value);
  }
}

void RunDocument::put(const std::string& section, const std::string& key, toml::node& value) {
  auto* table = root_.insert(section, toml::table()).first->second.as_table();
  // Not a table: that is a problem of the file, which the schema finds.
  if (!table) return;
  // A node that is moved remembers where it was written, and in which file.
  value.visit([&](auto& node) { table->insert_or_assign(key, std::move(node)); });
}

void RunDocument::take_fleet(std::string_view text, const std::string& file, ProblemList& problems) {
  const std::string expected = "[[fleet.machine]] and [[fleet.link]] tables, as in the fleet.toml of a run";
  // Nothing is said of the fleet in the run file, which does not count.
  const auto refuse = [&](const Place& place, const std::string& what) {
    root_.erase("fleet");
    problems.add(place, "fleet", what, expected);
  };
  auto other = parse_other(text, file, refuse);
  if (!other) return;
  for (auto&& [key, node] : *other)
    if (key != "fleet")
      problems.add(place_of(key.source()), fmt::format("unknown table {}", quoted(std::string(key.str()))), expected);
  auto* fleet = other->get("fleet");
  if (!fleet) return refuse({0, 0, false, file}, "there is no [[fleet.machine]]");
  // A node that is moved remembers where it was written, and in which file.
  fleet->visit([&](auto& node) { root_.insert_or_assign("fleet", std::move(node)); });
  drop_from_file("pipeline", "replicas");
  if (auto* pipeline = root_.get_as<toml::table>("pipeline"))
    if (auto* stages = pipeline->get_as<toml::array>("stage"))
      for (auto& stage : *stages)
        if (auto* table = stage.as_table()) table->erase("replicas");
}

void RunDocument::override_with(const std::string& text, ProblemList& problems) {
  const auto refuse = [&](std::string what, std::string expected) {
    problems.add({0, 0, true}, std::move(what), std::move(expected));
  };
  const auto equals = text.find('=');
  const auto dot = text.substr(0, equals).find('.');
  if (equals == std::string::npos || dot == std::string::npos || dot == 0 || dot + 1 == equals)
    return refuse(fmt::format("the override {} sets nothing", quoted(text)), "section.key=value");
  const std::string section = text.substr(0, dot);
  const std::string key = text.substr(dot + 1, equals - dot - 1);
  if (section == "pipeline" && (key == "stage" || key.starts_with("stage[") || key.starts_with("stage.")))
    return refuse("pipeline.stage cannot be set on the command line",
                  "the layer map in the run file, or pipeline.layout=auto and pipeline.stages=N");
  if (section == "fleet")
    return refuse("the fleet cannot be set on the command line",
                  "[[fleet.machine]] and [[fleet.link]] in the run file");
  auto parsed = parse_value(text.substr(equals + 1));
  if (!parsed)
    return refuse(fmt::format("the override {} cannot be read", quoted(text)), "a TOML value or a word after the =");
  auto* table = root_.insert(section, toml::table()).first->second.as_table();
  // Not a table: that is a problem of the file, which the schema finds.
  if (!table) return;
  // A copy forgets where it was written: this is what tells an override from the file.
  parsed->get("value")->visit([&](const auto& node) { table->insert_or_assign(key, node); });
}

void RunDocument::drop_replaced() {
  const auto chose = [&](const std::string& path, std::string_view choice) {
    const auto* node = find(path);
    return node && is_override(path) && node->value<std::string_view>() == choice;
  };
  if (const auto* codec = find("boundary.codec"); codec && is_override("boundary.codec")) {
    const spec::BoundaryForm form = spec::boundary_form(codec->value<std::string_view>().value_or(""));
    if (!form.narrow) drop_from_file("boundary", "rank");
    if (!form.constrained) drop_from_file("boundary", "factored_layers");
    if (!form.sparse) drop_from_file("boundary", "error_feedback");
  }
  if (chose("pipeline.layout", "auto")) drop_from_file("pipeline", "stage");
  auto* emulated = root_.get_as<toml::table>("emulated");
  if (emulated && (chose("pipeline.device", "cpu") || chose("pipeline.device", "cuda"))) {
    for (auto at = emulated->begin(); at != emulated->end();)
      at = place_of(at->second.source()).is_override ? std::next(at) : emulated->erase(at);
    if (emulated->empty()) root_.erase("emulated");
  }
}

void RunDocument::drop_from_file(const std::string& section, const std::string& key) {
  auto* table = root_.get_as<toml::table>(section);
  if (table && !is_override(section + "." + key)) table->erase(key);
}

bool RunDocument::is_override(const std::string& path) const { return has(path) && place(path).is_override; }

const toml::node* RunDocument::find(const std::string& path) const { return root_.at_path(path).node(); }

Place RunDocument::place(const std::string& path) const {
  if (const auto* node = find(path)) return place_of(node->source());
  const auto end = path.find_last_of(".[");
  const Place holder = end == std::string::npos ? Place{} : place(path.substr(0, end));
  // No override left the value out.
  return holder.is_override ? Place{} : holder;
}

Place RunDocument::place_of(const toml::source_region& region) {
  const int line = static_cast<int>(region.begin.line);
  return {line, static_cast<int>(region.begin.column), line == 0, region.path ? *region.path : std::string()};
}

}  // namespace isthmus::config
