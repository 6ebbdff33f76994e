#include "lab/sweep.h"

#include <poll.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <list>
#include <memory>
#include <vector>

#include "config/load_run.h"
#include "data/token_source.h"
#include "lab/local_run.h"
#include "lab/sweep_report.h"
#include "lab/sweep_results.h"
#include "process/child.h"
#include "process/clock.h"
#include "process/line_reader.h"
#include "process/signals.h"
#include "record/line_file.h"
#include "stage/arithmetic_note.h"

namespace isthmus::lab {

using nlohmann::json;

namespace {

// Of one run; of all of them together, four lines in this time.
constexpr Duration kSay = seconds(10);

std::string duration_text(double seconds) {
  if (seconds < 90) return fmt::format("{:.0f} s", seconds);
  if (seconds < 5400) return fmt::format("{:.0f} min", seconds / 60);
  return fmt::format("{:.1f} h", seconds / 3600);
}

class Sweep {
 public:
  Sweep(const config::SweepConfig& sweep, const SweepOptions& options) : sweep_(sweep), options_(options) {
    runs_.resize(sweep.row.size(), std::vector<std::optional<LocalRunResult>>(sweep.seeds.size()));
  }

  int run() {
    if (auto ready = prepare(); !ready) {
      spdlog::error("{}", ready.error().message);
      return 1;
    }
    began_ = process::monotonic_now();
    while (next_ < jobs_.size() || !running_.empty()) {
      if (process::signal_count() > 0) return interrupted();
      while (next_ < jobs_.size() && running_.size() < options_.jobs) start(jobs_[next_++]);
      wait();
      for (auto at = running_.begin(); at != running_.end();) {
        hear(*at);
        // The process may outlive the end of its output by a moment.
        const bool over = at->output.closed() && at->child.ended();
        if (over) finish(*at);
        at = over ? running_.erase(at) : std::next(at);
      }
    }
    if (auto written = write(); !written) {
      spdlog::error("{}", written.error().message);
      return 1;
    }
    for (const auto& failure : failures_) spdlog::error("{}", failure);
    return failures_.empty() ? 0 : 1;
  }

 private:
  struct Job {
    std::size_t row;
    std::size_t seed;    // index
    std::size_t number;  // for people: of all runs of the sweep, from 1
  };
  struct Running {
    Job job;
    process::Child child;
    process::LineReader output;
    Time started{};
    Time told{};
    std::uint64_t step = 0;
    std::string error;
  };

  std::string path_of(const Job& job, const char* extension) const {
    return fmt::format("{}/runs/{}-seed{}.{}", options_.out, sweep_.row[job.row].name, sweep_.seeds[job.seed],
                       extension);
  }
  std::string name_of(const Job& job) const {
    return fmt::format("{} seed {}", sweep_.row[job.row].name, sweep_.seeds[job.seed]);
  }
  const spec::RunConfig& run_of(const Job& job) const { return sweep_.row[job.row].runs[job.seed]; }
  std::size_t count() const { return sweep_.row.size() * sweep_.seeds.size(); }

  // Seed by seed, so that a comparison of all rows is there early.
  Status prepare() {
    // Rows agree on the data, so one look at the shards is enough; it should cost no run that they are missing.
    if (auto source = data::TokenSource::open(sweep_.row.front().runs.front()); !source)
      return tl::unexpected(source.error());
    std::error_code error;
    std::filesystem::create_directories(options_.out + "/runs", error);
    if (error) return fail("cannot make the folder {}/runs: {}", options_.out, error.message());
    for (std::size_t seed = 0; seed < sweep_.seeds.size(); ++seed)
      for (std::size_t row = 0; row < sweep_.row.size(); ++row) {
        const Job job{row, seed, seed * sweep_.row.size() + row + 1};
        if (runs_[row][seed] = finished_run(job); !runs_[row][seed]) {
          jobs_.push_back(job);
          steps_left_ += run_of(job).run.steps;
        }
      }
    if (const std::string note = stage::arithmetic_note(sweep_.row.front().runs.front()); !note.empty())
      fmt::print(stderr, "{}\n", note);
    if (const std::size_t done = count() - jobs_.size(); done > 0)
      fmt::print(stderr, "{} of {} runs are in {}/runs already\n", done, count(), options_.out);
    return {};
  }

  // What an earlier sweep left, if it was this very run.
  std::optional<LocalRunResult> finished_run(const Job& job) const {
    const auto text = record::read_whole(path_of(job, "json"), record::kSummaryBytesMax);
    if (!text) return std::nullopt;
    auto result = local_run_result(json::parse(*text, nullptr, false));
    if (!result || result->config != json::parse(config::resolved_json(run_of(job))) ||
        result->absence != sweep_.row[job.row].absence)
      return std::nullopt;
    return std::move(*result);
  }

  void start(const Job& job) {
    const std::string run_file = path_of(job, "toml");
    auto started = record::write_whole(run_file, config::resolved_toml(run_of(job)));
    if (started) {
      std::vector<std::string> arguments = {"bench",         "run", run_file, "--result", path_of(job, "json"),
                                            "--progress-fd", "3"};
      if (const auto& absence = sweep_.row[job.row].absence)
        for (const std::uint64_t number : {std::uint64_t{absence->stage}, absence->from, absence->steps})
          arguments.insert(arguments.end(), {"--absent", std::to_string(number)});
      auto child = process::Child::start(name_of(job), arguments, {.listen = true});
      if (child) {
        const int output = child->output();
        const Time now = process::monotonic_now();
        running_.push_back({job, std::move(*child), process::LineReader(output), now, now, 0, ""});
        return;
      }
      started = tl::unexpected(child.error());
    }
    failed(job, started.error().message);
  }

  void failed(const Job& job, const std::string& why) {
    steps_left_ -= run_of(job).run.steps;
    failures_.push_back(fmt::format("{}: {}", name_of(job), why));
    fmt::print(stderr, "[{}/{}] {}: failed: {}\n", job.number, count(), name_of(job), why);
  }

  // Until a child says something or ends, or a signal comes.
  void wait() const {
    std::vector<pollfd> outputs;
    for (const auto& running : running_)
      if (running.output.fd() >= 0) outputs.push_back({running.output.fd(), POLLIN, 0});
    const bool all_open = outputs.size() == running_.size();
    outputs.push_back({process::signal_descriptor(), POLLIN, 0});
    ::poll(outputs.data(), outputs.size(), all_open ? 1000 : 10);
  }

  void hear(Running& running) {
    while (const auto line = running.output.next()) {
      const auto said = json::parse(*line, nullptr, false);
      if (!said.is_object()) continue;
      if (said.contains("error")) {
        running.error = said["error"];
      } else {
        const std::uint64_t step = said.value("step", running.step);
        steps_done_ += step - running.step;
        running.step = step;
        say(running, said["loss"]);
      }
    }
  }

  void say(Running& running, const json& loss) {
    const Time now = process::monotonic_now();
    if (now - running.told < std::max(kSay, kSay * static_cast<int>(running_.size()) / 4)) return;
    running.told = now;
    // Of the whole sweep, at the speed it has had so far.
    const double speed = static_cast<double>(steps_done_) / to_seconds(now - began_);
    const double left = static_cast<double>(steps_left_ - std::min(steps_done_, steps_left_)) / std::max(speed, 1e-9);
    fmt::print(stderr, "[{}/{}] {}: step {}/{}, loss {}, {} left\n", running.job.number, count(), name_of(running.job),
               running.step, run_of(running.job).run.steps,
               loss.is_number() ? fmt::format("{:.2f}", loss.get<double>()) : "not finite", duration_text(left));
  }

  void finish(Running& running) {
    hear(running);
    const Job& job = running.job;
    if (!running.error.empty()) return failed(job, running.error);
    if (running.child.exit_code() != 0) return failed(job, "its process " + running.child.ending());
    auto& result = runs_[job.row][job.seed] = finished_run(job);
    if (!result) return failed(job, fmt::format("{} is not its result", path_of(job, "json")));
    steps_done_ += run_of(job).run.steps - running.step;
    fmt::print(stderr, "[{}/{}] {}: validation loss {:.4f} after {}, {:.0f} tokens/s\n", job.number, count(),
               name_of(job), result->validation_loss,
               duration_text(to_seconds(process::monotonic_now() - running.started)), result->tokens_per_second);
  }

  int interrupted() {
    const std::size_t lost = running_.size();
    running_.clear();
    fmt::print(stderr,
               "interrupted; {} runs in progress are lost, finished ones stay in {}/runs: the same command goes on "
               "from there\n",
               lost, options_.out);
    return 130;
  }

  Status write() const {
    const SweepResults results = sweep_results(sweep_, runs_);
    const std::string table = results_table(results);
    for (const auto& [file, text] : {std::pair("results.jsonl", results_lines(sweep_, runs_)),
                                     std::pair("table.md", table), std::pair("report.html", sweep_report(results))})
      if (auto written = record::write_whole(options_.out + "/" + file, text); !written) return written;
    if (options_.as_json)
      fmt::print("{}\n", results_json(results).dump(2));
    else
      fmt::print("{}", table);
    return {};
  }

  const config::SweepConfig& sweep_;
  const SweepOptions& options_;
  SweepRuns runs_;
  std::vector<Job> jobs_;
  std::size_t next_ = 0;
  std::list<Running> running_;
  std::vector<std::string> failures_;
  Time began_{};
  std::uint64_t steps_left_ = 0;  // of the runs that are to be made, at the beginning
  std::uint64_t steps_done_ = 0;
};

}  // namespace

int run_sweep(const config::SweepConfig& sweep, const SweepOptions& options) {
  process::catch_signals();
  return Sweep(sweep, options).run();
}

}  // namespace isthmus::lab
