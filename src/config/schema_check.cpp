#include "config/schema_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <regex>
#include <vector>

#include "config/nearest.h"
#include "config/quoted.h"
#include "config/run_schema.h"

namespace isthmus::config {

using nlohmann::json;

namespace {

std::string type_name(const toml::node& node) {
  switch (node.type()) {
    case toml::node_type::string:
      return "a text";
    case toml::node_type::integer:
      return "an integer";
    case toml::node_type::floating_point:
      return "a number with a fraction";
    case toml::node_type::boolean:
      return "true or false";
    case toml::node_type::array:
      return "an array";
    case toml::node_type::table:
      return "a table";
    default:
      return "a date or time";
  }
}

bool has_type(const toml::node& node, const std::string& type) {
  if (type == "integer") return node.is_integer();
  if (type == "number") return node.is_number();
  if (type == "string") return node.is_string();
  if (type == "boolean") return node.is_boolean();
  if (type == "array") return node.is_array();
  return node.is_table();
}

std::vector<std::string> types_of(const json& schema) {
  const json& type = schema.at("type");
  return type.is_array() ? type.get<std::vector<std::string>>() : std::vector<std::string>{type};
}

// A value as it would be written.
std::string shown(const toml::node& node) {
  if (const auto* text = node.as_string()) return quoted(text->get());
  if (const auto* number = node.as_integer()) return fmt::format("{}", number->get());
  if (const auto* number = node.as_floating_point()) return fmt::format("{}", number->get());
  if (const auto* flag = node.as_boolean()) return fmt::format("{}", flag->get());
  return type_name(node);
}

std::string number_text(const json& number) {
  return number.is_number_float() ? fmt::format("{}", number.get<double>()) : number.dump();
}

// The range a schema states, in words: "1 to 8", "above 0 and at most 1".
std::string range_text(const json& s) {
  if (s.contains("minimum") && s.contains("maximum"))
    return fmt::format("{} to {}", number_text(s["minimum"]), number_text(s["maximum"]));
  std::vector<std::string> parts;
  if (s.contains("minimum")) parts.push_back("at least " + number_text(s["minimum"]));
  if (s.contains("exclusiveMinimum")) parts.push_back("above " + number_text(s["exclusiveMinimum"]));
  if (s.contains("maximum")) parts.push_back("at most " + number_text(s["maximum"]));
  if (s.contains("exclusiveMaximum")) parts.push_back("below " + number_text(s["exclusiveMaximum"]));
  return fmt::format("{}", fmt::join(parts, " and "));
}

// How many of what an array may have: "at most 8 tables", "1 to 100 whole numbers".
std::string count_text(const json& s) {
  const std::string type = s.at("items").at("type");
  const int most = s.at("maxItems").get<int>();
  const int least = s.value("minItems", 0);
  const std::string count = least == most            ? fmt::format("{}", most)
                            : s.contains("minItems") ? fmt::format("{} to {}", least, most)
                                                     : fmt::format("at most {}", most);
  return fmt::format("{} {}", count,
                     type == "object"    ? "tables"
                     : type == "integer" ? "whole numbers"
                     : type == "number"  ? "numbers"
                                         : "texts");
}

// What may stand where this schema holds.
std::string expectation(const json& s) {
  if (s.contains("enum"))
    return fmt::format("one of \"{}\"", fmt::join(s["enum"].get<std::vector<std::string>>(), "\", \""));
  if (s.contains("patternErrorMessage")) return s["patternErrorMessage"];
  std::vector<std::string> words;
  for (const auto& type : types_of(s)) {
    if (type == "integer" || type == "number")
      words.push_back(fmt::format("{} {}", type == "integer" ? "a whole number," : "a number,", range_text(s)));
    else if (type == "string")
      words.push_back(fmt::format("a text of at most {} bytes", s.at("maxLength").get<int>()));
    else if (type == "boolean")
      words.push_back("true or false");
    else if (type == "array")
      words.push_back(count_text(s));
    else
      words.push_back("a table");
  }
  return fmt::format("{}", fmt::join(words, " or "));
}

bool in_range(const toml::node& node, const json& s) {
  // Not node.value<double>(): that is nothing for an integer without an exact double.
  const auto* integer = node.as_integer();
  const double value = integer ? static_cast<double>(integer->get()) : node.as_floating_point()->get();
  const auto bound = [&](const char* keyword) { return s.at(keyword).get<double>(); };
  return std::isfinite(value) && !(s.contains("minimum") && value < bound("minimum")) &&
         !(s.contains("maximum") && value > bound("maximum")) &&
         !(s.contains("exclusiveMinimum") && value <= bound("exclusiveMinimum")) &&
         !(s.contains("exclusiveMaximum") && value >= bound("exclusiveMaximum"));
}

bool may_be(const std::string& text, const json& s) {
  if (s.contains("enum")) return std::ranges::count(s["enum"], json(text)) > 0;
  // Before the pattern: std::regex recurses once per character.
  if (text.size() > s.at("maxLength").get<std::size_t>()) return false;
  return !s.contains("pattern") || std::regex_match(text, std::regex(s["pattern"].get<std::string>()));
}

class SchemaCheck {
 public:
  SchemaCheck(const json& root, ProblemList& problems) : root_(root), problems_(problems) {}

  void check_table(const toml::table& table, const json& schema, const std::string& path) {
    const json& known = schema.at("properties");
    for (const auto& [key, node] : table) {
      const std::string name(key.str());
      const std::string full = path.empty() ? name : path + "." + name;
      if (known.contains(name))
        check_value(node, known[name], full);
      else
        add_unknown(RunDocument::place_of(key.source()), name, path, known);
    }
    for (const auto& key : schema.value("required", std::vector<std::string>()))
      if (!table.contains(key))
        add_missing(RunDocument::place_of(table.source()), path.empty() ? key : path + "." + key, known[key]);
  }

 private:
  void check_value(const toml::node& node, const json& schema, const std::string& path) {
    const auto types = types_of(schema);
    if (std::ranges::none_of(types, [&](const auto& type) { return has_type(node, type); }))
      return refuse(node, schema, path);
    if (const auto* table = node.as_table()) return check_table(*table, schema, path);
    if (const auto* array = node.as_array()) return check_array(*array, schema, path);
    if (const auto* text = node.as_string(); text && !may_be(text->get(), schema)) refuse(node, schema, path);
    if (node.is_number() && !in_range(node, schema)) refuse(node, schema, path);
  }

  void check_array(const toml::array& array, const json& schema, const std::string& path) {
    if (array.size() > schema.at("maxItems").get<std::size_t>() ||
        array.size() < schema.value("minItems", std::size_t{0}))
      return problems_.add(RunDocument::place_of(array.source()), path,
                           fmt::format("{} has {} entries", path, array.size()), expectation(schema));
    for (std::size_t i = 0; i < array.size(); ++i)
      check_value(*array.get(i), schema.at("items"), fmt::format("{}[{}]", path, i));
  }

  void refuse(const toml::node& node, const json& schema, const std::string& path) {
    problems_.add(RunDocument::place_of(node.source()), path, fmt::format("{} is {}", path, shown(node)),
                  expectation(schema));
  }

  void add_missing(Place place, const std::string& path, const json& schema) {
    problems_.add(place, path, fmt::format("{} is missing", path), expectation(schema));
  }

  void add_unknown(Place place, const std::string& name, const std::string& path, const json& known) {
    const std::string in = path.empty() ? "" : " in " + path;
    problems_.add(place, fmt::format("unknown key {}{}", quoted(name), in),
                  problems_.is_full() ? "" : suggestion(name, path, known));
  }

  // A key of this very name elsewhere is likelier to be meant than one that looks alike here.
  std::string suggestion(const std::string& name, const std::string& path, const json& known) const {
    for (const auto& [section, schema] : root_.at("properties").items())
      if (section != path && schema.contains("properties") && schema["properties"].contains(name))
        return fmt::format("it in [{}]", section);
    std::vector<std::string> names;
    for (const auto& [key, schema] : known.items()) names.push_back(key);
    if (const auto near = nearest(name, names)) return fmt::format("did you mean \"{}\"?", *near);
    return fmt::format("one of {}", fmt::join(names, ", "));
  }

  const json& root_;
  ProblemList& problems_;
};

}  // namespace

const json& run_schema() {
  static const json parsed = json::parse(kRunSchema);
  return parsed;
}

const json& host_schema() {
  static const json parsed = json::parse(kHostSchema);
  return parsed;
}

const json& sweep_schema() {
  static const json parsed = json::parse(kSweepSchema);
  return parsed;
}

const json& paths_schema() {
  static const json parsed = json::parse(kPathsSchema);
  return parsed;
}

void check_against_schema(const toml::table& root, const json& schema, ProblemList& problems) {
  SchemaCheck(schema, problems).check_table(root, schema, "");
}

}  // namespace isthmus::config
