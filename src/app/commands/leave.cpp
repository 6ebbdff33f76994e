#include <fmt/format.h>

#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>

#include "app/commands/command_line.h"
#include "app/commands/worker_home.h"
#include "process/admin_socket.h"
#include "record/run_folder.h"

namespace isthmus::app {

namespace {

using nlohmann::json;

struct LeaveOptions {
  record::WorkerHome home;
  bool now = false;
};

int leave(LeaveOptions& options) {
  if (auto found = find_home(options.home); !found) return report(found);
  const json ask = {{"ask", "leave"}, {"at_once", options.now}};
  const auto answer = process::ask_admin(options.home.path, "worker", ask.dump(), seconds(10));
  if (!answer) return report(tl::unexpected(answer.error()));
  const json said = json::parse(*answer, nullptr, false);
  if (!said.is_object() || !said.contains("done") || !said["done"].is_string())
    return report(fail("the worker of {} answers what this version does not know", options.home.path));
  fmt::print("it {}\n", said["done"].get<std::string>());
  std::fflush(stdout);
  // It ends by itself in time; whoever hangs up has ended.
  constexpr Duration kLongest = seconds(86'400);
  const auto ended = process::ask_admin(options.home.path, "worker", json{{"ask", "end"}}.dump(), kLongest);
  const json words = ended ? json::parse(*ended, nullptr, false) : json();
  const bool has_words = words.is_object() && words.contains("done") && words["done"].is_string();
  fmt::print("it has left{}\n", has_words ? ": " + words["done"].get<std::string>() : "");
  return 0;
}

}  // namespace

void add_leave(CommandLine& line) {
  LeaveOptions& options = line.keep<LeaveOptions>();
  auto* command = line.app().add_subcommand(
      "leave", "Ask this machine's worker to finish what it has begun, give up its seat, and end; waits until it has");
  command->group("Processes of a run");
  add_home(*command, options.home, "Folder of the worker");
  command->add_flag("--now", options.now, "At once: what it has begun is done again by others");
  add_example(*command, "isthmus leave --home worker-a");
  command->callback([&] { line.chosen = [&] { return leave(options); }; });
}

}  // namespace isthmus::app
