#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "config/load_run.h"
#include "scheduler/planner/plan_fleet.h"
#include "scheduler/planner/spare_reasons.h"

namespace isthmus::planner {
namespace {

// Random fleets for random runs, as their files say it.
class Draw {
 public:
  explicit Draw(std::uint32_t seed) : random_(seed) {}

  std::uint32_t below(std::uint32_t end) { return static_cast<std::uint32_t>(random_() % end); }
  bool once_in(std::uint32_t times) { return below(times) == 0; }
  // Evenly over the powers.
  double between(double least, double most) { return least * std::pow(most / least, below(10001) / 10000.0); }
  template <class T>
  T one_of(std::initializer_list<T> values) {
    return *(values.begin() + below(static_cast<std::uint32_t>(values.size())));
  }

  // What every stage takes, however small (spec/stage_memory.cpp): a model as small as these is little beside it.
  static constexpr double kProgramGb = 0.166;

  // The arguments of a call are evaluated in an order that the compiler chooses, so that each takes one draw at most.
  std::string run_file() {
    std::string text = fmt::format("[model]\nhidden = 32\nheads = 2\nvocabulary = 64\nlayers = {}\n", 1 + below(6));
    text += fmt::format("context = {}\n", one_of({16, 64}));
    text += fmt::format(
        "[data]\ntrain = \"t\"\nvalidation = \"v\"\n[train]\nmicrobatches_per_step = {}\nsequences_per_microbatch = "
        "1\n",
        1 + below(6));
    if (once_in(2))
      text += fmt::format("[boundary]\ncodec = \"{}\"\n",
                          one_of({"subspace", "narrow", "identity", "bottleneck", "top_k"}));
    else if (once_in(2))
      text += fmt::format("[boundary]\nfactored_layers = {}\n", below(10));
    if (once_in(3)) {
      text += fmt::format("[link]\nbandwidth_mbps = {}\n", between(0.01, 1e5));
      text += fmt::format("latency_ms = {}\n", between(0.1, 5000));
      text += fmt::format("loss = {}\n", one_of({0.0, 0.1, 0.9}));
    }
    text += "[pipeline]\nlayout = \"auto\"\n";
    if (once_in(2)) text += fmt::format("stages = {}\n", 1 + below(4));
    if (once_in(3)) text += fmt::format("skip_share = {}\n", one_of({0.05, 0.2, 0.33}));
    if (once_in(4)) text += fmt::format("schedule = \"{}\"\n", one_of({"deep", "1f1b"}));
    const std::uint32_t tables = 1 + below(3);
    for (std::uint32_t t = 0; t < tables; ++t) {
      text += fmt::format("[[fleet.machine]]\nname = \"m{}\"\ncount = {}\n", t, 1 + below(2));
      text += fmt::format("memory_gb = {}\n", kProgramGb + between(1e-6, 8));
      if (once_in(2)) {
        text += fmt::format("gflops = {}\n", between(0.01, 1e5));
      } else {
        for (const char* operation : {"forward", "input_gradient", "weight_gradient"})
          text += fmt::format("{}_ms = {}\n", operation, between(1e-6, 1e4));
      }
      if (once_in(2))
        for (const char* way : {"uplink", "downlink"}) text += fmt::format("{}_mbps = {}\n", way, between(0.01, 1e5));
      if (once_in(2)) text += fmt::format("region = \"r{}\"\n", below(2));
    }
    if (once_in(2))
      for (const char* a : {"r0", "r1", "m0", "m1", "m2"})
        for (const char* b : {"r0", "r1", "m0", "m1", "m2"})
          if (std::string(a) <= b && !once_in(12)) {
            text += fmt::format("[[fleet.link]]\nbetween = [\"{}\", \"{}\"]\nmbps = {}\n", a, b, between(0.01, 1e5));
            text += fmt::format("latency_ms = {}\n", between(0.1, 1000));
          }
    // A number that is another one.
    while (once_in(2)) {
      const std::size_t digit = text.find_first_of("123456789", below(static_cast<std::uint32_t>(text.size())));
      if (digit == std::string::npos) continue;
      text = text.replace(digit, 1, one_of({"0", "9", "-1", "9e9", "1e-9", "\"x\"", "99999"}));
    }
    return text;
  }

  // Links for names that nobody has would refuse most files.
  static std::string without_strangers(std::string text, const std::vector<config::Problem>& problems) {
    std::vector<std::string> lines;
    for (std::size_t begin = 0, end = 0; begin < text.size(); begin = end + 1) {
      end = std::min(text.find('\n', begin), text.size());
      lines.push_back(text.substr(begin, end - begin));
    }
    for (const auto& problem : problems) {
      if (!problem.what.starts_with("there is no machine")) continue;
      const auto line = static_cast<std::size_t>(problem.line) - 1;
      for (std::size_t l = line - 1; l < line + 3; ++l) lines[l].clear();
    }
    std::string left;
    for (const auto& line : lines) left += line + '\n';
    return left;
  }

 private:
  std::mt19937 random_;
};

// What is planned is a run: `train` writes it down, and its coordinator and workers read it.
TEST(PlannedRuns, AreRunsAndTakeLongerWhenARateFalls) {
  std::size_t planned = 0, refused = 0, unplaced = 0;
  for (std::uint32_t seed = 1; seed <= 96; ++seed) {
    Draw draw(seed);
    std::string text = draw.run_file();
    auto run = config::parse_run(text, "run.toml");
    if (!run) {
      text = Draw::without_strangers(text, run.error());
      run = config::parse_run(text, "run.toml");
    }
    if (!run) {
      ++refused;
      for (const auto& problem : run.error()) ASSERT_FALSE(problem.what.empty() || problem.expected.empty()) << text;
      continue;
    }
    SCOPED_TRACE(fmt::format("seed {}\n{}", seed, text));
    const auto plan = plan_fleet(*run);
    if (!plan) {
      ++unplaced;
      ASSERT_FALSE(why_unplaced(*run).empty());
      continue;
    }
    ++planned;
    const config::RunSource source{text, "run.toml"};
    for (const auto& problem : config::problems_of_planned(source, plan->run)) ADD_FAILURE() << problem.text();
    const auto again = config::parse_run(config::resolved_toml(plan->run), "resolved.toml");
    ASSERT_TRUE(again.has_value()) << again.error().front().text();
    EXPECT_EQ(*again, plan->run);
    for (std::size_t w = 0; w < plan->machine_of.size(); ++w)
      EXPECT_GT(plan->simulation.workers[w].microbatches, 0u) << plan->fleet.machines[plan->machine_of[w]].name;
    for (const auto& spare : spare_machines(*plan)) EXPECT_FALSE(spare.reason.empty());
    const double step = to_seconds(plan->simulation.step);
    EXPECT_GT(step, 0);
    EXPECT_LT(step, 2e9);
    EXPECT_TRUE(std::isfinite(plan->tokens_per_second()));
    EXPECT_GT(plan->tokens_per_second(), 0);
    // With the same machines in the same places, all of them slower: to a tenth, as operations may change their order.
    Fleet slower = plan->fleet;
    for (auto& machine : slower.machines) {
      machine.up *= 0.1;
      machine.down *= 0.1;
    }
    StepSimulationInput input = fleet_input(plan->run, slower, plan->machine_of);
    EXPECT_GE(to_seconds(simulate_step(input).step), step * 0.999);
    input = plan->input;
    for (auto& costs : input.costs) costs = costs * 10;
    EXPECT_GE(to_seconds(simulate_step(input).step), step * 0.999);
  }
  EXPECT_GT(planned, 15u);
  EXPECT_GT(refused, 10u);
  EXPECT_GT(unplaced, 0u) << planned << " planned, " << refused << " refused";
}

}  // namespace
}  // namespace isthmus::planner
