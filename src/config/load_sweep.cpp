#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>

#include "config/config_file.h"
#include "config/nearest.h"
#include "config/problem_list.h"
#include "config/quoted.h"
#include "config/run_document.h"
#include "config/schema_check.h"
#include "config/sweep_config.h"
#include "spec/boundary_form.h"

namespace isthmus::config {

namespace {

// Keys that decide which tokens a run sees, and in which order.
constexpr const char* kProtocol[] = {"run.steps",
                                     "data.",
                                     "model.context",
                                     "model.vocabulary",
                                     "train.sequences_per_microbatch",
                                     "train.microbatches_per_step",
                                     "train.evaluation_microbatches"};

// Keys that the sweep itself sets, and the reason.
constexpr std::pair<const char*, const char*> kReserved[] = {
    {"run.seed", "`seeds`, the same for every row"},
    {"pipeline.threads", "no such override: every run has one thread"}};

std::string row_path(std::size_t row) { return fmt::format("row[{}]", row); }

class SweepLoader {
 public:
  SweepLoader(const std::string& path, const RunDocument& document)
      : path_(path), document_(document), problems_(path) {}

  tl::expected<SweepConfig, std::vector<Problem>> load() {
    check_against_schema(document_.root(), sweep_schema(), problems_);
    sweep_.name = std::filesystem::path(path_).stem().string();
    read_seeds();
    read_links();
    read_rows();
    read_references();
    load_runs();
    std::vector<Problem> all = problems_.take();
    all.insert(all.end(), base_problems_.begin(), base_problems_.end());
    if (!all.empty()) return tl::unexpected(std::move(all));
    if (sweep_.links.empty()) {
      const auto& link = sweep_.row.front().runs.front().link;
      sweep_.links.push_back({link.bandwidth_mbps, link.latency_ms});
    }
    return std::move(sweep_);
  }

 private:
  // The value, if it is there and of the right kind.
  const toml::node* sound(const std::string& path) const {
    return problems_.sound({path}) ? document_.find(path) : nullptr;
  }
  std::string text(const std::string& path) const {
    const auto* node = sound(path);
    return node ? node->value_or(std::string()) : std::string();
  }
  std::size_t size(const std::string& path) const {
    const auto* node = sound(path);
    return node ? node->as_array()->size() : 0;
  }
  void add(const std::string& path, std::string what, std::string expected) {
    problems_.add(document_.place(path), path, std::move(what), std::move(expected));
  }

  void read_seeds() {
    std::set<std::uint64_t> seen;
    for (std::size_t i = 0; i < size("seeds"); ++i) {
      const std::string path = fmt::format("seeds[{}]", i);
      const auto* node = sound(path);
      if (!node) continue;
      const auto seed = static_cast<std::uint64_t>(node->as_integer()->get());
      if (!seen.insert(seed).second) add(path, fmt::format("seed {} is there twice", seed), "every seed once");
      sweep_.seeds.push_back(seed);
    }
  }

  void read_links() {
    for (std::size_t i = 0; i < size("links"); ++i) {
      const auto number = [&](const char* key) {
        const auto* node = sound(fmt::format("links[{}].{}", i, key));
        return node ? node->value_or(0.0) : 0.0;
      };
      sweep_.links.push_back({number("bandwidth_mbps"), number("latency_ms")});
    }
  }

  void read_rows() {
    std::set<std::string> seen;
    for (std::size_t i = 0; i < size("row"); ++i) {
      const std::string path = row_path(i) + ".name";
      const std::string name = text(path);
      if (!name.empty() && !seen.insert(name).second)
        add(path, fmt::format("there are two rows {}", quoted(name)), "another name");
      sweep_.row.push_back({name, read_absence(row_path(i) + ".absent"), {}, {}});
    }
  }

  std::optional<Absence> read_absence(const std::string& path) const {
    if (!document_.has(path)) return std::nullopt;
    const auto number = [&](const char* key) {
      const auto* node = sound(path + "." + key);
      return node ? static_cast<std::uint64_t>(node->value_or(std::int64_t{1})) : 1;
    };
    return Absence{static_cast<std::uint32_t>(number("stage")), number("from"), number("steps")};
  }

  std::optional<std::size_t> find_row(const std::string& path) {
    const std::string name = text(path);
    if (name.empty()) return std::nullopt;
    std::vector<std::string> names;
    for (std::size_t i = 0; i < sweep_.row.size(); ++i) {
      if (sweep_.row[i].name == name) return i;
      if (!sweep_.row[i].name.empty()) names.push_back(sweep_.row[i].name);
    }
    const auto near = nearest(name, names);
    add(path, fmt::format("{} is {}, and no row has that name", path, quoted(name)),
        near ? fmt::format("did you mean \"{}\"?", *near) : fmt::format("one of {}", fmt::join(names, ", ")));
    return std::nullopt;
  }

  void read_references() {
    sweep_.baseline = find_row("baseline");
    const auto common = find_row("reference");
    for (std::size_t i = 0; i < sweep_.row.size(); ++i) {
      const std::string path = row_path(i) + ".reference";
      sweep_.row[i].reference = document_.has(path) ? find_row(path) : common;
    }
  }

  std::vector<std::string> overrides_at(const std::string& path) {
    std::vector<std::string> overrides;
    for (std::size_t i = 0; i < size(path); ++i) {
      const std::string entry = fmt::format("{}[{}]", path, i);
      if (!sound(entry)) continue;
      const std::string override_text = text(entry);
      for (const auto& [key, instead] : kReserved)
        if (override_text.starts_with(std::string(key) + "="))
          add(entry, fmt::format("{} sets {}", path, key), instead);
      overrides.push_back(override_text);
    }
    return overrides;
  }

  void load_runs() {
    const std::string base = text("base");
    const auto common = overrides_at("set");
    std::vector<std::vector<std::string>> overrides;
    for (std::size_t i = 0; i < sweep_.row.size(); ++i) {
      auto& all = overrides.emplace_back(common);
      const auto own = overrides_at(row_path(i) + ".set");
      all.insert(all.end(), own.begin(), own.end());
      all.push_back("pipeline.threads=1");
    }
    // Overrides or seeds that are unsound would only be reported a second time.
    if (base.empty() || sweep_.seeds.empty() || !problems_.sound({"base"}) || !problems_.sound({"seeds"})) return;
    const std::string run_file = (std::filesystem::path(path_).parent_path() / base).lexically_normal().string();
    for (std::size_t i = 0; i < sweep_.row.size(); ++i) {
      auto& row = sweep_.row[i];
      for (const std::uint64_t seed : sweep_.seeds) {
        overrides[i].push_back(fmt::format("run.seed={}", seed));
        auto run = load_run(run_file, overrides[i]);
        overrides[i].pop_back();
        if (run) {
          // Runs are kept in a folder of the sweep's, and compared with those of an earlier one.
          make_absolute(overrides[i], "data.train=", run->host.data.train);
          make_absolute(overrides[i], "data.validation=", run->host.data.validation);
          check_device(i, *run);
          check_absence(i, *run);
          row.runs.push_back(*run);
          continue;
        }
        // The seed is sound, so the other seeds have the same problems.
        for (const auto& problem : run.error()) note(i, problem);
        break;
      }
    }
    tell_noted();
    check_protocol();
  }

  // The path of an override starts at the folder of the sweep's file.
  void make_absolute(const std::vector<std::string>& overrides, std::string_view key, std::string& path) const {
    const bool overridden = std::ranges::any_of(overrides, [&](const auto& text) { return text.starts_with(key); });
    const auto from = overridden ? std::filesystem::path(path_).parent_path() : std::filesystem::path();
    path = std::filesystem::absolute(from / path).lexically_normal().string();
  }

  void check_device(std::size_t row, const spec::RunConfig& run) {
    if (run.emulated.devices && problems_.sound({row_path(row) + ".set"}))
      add(row_path(row) + ".set",
          fmt::format("row {}: pipeline.device is \"emulated\"", config::quoted(sweep_.row[row].name)),
          "cpu or cuda: an emulated device computes no loss");
    if (!run.fleet.machine.empty() && problems_.sound({"base"}))
      problems_.add(document_.place("base"), "base", "the base run has a fleet",
                    "a run without [[fleet.machine]]: a sweep compares one layer map with another");
  }

  // Once for all seeds.
  void check_absence(std::size_t row, const spec::RunConfig& run) {
    const auto& absence = sweep_.row[row].absence;
    const std::string path = row_path(row) + ".absent";
    if (!absence || run.run.seed != sweep_.seeds.front() || !problems_.sound({path})) return;
    const auto stages = run.pipeline.stage.size();
    if (stages < 3 || absence->stage > stages - 2)
      add(path + ".stage", fmt::format("stage {} is absent, of {} stages", absence->stage, stages),
          stages < 3 ? "three stages at least: the first and the last are never skipped"
                     : fmt::format("1 to {}: the first and the last are never skipped", stages - 2));
    if (absence->from > run.run.steps)
      add(path + ".from", fmt::format("absent.from is {}", absence->from),
          fmt::format("at most run.steps = {}", run.run.steps));
    if (!spec::boundary_form(run.boundary.codec).shared())
      add(path, fmt::format("a stage is absent with boundary.codec = \"{}\"", run.boundary.codec),
          "a codec whose boundaries all mean the same, not bottleneck or learned");
  }

  void note(std::size_t row, const Problem& problem) {
    const auto [at, fresh] = noted_at_.emplace(problem.text(), noted_.size());
    if (fresh) noted_.push_back({problem, {}});
    noted_[at->second].rows.push_back(row);
  }

  // What all rows have is the base's or the sweep's; anything else comes with the row's own overrides.
  void tell_noted() {
    for (const auto& [problem, rows] : noted_) {
      const bool all = rows.size() == sweep_.row.size();
      for (const std::size_t row : rows) {
        const std::string path = row_path(row) + ".set";
        const std::string where = all && document_.has("set") ? "set" : document_.has(path) ? path : row_path(row);
        Problem told = problem;
        if (!all) told.what = fmt::format("row {}: {}", config::quoted(sweep_.row[row].name), told.what);
        if (problem.file == "--set")
          problems_.add(document_.place(where), std::move(told.what), std::move(told.expected));
        else
          base_problems_.push_back(std::move(told));
        if (all) break;
      }
    }
  }

  void check_protocol() {
    const auto loaded = [](const SweepConfig::Row& row) { return !row.runs.empty(); };
    const auto first = std::ranges::find_if(sweep_.row, loaded);
    for (std::size_t i = 0; i < sweep_.row.size(); ++i) {
      if (!loaded(sweep_.row[i])) continue;
      auto different = differences(first->runs.front(), sweep_.row[i].runs.front());
      const auto &data = first->runs.front().host.data, &other = sweep_.row[i].runs.front().host.data;
      if (data.train != other.train)
        different.push_back(fmt::format("data.train: {} / {}", quoted(data.train), quoted(other.train)));
      if (data.validation != other.validation)
        different.push_back(fmt::format("data.validation: {} / {}", quoted(data.validation), quoted(other.validation)));
      for (const auto& difference : different)
        if (std::ranges::any_of(kProtocol, [&](const char* key) { return difference.starts_with(key); }))
          add(row_path(i) + ".set",
              fmt::format("rows {} and {} differ in {}", config::quoted(first->name),
                          config::quoted(sweep_.row[i].name), difference),
              "equal tokens in every row");
    }
  }

  struct Noted {
    Problem problem;
    std::vector<std::size_t> rows;
  };

  const std::string path_;
  const RunDocument& document_;
  ProblemList problems_;
  SweepConfig sweep_;
  std::vector<Noted> noted_;
  std::map<std::string, std::size_t> noted_at_;
  std::vector<Problem> base_problems_;  // at places of the base file
};

}  // namespace

tl::expected<SweepConfig, std::vector<Problem>> load_sweep(const std::string& path) {
  const auto text = config_file_text(path, "a sweep file");
  if (!text) return tl::unexpected(std::vector<Problem>{text.error()});
  ProblemList problems(path);
  const auto document = RunDocument::parse(*text, {}, problems);
  if (!document) return tl::unexpected(problems.take());
  return SweepLoader(path, *document).load();
}

}  // namespace isthmus::config
