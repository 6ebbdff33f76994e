#include "config/schema_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <regex>
#include <vector>

#include "config/nearest.h"

namespace isthmus {

using nlohmann::json;

namespace {

std::string type_name(const toml::node& node) {
  switch (node.type()) {
    case toml::node_type::string:
      return "a text";
    case toml::node_type::integer:
      return "an integer";
    case toml::node_type::floating_point:
      return "a number";
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

std::string described(const std::string& type) {
  if (type == "string") return "a text";
  if (type == "boolean") return "true or false";
  return (type == "integer" || type == "array" ? "an " : "a ") + (type == "object" ? "table" : type);
}

template <class Strings>
std::string joined(const Strings& words, const char* last) {
  std::string text;
  for (std::size_t i = 0; i < words.size(); ++i)
    text += (i == 0 ? "" : i + 1 == words.size() ? last : ", ") + words[i];
  return text;
}

std::string number_text(const json& number) {
  return number.is_number_float() ? fmt::format("{}", number.get<double>()) : number.dump();
}

// The range a schema states, in words; empty if it states none.
std::string range_text(const json& s) {
  std::vector<std::string> parts;
  if (s.contains("minimum")) parts.push_back("at least " + number_text(s["minimum"]));
  if (s.contains("exclusiveMinimum")) parts.push_back("above " + number_text(s["exclusiveMinimum"]));
  if (s.contains("maximum")) parts.push_back("at most " + number_text(s["maximum"]));
  if (s.contains("exclusiveMaximum")) parts.push_back("below " + number_text(s["exclusiveMaximum"]));
  return joined(parts, " and ");
}

bool in_range(const toml::node& node, const json& s) {
  const double value = *node.value<double>();
  if (!std::isfinite(value)) return false;
  return !(s.contains("minimum") && value < s["minimum"].get<double>()) &&
         !(s.contains("maximum") && value > s["maximum"].get<double>()) &&
         !(s.contains("exclusiveMinimum") && value <= s["exclusiveMinimum"].get<double>()) &&
         !(s.contains("exclusiveMaximum") && value >= s["exclusiveMaximum"].get<double>());
}

void check_value(const toml::node& node, const json& schema, const std::string& path, const ReportProblem& report) {
  const auto types = types_of(schema);
  if (std::ranges::none_of(types, [&](const auto& type) { return has_type(node, type); })) {
    std::vector<std::string> words;
    for (const auto& type : types) words.push_back(described(type));
    std::string expected = joined(words, " or ");
    if (schema.contains("enum")) {
      expected = "one of";
      for (const auto& choice : schema["enum"]) expected += " " + choice.dump();
    }
    report(&node, path, fmt::format("{} is {}", path, type_name(node)), expected);
    return;
  }
  if (const auto* table = node.as_table()) {
    check_against_schema(*table, schema, path, report);
  } else if (const auto* array = node.as_array()) {
    if (array->size() > schema.value("maxItems", std::size_t{1} << 20)) {
      report(&node, path, fmt::format("{} has {} entries", path, array->size()),
             fmt::format("at most {}", schema["maxItems"].get<std::size_t>()));
      return;
    }
    for (std::size_t i = 0; i < array->size(); ++i)
      check_value(*array->get(i), schema.at("items"), fmt::format("{}[{}]", path, i), report);
  } else if (const auto* text = node.as_string()) {
    const std::string& value = text->get();
    if (schema.contains("enum")) {
      const auto choices = schema["enum"].get<std::vector<std::string>>();
      if (std::ranges::find(choices, value) == choices.end()) {
        const auto near = nearest(value, choices);
        report(&node, path, fmt::format("{} is \"{}\"", path, value),
               near ? fmt::format("one of \"{}\"; did you mean \"{}\"?", fmt::join(choices, "\", \""), *near)
                    : fmt::format("one of \"{}\"", fmt::join(choices, "\", \"")));
      }
    } else if (value.size() > schema.value("maxLength", std::size_t{4096})) {
      report(&node, path, fmt::format("{} is a text of {} bytes", path, value.size()), "at most 4096");
    } else if (schema.contains("pattern") && !std::regex_match(value, std::regex(schema["pattern"].get<std::string>()))) {
      report(&node, path, fmt::format("{} is \"{}\"", path, value),
             types.size() > 1 ? std::string("\"auto\" or a number") : schema.value("description", ""));
    }
  } else if (node.is_number() && !in_range(node, schema)) {
    report(&node, path, fmt::format("{} is {}", path, *node.value<double>()), range_text(schema));
  }
}

// Where else in the file a key of this name belongs.
std::string home_of(const std::string& key, const json& root) {
  for (const auto& [section, schema] : root.at("properties").items())
    if (schema.contains("properties") && schema["properties"].contains(key)) return section;
  return "";
}

}  // namespace

void check_against_schema(const toml::table& table, const json& schema, const std::string& path,
                          const ReportProblem& report) {
  const json& properties = schema.at("properties");
  std::vector<std::string> known;
  for (const auto& [key, value] : properties.items()) known.push_back(key);
  std::vector<std::pair<std::string, const toml::node*>> entries;
  for (const auto& [key, node] : table) entries.emplace_back(std::string(key.str()), &node);
  std::ranges::sort(entries, {}, [](const auto& entry) {
    const auto begin = entry.second->source().begin;
    return std::pair(begin.line, begin.column);
  });
  for (const auto& [key, node] : entries) {
    const std::string full = path.empty() ? key : path + "." + key;
    if (properties.contains(key)) {
      check_value(*node, properties[key], full, report);
      continue;
    }
    std::string expected = path.empty() ? "one of the tables " + joined(known, " and ")
                                        : "one of " + joined(known, " and ");
    if (const auto near = nearest(key, known))
      expected = fmt::format("did you mean {}?", *near);
    else if (schema.contains("title") && !home_of(key, schema).empty())
      expected = fmt::format("it belongs into [{}]", home_of(key, schema));
    report(node, full, fmt::format("unknown {} {}", node->is_table() ? "table" : "key", full), expected);
  }
}

}  // namespace isthmus
