#include "lab/preemption.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <map>
#include <utility>
#include <vector>

#include "base/counter_random.h"

namespace isthmus::lab {

namespace {

double uniform(const CounterRandom& random, std::uint64_t counter) {
  return (static_cast<double>(random.bits(counter) >> 11) + 0.5) / 9007199254740992.0;
}
Duration exponential(const CounterRandom& random, std::uint64_t counter, double mean_seconds) {
  return seconds(-std::log(uniform(random, counter)) * mean_seconds);
}

struct Machine {
  double speed = 1;  // microbatches per second
  Time begins{};     // started up
  Time ends{};
};

// Counters of the machines' random numbers: three each.
std::vector<Machine> machines_of(const PreemptionOptions& options, std::uint64_t seed) {
  const CounterRandom random(seed, "preemptions");
  const double lifetime = options.lifetime_hours * 3600;
  std::vector<Machine> machines;
  Time arrives{};
  for (std::uint64_t i = 0;; ++i) {
    const bool initial = i < options.peers;
    if (!initial) arrives += exponential(random, 3 * i, lifetime / options.peers);
    const Time begins = initial ? Time{} : arrives + options.start_up;
    if (begins >= seconds(options.hours * 3600)) return machines;
    machines.push_back({1 + options.spread * (2 * uniform(random, 3 * i + 1) - 1), begins,
                        begins + exponential(random, 3 * i + 2, lifetime)});
  }
}

enum class Event : std::uint8_t { kDeparts, kNoticed, kJoins, kWarm, kPeriod, kEvaluate, kLastHour, kEnd };

class Experiment {
 public:
  Experiment(const PreemptionOptions& options, const PlacementPolicy& policy,
             const coordinator::Rebalance::Options& rebalance, std::uint64_t seed)
      : options_(options),
        policy_(policy),
        random_(seed, "placement"),
        noise_(seed, "noise"),
        rebalance_(rebalance, seed),
        machines_(machines_of(options, seed)) {
    load_.stages.assign(options.stages, {1, options.state_bytes});
    load_.microbatches = 1 << 20;  // so many that the filling of the pipeline does not count
  }

  PreemptionResult run() {
    const Time end = seconds(options_.hours * 3600);
    for (std::uint32_t i = 0; i < machines_.size(); ++i) {
      plan(machines_[i].begins, Event::kJoins, i);
      plan(machines_[i].ends, Event::kDeparts, i);
    }
    if (policy_.moves == Moves::kPeriodic) plan(policy_.period, Event::kPeriod);
    if (policy_.moves == Moves::kRebalance) plan(options_.evaluation, Event::kEvaluate);
    plan(end - seconds(3600), Event::kLastHour);
    plan(end, Event::kEnd);

    Time now{};
    double work = 0, best = 0, work_before = 0, best_before = 0;
    PreemptionResult result;
    while (true) {
      const auto [key, what] = *events_.begin();
      events_.erase(events_.begin());
      const double passed = to_seconds(key.first - now), speed = slowest_speed();
      work += speed * passed;
      best += optimum() * passed;
      if (speed == 0) result.stopped_seconds += passed;
      now = key.first;
      if (what.first == Event::kEnd) break;
      if (what.first == Event::kLastHour) {
        work_before = work;
        best_before = best;
        continue;
      }
      happen(what.first, what.second, now);
    }
    result.share = work / best;
    result.last_hour = (work - work_before) / (best - best_before);
    result.moves_per_hour = moves_ / options_.hours;
    result.departures_per_hour = departures_ / options_.hours;
    return result;
  }

 private:
  struct Replica {
    std::uint32_t stage = 0;
    Time warm_at{};
    bool warm = false;
    bool gone = false;  // and nobody has noticed
  };
  using Newcomers = PlacementPolicy::Newcomers;
  using Moves = PlacementPolicy::Moves;

  void plan(Time at, Event event, std::uint32_t machine = 0) { events_[{at, planned_++}] = {event, machine}; }

  void happen(Event event, std::uint32_t machine, Time now) {
    switch (event) {
      case Event::kJoins:
        enter(machine, stage_for_newcomer(machine), now);
        break;
      case Event::kDeparts:
        replicas_[machine].gone = true;
        ++departures_;
        plan(now + options_.detection, Event::kNoticed, machine);
        break;
      case Event::kNoticed:
        left_.push_back(replicas_[machine].stage);
        replicas_.erase(machine);
        if (policy_.moves == Moves::kRebalance) evaluate(now);
        break;
      case Event::kWarm:
        if (const auto it = replicas_.find(machine); it != replicas_.end() && it->second.warm_at == now)
          it->second.warm = true;
        break;
      case Event::kPeriod:
        move_to_poorest(now);
        plan(now + policy_.period, Event::kPeriod);
        break;
      case Event::kEvaluate:
        evaluate(now);
        plan(now + options_.evaluation, Event::kEvaluate);
        break;
      case Event::kLastHour:
      case Event::kEnd:
        break;
    }
  }

  void enter(std::uint32_t machine, std::uint32_t stage, Time now) {
    std::size_t donors = 0;
    for (const auto& [other, replica] : replicas_) donors += replica.stage == stage && replica.warm && !replica.gone;
    // The machines of the start have their state, stage by stage.
    const Duration fetch =
        now == Time{} ? Duration{} : coordinator::fetch_time(options_.state_bytes, donors, options_.bits_per_second);
    replicas_[machine] = {stage, now + fetch, fetch == Duration{}};
    if (fetch > Duration{}) plan(now + fetch, Event::kWarm, machine);
  }

  std::uint32_t stage_for_newcomer(std::uint32_t machine) {
    if (machine < options_.peers) return machine % options_.stages;
    if (policy_.newcomers == Newcomers::kReplace && !left_.empty()) {
      const std::uint32_t stage = left_.front();
      left_.pop_front();
      return stage;
    }
    if (policy_.newcomers == Newcomers::kPoorest) {
      const auto counts = replicas_per_stage();
      return static_cast<std::uint32_t>(std::ranges::min_element(counts) - counts.begin());
    }
    return static_cast<std::uint32_t>(random_.below(options_.stages, machine));
  }

  void move_to_poorest(Time now) {
    const auto counts = replicas_per_stage();
    const auto poorest = static_cast<std::uint32_t>(std::ranges::min_element(counts) - counts.begin());
    const auto richest = static_cast<std::uint32_t>(std::ranges::max_element(counts) - counts.begin());
    if (counts[richest] < counts[poorest] + 2) return;
    for (const auto& [machine, replica] : replicas_)
      if (replica.stage == richest && replica.warm && !replica.gone) {
        move(machine, poorest, now);
        return;
      }
  }

  void evaluate(Time now) {
    if (const auto chosen = rebalance_.evaluate(load(), now)) move(chosen->peer.value - 1, chosen->to.value, now);
  }

  void move(std::uint32_t machine, std::uint32_t stage, Time now) {
    ++moves_;
    if (replicas_[machine].gone) return;
    enter(machine, stage, now);
  }

  // As the coordinator sees it: with noise, and with those that are gone until somebody notices.
  const coordinator::SwarmLoad& load() {
    load_.replicas.clear();
    for (const auto& [machine, replica] : replicas_) {
      const double factor = std::max(0.1, 1 + options_.noise * noise_.normal(measured_++));
      const Duration service = replica.warm ? seconds(factor / machines_[machine].speed) : Duration{};
      load_.replicas.push_back({PeerId(machine + 1), StageId(replica.stage), service, replica.warm, false});
    }
    return load_;
  }

  std::vector<std::uint32_t> replicas_per_stage() const {
    std::vector<std::uint32_t> counts(options_.stages, 0);
    for (const auto& [machine, replica] : replicas_) counts[replica.stage] += !replica.gone;
    return counts;
  }

  double slowest_speed() const {
    std::vector<double> speeds(options_.stages, 0);
    for (const auto& [machine, replica] : replicas_)
      if (replica.warm && !replica.gone) speeds[replica.stage] += machines_[machine].speed;
    return *std::ranges::min_element(speeds);
  }

  double optimum() const {
    double speed = 0;
    std::uint32_t count = 0;
    for (const auto& [machine, replica] : replicas_)
      if (!replica.gone) {
        speed += machines_[machine].speed;
        ++count;
      }
    return options_.spread == 0 ? count / options_.stages : speed / options_.stages;
  }

  PreemptionOptions options_;
  PlacementPolicy policy_;
  CounterRandom random_;
  CounterRandom noise_;
  coordinator::Rebalance rebalance_;
  std::vector<Machine> machines_;
  std::map<std::pair<Time, std::uint64_t>, std::pair<Event, std::uint32_t>> events_;
  std::map<std::uint32_t, Replica> replicas_;
  std::deque<std::uint32_t> left_;  // stages of the machines that were taken away and not replaced yet
  coordinator::SwarmLoad load_;
  std::uint64_t planned_ = 0;
  std::uint64_t measured_ = 0;
  std::uint32_t moves_ = 0;
  std::uint32_t departures_ = 0;
};

}  // namespace

PreemptionResult simulate_preemptions(const PreemptionOptions& options, const PlacementPolicy& policy,
                                      const coordinator::Rebalance::Options& rebalance, std::uint64_t seed) {
  return Experiment(options, policy, rebalance, seed).run();
}

}  // namespace isthmus::lab
