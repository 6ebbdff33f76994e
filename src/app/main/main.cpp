// The command line. Results on stdout, logs on stderr; exit codes: 0 ok, 1 failed, 2 usage, 78 bad run file,
// 130 interrupted.

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <exception>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "app/codec_bench.h"
#include "app/coordinator_process.h"
#include "app/export.h"
#include "app/fleet_bench.h"
#include "app/generate.h"
#include "app/local_run.h"
#include "app/path_bench.h"
#include "app/rebalance_bench.h"
#include "app/simulate.h"
#include "app/sweep.h"
#include "app/train.h"
#include "app/worker_process.h"
#include "config/load_paths.h"
#include "config/load_run.h"
#include "config/nearest.h"
#include "config/sweep_config.h"
#include "model/ngram_baseline.h"
#include "model/pack.h"
#include "model/vocabulary.h"
#include "scheduler/fleet_text.h"
#include "scheduler/make_plan.h"
#include "scheduler/plan_fleet.h"
#include "scheduler/plan_text.h"

namespace isthmus {
namespace {

constexpr int kUsage = 2;
constexpr int kBadConfig = 78;

struct RunArguments {
  std::string file;
  std::vector<std::string> overrides;
  std::string measured;

  void add_to(CLI::App& command) {
    command.add_option("RUN.toml", file, "Run file")->required();
    command.add_option("--set", overrides, "section.key=value: overrides the run file; may be repeated")
        ->allow_extra_args(false);
  }
};

int refuse(const std::vector<Problem>& problems, const std::string& file) {
  for (const auto& problem : problems) fmt::print(stderr, "{}\n", problem.text());
  fmt::print(stderr, "{} problem{} in {}\n", problems.size(), problems.size() == 1 ? "" : "s", file);
  return kBadConfig;
}

// The folder of a run whose stages are put together.
void add_owned_run(CLI::App& command, OwnedRunOptions& options) {
  command.add_option("OUT", options.path, "Folder of a run, as `train --out` made it")->required();
  command.add_option("--owner-key", options.owner_key, "Key file that was written when the run began (default: OUT/owner.key)");
  command.add_option("--step", options.step, "Checkpoint to take (default: the newest of which every stage has one)");
}

// Loads the run file and calls `then`, or prints every problem. The machines of a fleet are planned for first; what is
// left of them is the layer map and its replicas.
int with_run(const RunArguments& arguments, const std::function<int(const RunConfig&)>& then, const std::function<int(FleetPlan)>& then_fleet = {}) {
  const std::string files = arguments.measured.empty() ? arguments.file : arguments.file + " with " + arguments.measured;
  const auto source = run_source(arguments.file, arguments.overrides, arguments.measured);
  if (!source) return refuse(source.error(), files);
  const auto run = parse_run(*source);
  if (!run) return refuse(run.error(), files);
  if (run->fleet.machine.empty()) return then(*run);
  auto plan = plan_fleet(*run);
  if (!plan) return refuse(problems_at(*source, why_unplaced(*run)), files);
  if (const auto problems = problems_of_planned(*source, plan->run); !problems.empty()) return refuse(problems, files);
  return then_fleet ? then_fleet(std::move(*plan)) : then(plan->run);
}

int report(const Status& status) {
  if (status) return 0;
  spdlog::error("{}", status.error().message);
  return 1;
}

int pack_and_report(PackOptions& options, bool as_json) {
  int shown = -1;
  if (::isatty(STDERR_FILENO))
    options.progress = [&](std::uint64_t done, std::uint64_t total) {
      if (const int percent = static_cast<int>(100.0 * static_cast<double>(done) / static_cast<double>(total)); percent != shown)
        fmt::print(stderr, "\rpacking {:3} %{}", shown = percent, done == total ? "\n" : "");
    };
  const auto packed = pack(options);
  if (!packed) {
    if (shown >= 0 && shown < 100) fmt::print(stderr, "\n");
    return report(tl::unexpected(packed.error()));
  }
  nlohmann::json json = {{"vocabulary", packed->vocabulary}};
  for (const auto& [name, shard] : {std::pair("train", packed->train), std::pair("validation", packed->validation)}) {
    json[name] = {{"bytes", shard.bytes}, {"tokens", shard.tokens}, {"bytes_per_token", shard.bytes_per_token()}};
    if (!as_json)
      fmt::print("{:<10}  {} bytes, {} tokens, {:.4f} bytes per token\n", name, shard.bytes, shard.tokens, shard.bytes_per_token());
  }
  if (as_json)
    fmt::print("{}\n", json.dump());
  else
    fmt::print("model.vocabulary = {}; nats per byte = nats per token / {:.4f}\n", packed->vocabulary, packed->validation.bytes_per_token());
  return 0;
}

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
      const auto near = nearest(flag, known);
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
    const auto near = nearest(word, known);
    return fmt::format("unknown command {}{}", word, near ? "; did you mean " + *near + "?" : "");
  }
  return "";
}

int run_command_line(int argc, char** argv) {
  CLI::App app("Isthmus trains one transformer across many machines joined by home internet links.", "isthmus");
  app.set_version_flag("--version", fmt::format("isthmus {} (libtorch {})", ISTHMUS_VERSION, ISTHMUS_TORCH_VERSION));
  app.require_subcommand(1);
  app.failure_message(CLI::FailureMessage::simple);
  std::function<int()> chosen;

  RunArguments run;
  TrainOptions train_options;
  auto* train_command = app.add_subcommand("train", "Run a whole training on this machine: one coordinator, one process per stage replica");
  run.add_to(*train_command);
  train_command->add_option("--out", train_options.out, "Folder the run leaves behind (default: runs/NAME)");
  auto* resume = train_command->add_flag("--resume", train_options.resume, "Continue from the newest checkpoint in --out");
  OwnedRunOptions& from = train_options.restore.from;
  auto* from_option = train_command->add_option("--from", from.path, "Folder of a run to go on from, on another layer-to-stage map or with other replicas")->excludes(resume);
  train_command->add_option("--step", from.step, "Checkpoint of --from to take (default: the newest)")->needs(from_option);
  train_command->add_option("--owner-key", from.owner_key, "Key file of the owner of --from (default: the one in its folder)")->needs(from_option);
  train_command->add_flag("--allow-model-change", train_options.restore.allow_model_change, "Also where the new map has no place for a part of the model, or needs one that it has not")
      ->needs(from_option);
  train_command->add_flag("--trace", train_options.trace, "Write trace.json (Perfetto, chrome://tracing)");
  train_command->add_option("--port", train_options.port, "Port of the coordinator (and the next one); default: any");
  train_command->callback([&] {
    chosen = [&] {
      return with_run(run, [&](const RunConfig& config) {
        if (train_options.out.empty()) train_options.out = "runs/" + config.run.name;
        return train(config, train_options);
      });
    };
  });

  bool as_json = false;
  double gflops = 0;
  std::vector<std::string> departed;
  auto* plan_command = app.add_subcommand("plan", "Check a run file and show its stage × time grid, memory, bytes per link and predicted speed");
  run.add_to(*plan_command);
  plan_command->add_option("--measured", run.measured, "fleet.toml of a run: plan for its machines and links as they were measured");
  plan_command->add_option("--without", departed, "A machine of the fleet that has left: the plan without it, in which one other moves at most; may be repeated")->allow_extra_args(false);
  plan_command->add_flag("--json", as_json, "Machine-readable output");
  plan_command->add_option("--gflops", gflops, "Speed of one worker's device, to estimate compute times")->check(CLI::Range(0.001, 1e9));
  plan_command->callback([&] {
    chosen = [&] {
      return with_run(run, [&](const RunConfig& config) {
        if (!departed.empty()) {
          fmt::print(stderr, "--without {}: {} has no fleet\n", departed.front(), run.file);
          return kUsage;
        }
        PlanTextOptions options;
        if (gflops > 0) options.gflops = gflops;
        fmt::print("{}", as_json ? plan_json(config, options) : plan_text(config, options));
        return 0;
      }, [&](FleetPlan plan) {
        if (gflops > 0) {
          fmt::print(stderr, "--gflops is for a run without a fleet, expected the speed of each [[fleet.machine]] in its table\n");
          return kUsage;
        }
        for (const auto& name : departed) {
          auto without = plan_without(plan, name);
          if (!without) {
            fmt::print(stderr, "--without {}: {}\n", name, without.error().message);
            return kUsage;
          }
          plan = std::move(*without);
        }
        fmt::print("{}", as_json ? fleet_json(plan) : fleet_text(plan));
        return 0;
      });
    };
  });

  ExportOptions export_options;
  auto* export_command = app.add_subcommand("export", "A run's checkpoint as a folder for Hugging Face's transformers");
  add_owned_run(*export_command, export_options.run);
  export_command->add_option("DIR", export_options.folder, "Folder to make")->required();
  export_command->add_option("--vocabulary", export_options.vocabulary, "Model of `data vocabulary`, to put beside the weights");
  export_command->add_option("--shard-mb", export_options.shard_mb, "Size of a file of weights, in 10^6 bytes")->check(CLI::Range(1, 1'000'000))->capture_default_str();
  export_command->add_flag("--json", export_options.json, "Machine-readable output");
  export_command->callback([&] { chosen = [&] { return export_run(export_options); }; });

  GenerateOptions generate_options;
  auto* generate_command = app.add_subcommand("generate", "Continue a text with a run's checkpoint");
  add_owned_run(*generate_command, generate_options.run);
  generate_command->add_option("--prompt", generate_options.prompt, "Text to continue")->required();
  generate_command->add_option("--vocabulary", generate_options.vocabulary, "Model of `data vocabulary` that the run's data was packed with; default: bytes");
  generate_command->add_option("--tokens", generate_options.tokens, "Tokens to add")->check(CLI::Range(0u, 10'000'000u))->capture_default_str();
  generate_command->add_option("--temperature", generate_options.temperature, "Divides the logits; 0: always the likeliest token")->check(CLI::Range(0.0, 100.0))->capture_default_str();
  generate_command->add_option("--top-k", generate_options.top_k, "Draw from the likeliest so many tokens; 0: from all")->capture_default_str();
  generate_command->add_option("--seed", generate_options.seed, "Decides every draw; the same seed gives the same text")->capture_default_str();
  generate_command->callback([&] { chosen = [&] { return generate(generate_options); }; });

  SimulateOptions simulate_options;
  auto* simulate_command = app.add_subcommand("simulate", "Run the protocol of a run on simulated links, devices and faults, and check it");
  run.add_to(*simulate_command);
  simulate_command->add_option("--seed", simulate_options.seed, "Decides everything that happens; the same seed replays it")->capture_default_str();
  simulate_command->add_option("--runs", simulate_options.runs, "Runs, with seeds from --seed on")->check(CLI::Range(1ull, 100'000'000ull))->capture_default_str();
  simulate_command->add_option("--faults", simulate_options.kinds, "Kinds of faults, comma-separated (crash,freeze,loss …); default: all");
  simulate_command->add_option("--count", simulate_options.faults, "Faults per run; 0: from the seed")->check(CLI::Range(0, 1000))->capture_default_str();
  simulate_command->add_option("--steps", simulate_options.steps, "At most this many steps of the run")->check(CLI::Range(1, 1000))->capture_default_str();
  simulate_command->add_flag("--any-shape", simulate_options.any_shape, "Stages (2-8), replicas (1-4) and microbatches from the seed, not from the run file");
  simulate_command->add_flag("--json", simulate_options.json, "A line of JSON per run");
  simulate_command->callback([&] {
    chosen = [&] {
      return with_run(run, [&](const RunConfig& config) { return simulate_run(config, simulate_options); });
    };
  });

  CoordinatorOptions coordinator_options;
  auto* coordinator_command = app.add_subcommand("coordinator", "Serve a run: membership, plan, commits (`train` starts it)");
  coordinator_command->group("Processes of a run");
  run.add_to(*coordinator_command);
  coordinator_command->add_option("--out", coordinator_options.folder.path, "Folder of the run")->required();
  coordinator_command->add_option("--from-version", coordinator_options.version, "Weights the run begins with");
  coordinator_command->add_option("--host", coordinator_options.host, "Address to listen on");
  coordinator_command->add_option("--port", coordinator_options.port, "Control port (bulk is the next); 0: any");
  coordinator_command->add_option("--bulk-port", coordinator_options.bulk_port, "Bulk port; 0: the one after --port");
  coordinator_command->add_flag("!--continue", coordinator_options.fresh, "Go on where the log of a coordinator that died ends");
  coordinator_command->add_option("--ready-fd", coordinator_options.ready_fd, "Descriptor to write the endpoints to");
  coordinator_command->add_option("--control-fd", coordinator_options.control_fd, "Descriptor to read commands from");
  coordinator_command->callback([&] {
    chosen = [&] {
      return with_run(run, [&](const RunConfig& config) { return serve_coordinator(config, coordinator_options); });
    };
  });

  WorkerOptions worker_options;
  auto* worker_command = app.add_subcommand("worker", "Serve one stage replica (`train` starts it)");
  worker_command->group("Processes of a run");
  run.add_to(*worker_command);
  worker_command->add_option("--out", worker_options.folder.path, "Folder of the run")->required();
  worker_command->add_option("--peer", worker_options.peer.value, "Number in the run's roster")->required();
  worker_command->add_option("--from-version", worker_options.version, "Checkpoint to start from");
  worker_command->add_flag("--newest", worker_options.newest, "Start from the newest checkpoint of its stage that is whole");
  worker_command->add_flag("--trace", worker_options.trace, "Record spans");
  worker_command->callback([&] {
    chosen = [&] {
      return with_run(run, [&](const RunConfig& config) { return serve_worker(config, worker_options); });
    };
  });

  auto* bench_command = app.add_subcommand("bench", "Measure training itself");
  bench_command->require_subcommand(1);
  std::string sweep_file;
  SweepOptions sweep_options;
  sweep_options.jobs = std::max(1u, std::thread::hardware_concurrency());
  auto* convergence_command = bench_command->add_subcommand(
      "convergence", "Loss against tokens, bytes and seconds of many runs under one protocol; goes on with a sweep that was stopped");
  convergence_command->add_option("SWEEP.toml", sweep_file, "Sweep file: a base run, seeds, rows (configs/sweep.schema.json)")->required();
  convergence_command->add_option("--out", sweep_options.out, "Folder the sweep leaves behind (default: runs/NAME)");
  convergence_command->add_option("--jobs", sweep_options.jobs, "Runs at a time, one core each")->check(CLI::Range(1, 4096))->capture_default_str();
  convergence_command->add_flag("--json", sweep_options.as_json, "Machine-readable output");
  convergence_command->callback([&] {
    chosen = [&] {
      const auto sweep = load_sweep(sweep_file);
      if (!sweep) return refuse(sweep.error(), sweep_file);
      if (sweep_options.out.empty()) sweep_options.out = "runs/" + sweep->name;
      return run_sweep(*sweep, sweep_options);
    };
  });
  LocalRunOptions local_options;
  CodecBenchOptions codec_options;
  auto* codecs_command = bench_command->add_subcommand("codecs", "Speed of every boundary codec on one of a run's microbatches, beside the memory's");
  run.add_to(*codecs_command);
  codecs_command->add_option("--seconds", codec_options.seconds, "Time for each figure")->check(CLI::Range(0.01, 60.0))->capture_default_str();
  codecs_command->add_flag("--json", codec_options.json, "Machine-readable output");
  codecs_command->callback([&] {
    chosen = [&] { return with_run(run, [&](const RunConfig& config) { return bench_codecs(config, codec_options); }); };
  });

  RebalanceBenchOptions rebalance_options;
  sim::PreemptionOptions& preemption = rebalance_options.preemption;
  auto* rebalance_command = bench_command->add_subcommand("rebalance", "Simulated throughput of stages whose machines are taken away and replaced, with and without moving replicas");
  rebalance_command->add_option("--stages", preemption.stages, "Stages of the pipeline")->check(CLI::Range(1, 1000))->capture_default_str();
  rebalance_command->add_option("--peers", preemption.peers, "Machines at the start, and on average")->check(CLI::Range(1, 10'000))->capture_default_str();
  rebalance_command->add_option("--hours", preemption.hours, "Simulated time")->check(CLI::Range(1.0, 1000.0))->capture_default_str();
  rebalance_command->add_option("--lifetime-hours", preemption.lifetime_hours, "Mean time until a machine is taken away")->check(CLI::Range(0.1, 1e6))->capture_default_str();
  rebalance_command->add_option("--state-bytes", preemption.state_bytes, "Weights and optimizer of one stage, fetched by newcomers and movers")->check(CLI::Range(1ull, 1'000'000'000'000ull))->capture_default_str();
  rebalance_command->add_option("--spread", preemption.spread, "Speeds of machines are uniform within 1 ± this")->check(CLI::Range(0.0, 0.99))->capture_default_str();
  rebalance_command->add_option("--noise", preemption.noise, "Standard deviation of measured times, relative")->check(CLI::Range(0.0, 1.0))->capture_default_str();
  rebalance_command->add_option("--seeds", rebalance_options.seeds, "Simulated swarms")->check(CLI::Range(1ull, 10'000ull))->capture_default_str();
  rebalance_command->add_flag("--json", rebalance_options.json, "Machine-readable output");
  rebalance_command->callback([&] { chosen = [&] { return bench_rebalance(rebalance_options); }; });

  std::string paths_file;
  PathBenchOptions path_options;
  auto* paths_command = bench_command->add_subcommand("paths", "Step time of planned paths that skip stages, beside full pipelines and blind skipping");
  paths_command->add_option("CASE.toml", paths_file, "Nodes, links and costs (configs/paths.schema.json)")->required();
  paths_command->add_option("--scale", path_options.scale, "Times as many nodes in every stage")->check(CLI::Range(1, 1000))->capture_default_str();
  paths_command->add_option("--out", path_options.out, "SVG file to draw the plans into, a row for each node");
  paths_command->add_flag("--json", path_options.json, "Machine-readable output");
  paths_command->callback([&] {
    chosen = [&] {
      const auto paths = load_paths(paths_file);
      return paths ? bench_paths(*paths, path_options) : refuse(paths.error(), paths_file);
    };
  });

  FleetBenchOptions fleet_options;
  auto* fleet_command = bench_command->add_subcommand("fleet", "Time to plan a random fleet, to plan again when a machine leaves, and to coordinate it");
  fleet_command->add_option("--machines", fleet_options.machines, "Machines")->check(CLI::Range(1u, 100'000u))->capture_default_str();
  fleet_command->add_option("--stages", fleet_options.stages, "Stages, two layers each")->check(CLI::Range(1u, 1000u))->capture_default_str();
  fleet_command->add_option("--microbatches", fleet_options.microbatches, "Microbatches a step")->check(CLI::Range(1u, 100'000u))->capture_default_str();
  fleet_command->add_option("--step-seconds", fleet_options.step_seconds, "Length of a step that the coordinator is measured with")->check(CLI::Range(0.5, 3600.0))->capture_default_str();
  fleet_command->add_option("--seed", fleet_options.seed, "Decides the machines and their links")->capture_default_str();
  fleet_command->add_flag("--json", fleet_options.json, "Machine-readable output");
  fleet_command->callback([&] { chosen = [&] { return bench_fleet(fleet_options); }; });

  auto* local_command = bench_command->add_subcommand("run", "Run a whole run in this process (`convergence` starts it)");
  local_command->group("");
  run.add_to(*local_command);
  local_command->add_option("--result", local_options.result, "File to write")->required();
  std::vector<std::uint64_t> absent;
  local_command->add_option("--absent", absent, "Stage that is gone, from which step on, for how many steps")->expected(3);
  local_command->add_option("--progress-fd", local_options.progress_fd, "Descriptor to tell the progress to");
  local_command->callback([&] {
    if (!absent.empty()) local_options.absence = Absence{static_cast<std::uint32_t>(absent[0]), absent[1], absent[2]};
    chosen = [&] {
      return with_run(run, [&](const RunConfig& config) { return run_locally(config, local_options); });
    };
  });

  auto* data_command = app.add_subcommand("data", "Prepare training text");
  data_command->require_subcommand(1);
  VocabularyOptions vocabulary_options;
  auto* vocabulary_command = data_command->add_subcommand("vocabulary", "Train a sentencepiece vocabulary on UTF-8 text files");
  vocabulary_command->add_option("FILE", vocabulary_options.files, "Text files, joined in this order")->required();
  vocabulary_command->add_option("--out", vocabulary_options.out, "Model to write")->required();
  vocabulary_command->add_option("--size", vocabulary_options.size, "Pieces, 256 single bytes among them")
      ->check(CLI::Range(300, 1'000'000))->capture_default_str();
  vocabulary_command->add_option("--validation-share", vocabulary_options.validation_share, "Share of the text not looked at, from its end, as `data pack` holds it out; 0: none")
      ->capture_default_str();
  vocabulary_command->callback([&] {
    chosen = [&] {
      if (::isatty(STDERR_FILENO)) spdlog::info("training a vocabulary of {}; takes up to a minute", vocabulary_options.size);
      return report(train_vocabulary(vocabulary_options));
    };
  });

  PackOptions pack_options;
  auto* pack_command = data_command->add_subcommand("pack", "Text files to shards of bytes or of a vocabulary's ids");
  pack_command->add_option("FILE", pack_options.files, "Text files, joined in this order")->required();
  pack_command->add_option("--train", pack_options.train, "Shard to write")->required();
  pack_command->add_option("--validation", pack_options.validation, "Held-out shard to write")->required();
  pack_command->add_option("--validation-share", pack_options.validation_share, "Share of the text held out, from its end")
      ->capture_default_str();
  pack_command->add_option("--vocabulary", pack_options.vocabulary, "Model of `data vocabulary`; default: bytes");
  pack_command->add_flag("--json", as_json, "Machine-readable output");
  pack_command->callback([&] { chosen = [&] { return pack_and_report(pack_options, as_json); }; });

  std::string train_shard, validation_shard;
  auto* baseline_command = data_command->add_subcommand("baseline", "Loss of a trigram byte model with add-one smoothing");
  baseline_command->add_option("TRAIN", train_shard, "Shard to fit")->required();
  baseline_command->add_option("VALIDATION", validation_shard, "Shard to score")->required();
  baseline_command->add_flag("--json", as_json, "Machine-readable output");
  baseline_command->callback([&] {
    chosen = [&] {
      const auto loss = trigram_loss(train_shard, validation_shard);
      if (!loss) return report(tl::unexpected(loss.error()));
      if (as_json)
        fmt::print("{}\n", nlohmann::json{{"trigram_nats_per_byte", *loss}}.dump());
      else
        fmt::print("trigram, add-one smoothing: {:.4f} nats per byte\n", *loss);
      return 0;
    };
  });

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);
    const std::string hint = suggestion(app, argc, argv);
    fmt::print(stderr, "{}\nRun isthmus --help for the commands, isthmus COMMAND --help for their flags.\n",
               hint.empty() ? error.what() : hint);
    return kUsage;
  }
  return chosen();
}

}  // namespace
}  // namespace isthmus

int main(int argc, char** argv) {
  spdlog::set_default_logger(spdlog::stderr_color_mt("isthmus"));
  spdlog::set_pattern("%^%l%$: %v");
  try {
    return isthmus::run_command_line(argc, argv);
  } catch (const std::exception& error) {
    spdlog::error("{}", error.what());
    return 1;
  }
}
