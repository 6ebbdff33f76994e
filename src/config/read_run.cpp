#include "config/read_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "config/run_fields.h"
#include "spec/learning_rate.h"

namespace isthmus::config {

namespace {

// The schema has vouched for type and range.
template <class T>
void assign(T& member, const toml::node& node) {
  if constexpr (std::is_same_v<T, std::string>) {
    // pipeline.credits is a word or a number.
    if (const auto* number = node.as_integer())
      member = std::to_string(number->get());
    else
      member = node.value<std::string>().value_or(member);
  } else if constexpr (std::is_same_v<T, bool>) {
    member = node.value<bool>().value_or(member);
  } else if constexpr (std::is_same_v<T, double>) {
    member = node.value<double>().value_or(member);
  } else if constexpr (std::is_same_v<T, std::optional<double>>) {
    member = node.value<double>();
  } else if (const auto* number = node.as_integer()) {
    if constexpr (std::is_same_v<T, std::optional<std::uint32_t>>)
      member = static_cast<std::uint32_t>(number->get());
    else
      member = static_cast<T>(number->get());
  }
}

// "first:end", which the schema's pattern has vouched for.
void assign_layers(spec::RunConfig::Stage& stage, const std::string& text) {
  const char* const end = text.data() + text.size();
  const auto first = std::from_chars(text.data(), end, stage.first_layer);
  std::from_chars(first.ptr + 1, end, stage.end_layer);
}

}  // namespace

spec::RunConfig read_run(const RunDocument& document, const ProblemList& problems) {
  spec::RunConfig run;
  const auto sound_node = [&](const std::string& path) {
    return problems.sound({path}) ? document.find(path) : nullptr;
  };
  for_each_field(run, [&](const char* section, const char* key, auto& member) {
    if (const auto* node = sound_node(fmt::format("{}.{}", section, key))) assign(member, *node);
  });
  run.emulated.devices = run.host.device == "emulated";
  // Only a warm-up that was asked for can be too long for a short run.
  if (!document.has("train.warmup_steps"))
    run.train.warmup_steps = std::min(run.train.warmup_steps, spec::schedule_steps(run));
  if (const auto* stages = sound_node("pipeline.stage")) {
    for (std::size_t i = 0; i < stages->as_array()->size(); ++i) {
      spec::RunConfig::Stage stage;
      const std::string path = fmt::format("pipeline.stage[{}]", i);
      if (const auto* node = sound_node(path + ".replicas")) assign(stage.replicas, *node);
      if (const auto* node = sound_node(path + ".layers")) assign_layers(stage, node->as_string()->get());
      run.pipeline.stage.push_back(stage);
    }
  }
  if (const auto* machines = sound_node("fleet.machine")) {
    for (std::size_t i = 0; i < machines->as_array()->size(); ++i) {
      auto& machine = run.fleet.machine.emplace_back();
      for_each_machine_field(machine, [&](const char* key, auto& member) {
        if (const auto* node = sound_node(fmt::format("fleet.machine[{}].{}", i, key))) assign(member, *node);
      });
    }
  }
  if (const auto* links = sound_node("fleet.link")) {
    for (std::size_t i = 0; i < links->as_array()->size(); ++i) {
      auto& link = run.fleet.link.emplace_back();
      for_each_link_field(link, [&](const char* key, auto& member) {
        if (const auto* node = sound_node(fmt::format("fleet.link[{}].{}", i, key))) assign(member, *node);
      });
      for (std::size_t end = 0; end < 2; ++end)
        if (const auto* node = sound_node(fmt::format("fleet.link[{}].between[{}]", i, end)))
          link.between.push_back(node->value_or(std::string()));
    }
  }
  return run;
}

}  // namespace isthmus::config
