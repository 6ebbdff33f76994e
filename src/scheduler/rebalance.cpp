#include "scheduler/rebalance.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <set>
#include <utility>

namespace isthmus {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
// A mover that takes this many times as long as predicted is not waited for any longer.
constexpr int kPatience = 3;

struct Place {
  PeerId peer;
  double seconds_per_work = 1;
  bool warm = false;
  bool safe = false;    // warm and not suspected
  bool rested = false;  // may move for a gain
};

struct Stage {
  StageCost cost;
  std::vector<Place> places;
  double speed = 0;  // microbatches per second, once all are warm
  double warm_speed = 0;
  std::size_t warm = 0;
  std::size_t safe = 0;

  double speed_of(const Place& place) const { return 1 / (place.seconds_per_work * cost.work); }
  double seconds() const { return places.empty() ? kInfinity : 1 / speed; }
  double warm_seconds() const { return warm == 0 ? kInfinity : 1 / warm_speed; }

  void add(const Place& place) {
    places.push_back(place);
    sum();
  }
  Place take(std::size_t index) {
    const Place place = places[index];
    places.erase(places.begin() + static_cast<std::ptrdiff_t>(index));
    sum();
    return place;
  }
  void sum() {
    speed = warm_speed = 0;
    warm = safe = 0;
    for (const auto& place : places) {
      speed += speed_of(place);
      warm_speed += place.warm ? speed_of(place) : 0;
      warm += place.warm;
      safe += place.safe;
    }
  }
};

double median(std::vector<double> values) {
  if (values.empty()) return 1;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

struct Rebalance::Arrangement {
  std::vector<Stage> stages;

  struct Step {
    std::size_t from = 0;
    std::size_t place = 0;
    std::size_t to = 0;
  };

  std::size_t slowest() const {
    std::size_t slowest = 0;
    for (std::size_t s = 1; s < stages.size(); ++s)
      if (stages[s].seconds() > stages[slowest].seconds()) slowest = s;
    return slowest;
  }

  // The step with the least maximum of what donor and receiver then need, below `limit`. The donor keeps a replica that
  // is there for certain, and is no bottleneck while the mover fetches. Only from stages at least `away` from it.
  std::optional<Step> best_step_to(std::size_t to, double limit, bool rested_only, std::size_t away = 0) const {
    double present = 0;
    for (const auto& stage : stages) present = std::max(present, stage.warm_seconds());
    std::optional<Step> best;
    std::pair<double, double> least{limit, 0};
    for (std::size_t from = 0; from < stages.size(); ++from) {
      const Stage& donor = stages[from];
      if (from == to || donor.safe < 2 || std::max(from, to) - std::min(from, to) < away) continue;
      for (std::size_t i = 0; i < donor.places.size(); ++i) {
        const Place& place = donor.places[i];
        if (!place.safe || (rested_only && !place.rested)) continue;
        if (1 / (donor.warm_speed - donor.speed_of(place)) > present) continue;
        const double donor_after = 1 / (donor.speed - donor.speed_of(place));
        const double receiver_after = 1 / (stages[to].speed + stages[to].speed_of(place));
        const std::pair result{std::max(donor_after, receiver_after), donor_after};
        if (result < least) {
          least = result;
          best = Step{from, i, to};
        }
      }
    }
    return best;
  }

  void make(const Step& step) {
    Place place = stages[step.from].take(step.place);
    place.warm = place.safe = false;
    stages[step.to].add(place);
  }

  double predict(const StepPredictor& predictor, std::uint32_t microbatches, bool warm_only) const {
    std::vector<std::vector<double>> services;
    for (const auto& stage : stages) {
      services.emplace_back();
      for (const auto& place : stage.places)
        if (place.warm || !warm_only) services.back().push_back(1 / stage.speed_of(place));
      if (services.back().empty()) return kInfinity;
    }
    return predictor(services, microbatches);
  }
};

double bottleneck_step(const std::vector<std::vector<double>>& services, std::uint32_t microbatches) {
  double fill = 0, longest = 0;
  for (const auto& stage : services) {
    const double fastest = *std::ranges::min_element(stage);
    const double speed = std::accumulate(stage.begin(), stage.end(), 0.0, [](double sum, double service) { return sum + 1 / service; });
    fill += fastest;
    longest = std::max(longest, microbatches / speed - fastest);
  }
  return fill + longest;
}

Duration fetch_time(std::uint64_t state_bytes, std::size_t donors, double bits_per_second) {
  const double share = donors == 0 ? 1 : std::min(1.0, static_cast<double>(donors) / 4);
  return seconds(static_cast<double>(state_bytes) * 8 / (share * bits_per_second));
}

Rebalance::Rebalance(Options options, std::uint64_t seed, StepPredictor predict)
    : options_(options), random_(seed, "rebalance"), predict_(std::move(predict)) {}

void Rebalance::measure(const SwarmLoad& load, Time now) {
  std::set<PeerId> present;
  for (const auto& replica : load.replicas) {
    present.insert(replica.peer);
    Machine& machine = machines_[replica.peer];
    if (replica.service <= Duration{}) continue;
    const double measured = to_seconds(replica.service) / load.stages[replica.stage.value].work;
    if (machine.seconds_per_work == 0) {
      machine.seconds_per_work = measured;
    } else {
      const double passed = to_seconds(now - machine.measured);
      machine.seconds_per_work += (measured - machine.seconds_per_work) * passed / (passed + to_seconds(options_.smoothing));
    }
    machine.measured = now;
  }
  std::erase_if(machines_, [&](const auto& entry) { return !present.contains(entry.first) && !moving_.contains(entry.first); });
}

void Rebalance::follow_journeys(const SwarmLoad& load, Time now) {
  for (const auto& replica : load.replicas)
    if (const auto journey = moving_.find(replica.peer); journey != moving_.end()) {
      journey->second.seen = now;
      if (replica.stage == journey->second.to && replica.warm) journey->second.given_up = now;
    }
  const auto ended = std::erase_if(moving_, [&](const auto& entry) {
    return entry.second.given_up <= now || now - entry.second.seen > options_.hold;
  });
  if (ended == 0) return;
  const double drawn = static_cast<double>(random_.below(1 << 20, moves_)) / (1 << 20);
  next_move_ = now + options_.cool_down + seconds(to_seconds(options_.cool_down) * drawn);
}

Rebalance::Arrangement Rebalance::arrange(const SwarmLoad& load, Time now) const {
  std::vector<double> known;
  for (const auto& [peer, machine] : machines_)
    if (machine.seconds_per_work > 0) known.push_back(machine.seconds_per_work);
  const double unknown = median(std::move(known));

  Arrangement arrangement;
  for (const auto& cost : load.stages) arrangement.stages.push_back({cost});
  const auto put = [&](PeerId peer, StageId stage, bool warm, bool suspected) {
    const auto machine = machines_.find(peer);
    const bool measured = machine != machines_.end() && machine->second.seconds_per_work > 0;
    arrangement.stages[stage.value].places.push_back({peer, measured ? machine->second.seconds_per_work : unknown, warm, warm && !suspected,
                                                      machine == machines_.end() || machine->second.rests_until <= now});
  };
  std::set<PeerId> present;
  for (const auto& replica : load.replicas) {
    present.insert(replica.peer);
    if (const auto journey = moving_.find(replica.peer); journey != moving_.end())
      put(replica.peer, journey->second.to, false, replica.suspected);
    else
      put(replica.peer, replica.stage, replica.warm, replica.suspected);
  }
  for (const auto& [peer, journey] : moving_)
    if (!present.contains(peer)) put(peer, journey.to, false, false);
  for (auto& stage : arrangement.stages) stage.sum();
  return arrangement;
}

ReplicaMove Rebalance::start(const ReplicaMove& move, Duration takes, Time now) {
  ++moves_;
  moving_[move.peer] = {move.to, now, now + kPatience * takes + options_.hold};
  machines_[move.peer].rests_until = now + options_.rest;
  wins_since_.reset();
  return move;
}

std::optional<ReplicaMove> Rebalance::evaluate(const SwarmLoad& load, Time now) {
  measure(load, now);
  follow_journeys(load, now);
  Arrangement arrangement = arrange(load, now);
  auto& stages = arrangement.stages;
  const auto id = [](std::size_t stage) { return StageId(static_cast<std::uint32_t>(stage)); };
  const auto takes = [&](const Arrangement::Step& step) {
    return fetch_time(stages[step.to].cost.state_bytes, stages[step.to].warm, options_.bits_per_second) + options_.catch_up;
  };
  const auto predicted = [&](bool warm_only) { return arrangement.predict(predict_, load.microbatches, warm_only); };

  // What a lost stage did is repeated from its neighbours' journals, and a mover leaves its own behind.
  const auto refill = [&](std::size_t to) {
    std::optional<Arrangement::Step> step;
    for (std::size_t away = 3; away >= 1 && !step; --away) step = arrangement.best_step_to(to, kInfinity, false, away);
    return step;
  };
  for (std::size_t to = 0; to < stages.size(); ++to)
    if (stages[to].places.empty())
      if (const auto step = refill(to)) {
        const PeerId peer = stages[step->from].places[step->place].peer;
        const Duration duration = takes(*step);
        arrangement.make(*step);
        const double after = predicted(false);
        return start({peer, id(step->from), id(to), ReplicaMove::Reason::kEmptyStage, kNever, after < kInfinity ? seconds(after) : kNever},
                     duration, now);
      }

  // What the predictor leaves out stays as it is, whoever moves.
  const double present = predicted(true), before = predicted(false);
  const double rest = present < kInfinity ? std::max(0.0, to_seconds(load.step) - present) : 0;
  std::optional<ReplicaMove> first;
  Duration first_takes{}, chain_takes{};
  double most_saved = 0;
  bool wins = false;
  for (std::size_t length = 1; length <= options_.chain; ++length) {
    const std::size_t to = arrangement.slowest();
    if (stages[to].places.empty()) break;
    const auto step = arrangement.best_step_to(to, stages[to].seconds(), true);
    if (!step) break;
    const Duration duration = takes(*step);
    chain_takes += duration + options_.cool_down * 3 / 2;
    if (!first) {
      first = ReplicaMove{stages[step->from].places[step->place].peer, id(step->from), id(to), {}, seconds(before + rest), {}};
      first_takes = duration;
    }
    arrangement.make(*step);
    const double after = predicted(false) + rest, share = after / (before + rest);
    const double saved = (1 - share) * to_seconds(options_.horizon - chain_takes) - options_.disturbance * to_seconds(chain_takes);
    const bool large = share < options_.large_gain;
    if (!large && (share > 1 - options_.significant || saved <= most_saved)) continue;
    wins = true;
    first->reason = large ? ReplicaMove::Reason::kLargeGain : ReplicaMove::Reason::kGainOverHorizon;
    first->step_after = seconds(after);
    if (large) break;
    most_saved = saved;
  }
  if (!wins) {
    wins_since_.reset();
    return {};
  }
  if (!wins_since_) wins_since_ = now;
  if (now - *wins_since_ < options_.hold || moving_.size() >= options_.movers || now < next_move_) return {};
  return start(*first, first_takes, now);
}

}  // namespace isthmus
