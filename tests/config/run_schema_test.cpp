#include <gmock/gmock.h>

#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <valijson/adapters/nlohmann_json_adapter.hpp>
#include <valijson/schema.hpp>
#include <valijson/schema_parser.hpp>
#include <valijson/validator.hpp>

#include "config/load_run.h"
#include "config/run_fields.h"
#include "config/run_text.h"
#include "config/schema_check.h"

namespace isthmus::config {
namespace {

using nlohmann::json;

// Stands for a member of any type, to count how many an aggregate has.
struct Any {
  template <class T>
  operator T() const {
    return T();
  }
};
template <class T, class... Members>
constexpr std::size_t member_count() {
  if constexpr (requires { T{Members{}..., Any{}}; })
    return member_count<T, Members..., Any>();
  else
    return sizeof...(Members);
}

std::map<std::string, std::set<std::string>> fields_by_section() {
  std::map<std::string, std::set<std::string>> out;
  const spec::RunConfig run;
  for_each_field(run, [&](const char* section, const char* key, const auto&) {
    EXPECT_TRUE(out[section].insert(key).second) << section << "." << key << " is listed twice";
  });
  return out;
}

TEST(RunFields, ListEveryMemberOfARun) {
  auto fields = fields_by_section();
  std::map<std::string, std::size_t> host;
  const spec::HostConfig machine_own;
  for_each_host_field(machine_own, [&](const char* section, const char*, const auto&) { ++host[section]; });
  EXPECT_EQ(host["data"], member_count<spec::HostConfig::Data>());
  EXPECT_EQ(fields["data"].size() - host["data"],
            member_count<spec::RunSpec::Data>() * member_count<spec::RunSpec::Shard>());
  EXPECT_EQ(host["link"] + host["pipeline"] + host["recovery"] + 1, member_count<spec::HostConfig>());  // data
  EXPECT_EQ(fields.size() + 1, member_count<spec::RunSpec>());                                          // with fleet
  EXPECT_EQ(fields["run"].size(), member_count<spec::RunSpec::Run>());
  EXPECT_EQ(fields["model"].size(), member_count<spec::RunSpec::Model>());
  EXPECT_EQ(fields["train"].size(), member_count<spec::RunSpec::Train>());
  EXPECT_EQ(fields["boundary"].size(), member_count<spec::RunSpec::Boundary>());
  EXPECT_EQ(fields["link"].size() - host["link"], member_count<spec::RunSpec::Link>());
  EXPECT_EQ(fields["pipeline"].size() - host["pipeline"] + 1, member_count<spec::RunSpec::Pipeline>());  // stage
  EXPECT_EQ(fields["emulated"].size() + 1, member_count<spec::RunSpec::Emulated>());                     // devices
  EXPECT_EQ(fields["checkpoint"].size(), member_count<spec::RunSpec::Checkpoint>());
  EXPECT_EQ(fields["recovery"].size() - host["recovery"], member_count<spec::RunSpec::Recovery>());
  std::size_t machine_fields = 0, link_fields = 0;
  const spec::RunConfig::Machine machine;
  const spec::RunConfig::FleetLink link;
  for_each_machine_field(machine, [&](const char*, const auto&) { ++machine_fields; });
  for_each_link_field(link, [&](const char*, const auto&) { ++link_fields; });
  EXPECT_EQ(machine_fields, member_count<spec::RunSpec::Machine>());
  EXPECT_EQ(link_fields + 1, member_count<spec::RunSpec::FleetLink>());  // between
}

TEST(RunSchema, HasTheKeysOfARunAndNoOthers) {
  auto fields = fields_by_section();
  fields["pipeline"].insert("stage");
  fields["fleet"] = {"machine", "link"};
  std::map<std::string, std::set<std::string>> schema;
  for (const auto& [section, table] : run_schema().at("properties").items())
    for (const auto& [key, value] : table.at("properties").items()) schema[section].insert(key);
  EXPECT_EQ(schema, fields);
}

TEST(RunSchema, StatesTheDefaultsOfARun) {
  const json defaults = json::parse(resolved_json(spec::RunConfig()));
  for (const auto& [section, table] : run_schema().at("properties").items())
    for (const auto& [key, value] : table.at("properties").items()) {
      static const std::set<std::string> resolved = {"sync.mode",
                                                     "sync.every",
                                                     "recovery.silence_s",
                                                     "recovery.reconnect_s",
                                                     "sync.learning_rate",
                                                     "sync.momentum",
                                                     "train.schedule_steps",
                                                     "data.train_digest",
                                                     "data.train_bytes",
                                                     "data.validation_digest",
                                                     "data.validation_bytes"};
      if (section == "fleet" || key == "stage" || key == "factored_layers" || key == "gradient_values" ||
          key == "rank" || key == "skip_after_s" || resolved.contains(section + "." + key)) {
        EXPECT_FALSE(value.contains("default")) << key;
        continue;
      }
      ASSERT_TRUE(value.contains("default")) << section << "." << key;
      EXPECT_EQ(value["default"], defaults[section][key]) << section << "." << key;
    }
}

// An integer of the schema must fit the member it is read into.
TEST(RunSchema, AllowsNoIntegerThatAMemberCannotHold) {
  const spec::RunConfig run;
  for_each_field(run, [](const char* section, const char* key, const auto& member) {
    using T = std::decay_t<decltype(member)>;
    const json& s = run_schema()["properties"][section]["properties"][key];
    if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>) {
      ASSERT_EQ(s["type"], "integer");
      EXPECT_GE(s.at("minimum").get<std::int64_t>(), 0) << key;
      EXPECT_LE(s.at("maximum").get<std::uint64_t>(), std::numeric_limits<T>::max()) << key;
    } else if constexpr (std::is_same_v<T, double>) {
      EXPECT_EQ(s["type"], "number") << key;
      EXPECT_TRUE(s.contains("maximum") || s.contains("exclusiveMaximum")) << key;
    } else if constexpr (std::is_same_v<T, bool>) {
      EXPECT_EQ(s["type"], "boolean") << key;
    } else if constexpr (std::is_same_v<T, std::string>) {
      EXPECT_TRUE(s.contains("enum") || s.contains("maxLength")) << key;
    }
  });
}

// Our own walk understands these and no others; a new one in the schema needs code.
TEST(RunSchema, UsesOnlyKeywordsThatTheCheckKnows) {
  const std::set<std::string> known = {"type",
                                       "properties",
                                       "additionalProperties",
                                       "required",
                                       "items",
                                       "enum",
                                       "minimum",
                                       "maximum",
                                       "exclusiveMinimum",
                                       "exclusiveMaximum",
                                       "pattern",
                                       "maxLength",
                                       "minItems",
                                       "maxItems",
                                       "description",
                                       "default",
                                       "title",
                                       "$schema",
                                       "patternErrorMessage"};
  const std::function<void(const json&)> visit = [&](const json& schema) {
    EXPECT_TRUE(schema.contains("type"));
    EXPECT_EQ(schema["type"] == "object", schema.contains("additionalProperties"));
    EXPECT_FALSE(schema.value("additionalProperties", false));
    EXPECT_EQ(schema["type"] == "array", schema.contains("maxItems"));
    for (const auto& [keyword, value] : schema.items()) EXPECT_TRUE(known.contains(keyword)) << keyword;
    if (schema.contains("items")) visit(schema["items"]);
    if (schema.contains("properties"))
      for (const auto& [key, value] : schema["properties"].items()) visit(value);
  };
  visit(run_schema());
}

// What a general validator, written by others, says of the schema.
class Valijson {
 public:
  Valijson() {
    valijson::SchemaParser parser;
    parser.populateSchema(valijson::adapters::NlohmannJsonAdapter(run_schema()), schema_);
  }
  bool accepts(const json& document) const {
    valijson::Validator validator;
    return validator.validate(schema_, valijson::adapters::NlohmannJsonAdapter(document), nullptr);
  }

 private:
  valijson::Schema schema_;
};

// JSON as the TOML a user would write for it.
std::string toml_value(const json& value) {
  if (value.is_object()) {
    std::string out;
    for (const auto& [key, member] : value.items())
      out += (out.empty() ? "" : ", ") + json(key).dump() + " = " + toml_value(member);
    return "{" + out + "}";
  }
  if (value.is_array()) {
    std::string out;
    for (const auto& member : value) out += toml_value(member) + ", ";
    return "[" + out + "]";
  }
  return value.dump();
}

bool our_check_accepts(const json& document) {
  std::string text;
  for (const auto& [key, value] : document.items()) text += json(key).dump() + " = " + toml_value(value) + "\n";
  ProblemList problems("run.toml");
  const auto parsed = RunDocument::parse(text, {}, problems);
  EXPECT_TRUE(parsed.has_value()) << text;
  if (parsed) check_against_schema(parsed->root(), run_schema(), problems);
  return problems.empty();
}

// For every key, values on both sides of every limit and of every type.
TEST(RunSchema, MeansTheSameToOurCheckAndToValijson) {
  const Valijson oracle;
  json base = json::parse(resolved_json(*parse_run(kFull, "run.toml")));
  base["fleet"] = json::parse(resolved_json(*parse_run(kFleet, "run.toml")))["fleet"];
  ASSERT_TRUE(oracle.accepts(base));
  ASSERT_TRUE(our_check_accepts(base));
  std::size_t accepted = 0;
  std::size_t refused = 0;
  const auto compare = [&](const json& document, const json::json_pointer& at) {
    const bool verdict = oracle.accepts(document);
    EXPECT_EQ(our_check_accepts(document), verdict) << at.to_string() << " " << document[at].dump();
    ++(verdict ? accepted : refused);
  };
  const auto try_values = [&](const json::json_pointer& at, const json& schema) {
    std::vector<json> values = {0,
                                1,
                                -1,
                                0.5,
                                1.0,
                                1e300,
                                true,
                                "",
                                "auto",
                                "x",
                                "a/b",
                                "-x",
                                "0:2",
                                "0:2:",
                                "0:",
                                "12345:6",
                                "bf16",
                                "BF16",
                                "1f1b",
                                ".",
                                "..",
                                json::array(),
                                json::object(),
                                {{"x", 1}},
                                std::string(100, 'a'),
                                std::string(101, 'a'),
                                std::string(5000, '1'),
                                std::numeric_limits<std::int64_t>::max(),
                                std::numeric_limits<std::int64_t>::min()};
    for (const char* bound : {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})
      if (schema.contains(bound)) {
        const double limit = schema[bound];
        values.push_back(schema[bound]);
        values.push_back(std::nextafter(limit, 1e308));
        values.push_back(std::nextafter(limit, -1e308));
        if (std::abs(limit) < 1e15)
          for (const int step : {-1, 1}) values.push_back(static_cast<std::int64_t>(limit) + step);
      }
    for (const auto& choice : schema.value("enum", json::array())) values.push_back(choice);
    for (const json& value : values) {
      json document = base;
      document[at] = value;
      compare(document, at);
    }
  };
  const std::function<void(const json::json_pointer&, const json&)> visit = [&](const json::json_pointer& at,
                                                                                const json& schema) {
    if (!at.empty()) try_values(at, schema);
    if (schema.contains("items")) visit(at / 0, schema["items"]);
    if (schema.contains("properties")) {
      for (const auto& [key, member] : schema["properties"].items()) visit(at / key, member);
      try_values(at / "unknown", json::object());
    }
    for (const auto& key : schema.value("required", std::vector<std::string>())) {
      json document = base;
      document[at].erase(key);
      compare(document, at);
    }
  };
  visit(json::json_pointer(), run_schema());
  // Both verdicts were tried in earnest.
  EXPECT_GT(accepted, 200u);
  EXPECT_GT(refused, 1000u);
}

}  // namespace
}  // namespace isthmus::config
