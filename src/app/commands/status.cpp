#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "app/commands/command_line.h"
#include "app/commands/worker_home.h"
#include "app/status_text.h"
#include "process/admin_socket.h"
#include "record/line_file.h"
#include "record/run_folder.h"

namespace isthmus::app {

namespace {

using nlohmann::json;

struct StatusOptions {
  std::string folder;  // of a run; empty: `home`
  record::WorkerHome home;
  bool as_json = false;
  bool watch = false;
};

constexpr std::size_t kFileMax = 64 << 20;  // bytes of it that are read

json last_line(const std::string& path) {
  const auto text = record::read_whole(path, kFileMax);
  if (!text) return {};
  const auto end = text->find_last_not_of('\n');
  if (end == std::string::npos) return {};
  const auto begin = text->rfind('\n', end);
  return json::parse(text->substr(begin == std::string::npos ? 0 : begin + 1, end - begin), nullptr, false);
}

// How far the run had come when somebody last served it, as its files say; empty: they say nothing.
std::string as_it_was(const record::RunFolder& folder) {
  const auto whole = record::read_whole(folder.summary(), kFileMax);
  const json summary = whole ? json::parse(*whole, nullptr, false) : json();
  if (summary.is_object() && summary.value("finished", false))
    return fmt::format("; it has finished, after {} steps", summary.value("steps", std::uint64_t{0}));
  const json step = last_line(folder.metrics());
  if (!step.is_object() || !step.contains("step"))
    return std::filesystem::exists(folder.decision_log()) ? "; no step of it is done" : "";
  std::string text = fmt::format("; it has come to step {}", step.value("step", std::uint64_t{0}));
  if (step.contains("loss") && step["loss"].is_number())
    text += fmt::format(", loss {:.4f}", step["loss"].get<double>());
  return text;
}

// Why there is nothing to show, and what is known all the same.
Error absent(const StatusOptions& options, const Error& error) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  if (options.folder.empty()) {
    if (!fs::exists(options.home.identity(), ignored))
      return {fmt::format("there is no worker in {}; `isthmus join INVITE` makes one", options.home.path)};
    return {fmt::format("{}; `isthmus join` goes on with the run that it joined last", error.message)};
  }
  const record::RunFolder folder{options.folder};
  if (!fs::exists(folder.run_file(), ignored) && !fs::exists(folder.decision_log(), ignored))
    return {fmt::format("there is no run in {}", options.folder)};
  return {error.message + as_it_was(folder)};
}

Result<json> ask(const StatusOptions& options) {
  const bool run = !options.folder.empty();
  const std::string& folder = run ? options.folder : options.home.path;
  const auto answer =
      process::ask_admin(folder, run ? "coordinator" : "worker", json{{"ask", "status"}}.dump(), seconds(10));
  if (!answer) return tl::unexpected(absent(options, answer.error()));
  json said = json::parse(*answer, nullptr, false);
  if (!said.is_object()) return fail("whoever serves {} answers what this version does not know", folder);
  if (said.contains("error")) return fail("{}", said.value("error", ""));
  return said;
}

int show(StatusOptions& options) {
  if (options.folder.empty())
    if (auto found = find_home(options.home); !found) return report(found);
  const bool terminal = ::isatty(STDOUT_FILENO) == 1;
  while (true) {
    const auto said = ask(options);
    if (!said) return report(tl::unexpected(said.error()));
    if (options.watch && terminal && !options.as_json) fmt::print("\x1b[H\x1b[J");
    if (options.as_json)
      fmt::print("{}\n", said->dump());
    else
      fmt::print("{}", said->contains("stages") ? run_text(*said) : worker_text(*said));
    std::fflush(stdout);
    if (!options.watch) return 0;
    if (!terminal && !options.as_json) fmt::print("\n");
    ::usleep(1'000'000);
  }
}

}  // namespace

void add_status(CommandLine& line) {
  StatusOptions& options = line.keep<StatusOptions>();
  auto* command =
      line.app().add_subcommand("status", "What a run, or this machine's worker, does now, and why anything waits");
  command->group("Who takes part");
  auto* folder = command->add_option("DIR", options.folder,
                                     "Folder of a run that its coordinator serves (default: the worker in --home)");
  add_home(*command, options.home, "Folder of the worker");
  command->get_option("--home")->excludes(folder);
  command->add_flag("--json", options.as_json, "Machine-readable output, a line for each state");
  command->add_flag("--watch", options.watch, "Again every second, until it is over or Ctrl-C");
  add_example(*command, "isthmus status runs/open --watch");
  command->callback([&] { line.chosen = [&] { return show(options); }; });
}

}  // namespace isthmus::app
