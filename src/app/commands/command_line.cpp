#include "app/commands/command_line.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstdio>
#include <utility>

#include "app/commands/number_option.h"
#include "base/version.h"
#include "config/nearest.h"
#include "data/shard_name.h"

namespace isthmus::app {

namespace {

// CLI11 only says that something is missing when a subcommand is misspelt.
std::string suggestion(const CLI::App& app, int argc, char** argv) {
  const CLI::App* at = &app;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    std::vector<std::string> known;
    if (word.starts_with("-")) {
      for (const CLI::Option* option : at->get_options())
        for (const auto& name : option->get_lnames()) known.push_back("--" + name);
      const std::string flag = word.substr(0, word.find('='));
      if (!word.starts_with("--") || std::ranges::find(known, flag) != known.end()) continue;
      const auto near = config::nearest(flag, known);
      return fmt::format("unknown flag {}{}", flag, near ? "; did you mean " + *near + "?" : "");
    }
    if (at->get_subcommands(nullptr).empty()) continue;  // an argument
    for (const CLI::App* sub : at->get_subcommands(nullptr))
      if (!sub->get_group().empty()) known.push_back(sub->get_name());
    const CLI::App* next = nullptr;
    for (const CLI::App* sub : at->get_subcommands(nullptr))
      if (sub->get_name() == word) next = sub;
    if (next) {
      at = next;
      continue;
    }
    const auto near = config::nearest(word, known);
    return fmt::format("unknown command {}{}", word, near ? "; did you mean " + *near + "?" : "");
  }
  return "";
}

}  // namespace

CommandLine::CommandLine()
    : app_("Isthmus trains one transformer across many machines joined by home internet links.", "isthmus") {
  app_.set_version_flag("--version", fmt::format("isthmus {} (libtorch {})", kVersion, kTorchVersion));
  app_.require_subcommand(1);
  add_example(app_, "isthmus plan configs/webster.toml");
  app_.failure_message(CLI::FailureMessage::simple);
  add_train(*this);
  add_plan(*this);
  add_export(*this);
  add_generate(*this);
  add_simulate(*this);
  add_coordinator(*this);
  add_join(*this);
  add_relay(*this);
  add_leave(*this);
  add_invite(*this);
  add_peers(*this);
  add_status(*this);
  add_doctor(*this);
  add_revoke(*this);
  add_log(*this);
  add_bench(*this);
  add_data(*this);
}

int CommandLine::run(int argc, char** argv) {
  try {
    app_.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app_.exit(error);
    const std::string hint = suggestion(app_, argc, argv);
    fmt::print(stderr, "{}\nRun isthmus --help for the commands, isthmus COMMAND --help for their flags.\n",
               hint.empty() ? error.what() : hint);
    return kUsage;
  }
  return chosen();
}

void RunArguments::add_to(CLI::App& command) {
  command.add_option("RUN.toml", file, "Run file")->required();
  command.add_option("--set", overrides, "section.key=value: overrides the run file; may be repeated")
      ->allow_extra_args(false);
}

void RunArguments::add_host_to(CLI::App& command) {
  command.add_option("--host", host,
                     "Host file: this machine's own keys (data paths, device, threads, journal_mb, …), before the run "
                     "file's (configs/host.schema.json)");
}

int refuse(const std::vector<config::Problem>& problems, const std::string& file) {
  for (const auto& problem : problems) fmt::print(stderr, "{}\n", problem.text());
  fmt::print(stderr, "{} problem{} in {}\n", problems.size(), problems.size() == 1 ? "" : "s", file);
  return kBadConfig;
}

void add_owned_run(CLI::App& command, OwnedRunOptions& options) {
  command.add_option("OUT", options.path, "Folder of a run, as `train --out` made it")->required();
  command.add_option("--owner-key", options.owner_key,
                     "Key file that was written when the run began (default: OUT/owner.key)");
  add_number(command, "--step", options.step, "Checkpoint to take (default: the newest of which every stage has one)",
             0, kSeedMax);
}

void add_example(CLI::App& command, const std::string& example) { command.footer("Example: " + example); }

void add_port(CLI::App& command, std::uint16_t& port) {
  add_number(
      command, "--port", port,
      "Port of the coordinator for workers; the next is for their tensors, then that for who wants to join, then "
      "the relay's; 0: any four",
      0, 65532, "the three ports after it are taken as well");
}

void add_force(CLI::App& command, Existing& existing, const std::string& what) {
  command.add_flag_callback(
      "--force", [&] { existing = Existing::kReplaced; },
      "Write " + what + " also where there is something of that name already");
}

int with_run(const RunArguments& arguments, const std::function<int(const spec::RunConfig&)>& then,
             const std::function<int(planner::FleetPlan)>& then_fleet) {
  const std::string files =
      arguments.measured.empty() ? arguments.file : arguments.file + " with " + arguments.measured;
  const auto source =
      config::run_source({arguments.file, arguments.overrides, arguments.measured, arguments.host, arguments.earlier});
  if (!source) return refuse(source.error(), files);
  const auto run = config::parse_run(*source);
  if (!run) return refuse(run.error(), files);
  if (run->fleet.machine.empty()) return then(*run);
  auto plan = planner::plan_fleet(*run);
  if (!plan) return refuse(config::problems_at(*source, planner::why_unplaced(*run)), files);
  if (const auto problems = config::problems_of_planned(*source, plan->run); !problems.empty())
    return refuse(problems, files);
  return then_fleet ? then_fleet(std::move(*plan)) : then(plan->run);
}

Status name_shards(spec::RunConfig& run) {
  // A file of that size takes longer than a user waits without a word.
  constexpr std::uint64_t kSilentBytes = std::uint64_t{1} << 30;
  std::uint64_t told = 0;
  return data::name_shards(run, [&](const std::string& path, std::uint64_t done, std::uint64_t bytes) {
    const std::uint64_t tenth = done * 10 / bytes;
    if (bytes > kSilentBytes && tenth != std::exchange(told, tenth))
      spdlog::info("{} is read for its digest: {} %", path, tenth * 10);
  });
}

int with_named_run(const RunArguments& arguments, const std::function<int(const spec::RunConfig&)>& then) {
  return with_run(arguments, [&](const spec::RunConfig& config) {
    spec::RunConfig run = config;
    if (auto named = name_shards(run); !named) return report(named);
    return then(run);
  });
}

int report(const Status& status) {
  if (status) return 0;
  spdlog::error("{}", status.error().message);
  return 1;
}

}  // namespace isthmus::app
