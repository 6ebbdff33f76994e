#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "app/owned_run.h"
#include "base/output_file.h"
#include "base/result.h"
#include "config/load_run.h"
#include "scheduler/planner/plan_fleet.h"
#include "spec/run_config.h"

namespace isthmus::app {

inline constexpr int kUsage = 2;
inline constexpr int kBadConfig = 78;

// The commands that the program has, and the one that it was called with. Each is declared and carried out by a file of
// this folder.
class CommandLine {
 public:
  CommandLine();
  // Parses, then does what was asked for. Returns the process's exit code.
  int run(int argc, char** argv);

  CLI::App& app() { return app_; }
  // Where a command's flags are stored: callbacks refer to them after the function that declared them has returned.
  template <class Options>
  Options& keep() {
    auto kept = std::make_shared<Options>();
    kept_.push_back(kept);
    return *kept;
  }
  // What the chosen command does; set by its callback.
  std::function<int()> chosen;

 private:
  CLI::App app_;
  std::vector<std::shared_ptr<void>> kept_;
};

void add_train(CommandLine& line);
void add_plan(CommandLine& line);
void add_export(CommandLine& line);
void add_generate(CommandLine& line);
void add_simulate(CommandLine& line);
void add_coordinator(CommandLine& line);
void add_join(CommandLine& line);
void add_relay(CommandLine& line);
void add_doctor(CommandLine& line);
void add_leave(CommandLine& line);
void add_invite(CommandLine& line);
void add_peers(CommandLine& line);
void add_status(CommandLine& line);
void add_revoke(CommandLine& line);
void add_log(CommandLine& line);
void add_bench(CommandLine& line);
void add_data(CommandLine& line);

// The run file that many commands begin with.
struct RunArguments {
  std::string file;
  std::vector<std::string> overrides;
  std::string measured;  // fleet.toml of a run, whose machines stand for the file's own; empty: none
  std::string host;      // host file of this machine; empty: none
  std::string earlier;   // run.toml of the run that goes on; empty: none

  void add_to(CLI::App& command);
  // For commands that start a process of a run.
  void add_host_to(CLI::App& command);
};

// Loads the run file and calls `then`, or prints every problem. The machines of a fleet are planned for first; what is
// left of them is the layer map and its replicas.
int with_run(const RunArguments& arguments, const std::function<int(const spec::RunConfig&)>& then,
             const std::function<int(planner::FleetPlan)>& then_fleet = {});

// The same for a process of a run, whose shards have to have a name: those that the file does not name are read for it.
int with_named_run(const RunArguments& arguments, const std::function<int(const spec::RunConfig&)>& then);
// Names them; says so where it takes long.
Status name_shards(spec::RunConfig& run);

// The folder of a run whose stages are put together.
void add_owned_run(CLI::App& command, OwnedRunOptions& options);

// What help shows last: the command as one might type it, "isthmus plan configs/webster.toml".
void add_example(CLI::App& command, const std::string& example);

// The port of a coordinator, and the two after it.
void add_port(CLI::App& command, std::uint16_t& port);

// --force, for a command that writes `what` under a name that the user gave.
void add_force(CLI::App& command, Existing& existing, const std::string& what);

// Prints what is wrong with a file; the exit code for it.
int refuse(const std::vector<config::Problem>& problems, const std::string& file);
// 0, or 1 and the error on stderr.
int report(const Status& status);

}  // namespace isthmus::app
