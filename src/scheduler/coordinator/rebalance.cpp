#include "scheduler/coordinator/rebalance.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <set>
#include <utility>

namespace isthmus::coordinator {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
// A mover that takes this many times as long as predicted is not waited for any longer.
constexpr int kPatience = 3;
// And so many steps more: it is let in between two of them.
constexpr int kStepsOfPatience = 2;
// Steps after which a refilled stage is not what kills its replicas.
constexpr std::uint32_t kProof = 3;

struct Place {
  PeerId peer;
  double seconds_per_work = 1;
  double uplink = 0;  // bits per second; 0: not known
  bool warm = false;
  bool safe = false;                      // warm and not suspected
  bool rested = false;                    // may move for a gain
  const StageReplica* replica = nullptr;  // null: nobody sees it
};

struct Stage {
  StageCost cost;
  std::vector<Place> places;
  double speed = 0;  // microbatches per second, once all are warm
  double warm_speed = 0;
  std::size_t warm = 0;
  std::size_t safe = 0;

  // Its device and its uplink work at the same time.
  double speed_of(const Place& place) const {
    const double sends = place.uplink > 0 ? static_cast<double>(cost.sent_bytes) * 8 / place.uplink : 0;
    return 1 / std::max(place.seconds_per_work * cost.work, sends);
  }
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
  // To add up the gradients of a step, over the slowest of its uplinks.
  double summing(bool warm_only, double bits_per_second) const {
    double replicas = 0, slowest = kInfinity;
    for (const auto& place : places) {
      if (warm_only && !place.warm) continue;
      ++replicas;
      slowest = std::min(slowest, place.uplink > 0 ? place.uplink : bits_per_second);
    }
    return replicas < 2 ? 0 : (replicas - 1) / replicas * static_cast<double>(cost.sum_bytes) * 8 / slowest;
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
  const SwarmLoad& load;
  double bits_per_second;
  std::vector<Stage> stages;

  struct Step {
    std::size_t from = 0;
    std::size_t place = 0;
    std::size_t to = 0;
  };

  static StageId id(std::size_t stage) { return StageId(static_cast<std::uint32_t>(stage)); }
  PeerId mover(const Step& step) const { return stages[step.from].places[step.place].peer; }
  bool may_move(const Place& place, std::size_t to, bool rested_only) const {
    return place.safe && (!rested_only || place.rested) && fits(load, *place.replica, id(to));
  }

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
        if (!may_move(place, to, rested_only)) continue;
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

  std::size_t longest_sum() const {
    return static_cast<std::size_t>(
        std::ranges::max_element(stages, {},
                                 [&](const Stage& stage) { return stage.summing(false, bits_per_second); }) -
        stages.begin());
  }

  // Stages add up at the same time, after the last microbatch.
  double predict(const StepPredictor& predictor, bool warm_only) const {
    std::vector<std::vector<double>> services;
    double sums = 0;
    for (const auto& stage : stages) {
      services.emplace_back();
      for (const auto& place : stage.places)
        if (place.warm || !warm_only) services.back().push_back(1 / stage.speed_of(place));
      if (services.back().empty()) return kInfinity;
      sums = std::max(sums, stage.summing(warm_only, bits_per_second));
    }
    return predictor(services, load.microbatches) + sums;
  }

  // What predictions leave out stays as it is, whoever moves.
  double left_out(const StepPredictor& predictor) const {
    const double present = predict(predictor, true);
    return present < kInfinity ? std::max(0.0, to_seconds(load.step) - present) : 0;
  }
};

double bottleneck_step(const std::vector<std::vector<double>>& services, std::uint32_t microbatches) {
  double fill = 0, longest = 0;
  for (const auto& stage : services) {
    const double fastest = *std::ranges::min_element(stage);
    const double speed =
        std::accumulate(stage.begin(), stage.end(), 0.0, [](double sum, double service) { return sum + 1 / service; });
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
      machine.seconds_per_work +=
          (measured - machine.seconds_per_work) * passed / (passed + to_seconds(options_.smoothing));
    }
    machine.measured = now;
  }
  std::erase_if(machines_,
                [&](const auto& entry) { return !present.contains(entry.first) && !moving_.contains(entry.first); });
}

void Rebalance::follow_journeys(const SwarmLoad& load, Time now) {
  for (const auto& replica : load.replicas)
    if (const auto journey = moving_.find(replica.peer); journey != moving_.end()) {
      Journey& j = journey->second;
      j.seen = now;
      if (replica.stage != j.to) continue;
      if (j.left == kNever) {
        j.left = now;
        j.takes = takes(load, j.to);
        machines_[replica.peer].rests_until = now + options_.rest;
      }
      j.arrived = replica.warm;
    }
  const auto ended = std::erase_if(moving_, [&](const auto& entry) {
    const Journey& j = entry.second;
    const bool late =
        j.left != kNever && now - j.left >= kPatience * j.takes + options_.hold + kStepsOfPatience * load.step;
    return j.arrived || late || now - j.seen > options_.hold;
  });
  if (ended == 0) return;
  const double drawn = static_cast<double>(random_.below(1 << 20, moves_)) / (1 << 20);
  next_move_ = now + options_.cool_down + seconds(to_seconds(options_.cool_down) * drawn);
}

void Rebalance::follow_refills(const SwarmLoad& load, Time now) {
  for (auto& [stage, refill] : refills_) {
    if (!refill.mover || moving_.contains(*refill.mover)) continue;
    const auto mover = std::ranges::find(load.replicas, *refill.mover, &StageReplica::peer);
    if (mover == load.replicas.end()) {
      refill.not_before = now + options_.refill_pause * (1 << std::min(refill.lost, 16u));
      ++refill.lost;
    } else if (mover->stage == stage) {
      continue;
    }
    refill.mover.reset();
  }
}

void Rebalance::dropped(PeerId peer) {
  if (const auto journey = moving_.find(peer); journey != moving_.end() && journey->second.left == kNever)
    moving_.erase(journey);
}

void Rebalance::moved(PeerId peer, StageId to, bool refill) {
  Journey& journey = moving_[peer];
  if (journey.to != to || journey.arrived) journey = {to, journey.seen};
  if (!refill) return;
  Refill& newest = refills_[to];
  newest.lost += newest.mover.has_value();
  newest.mover = peer;
  newest.steps = 0;
}

void Rebalance::served(StageId stage) {
  if (const auto refill = refills_.find(stage); refill != refills_.end() && ++refill->second.steps >= kProof)
    refills_.erase(refill);
}

bool Rebalance::has_given_up(StageId stage) const {
  const auto refill = refills_.find(stage);
  return refill != refills_.end() && refill->second.lost >= options_.refills;
}

bool Rebalance::fits(const SwarmLoad& load, const StageReplica& replica, StageId stage) {
  if (replica.barred.contains(stage)) return false;
  const std::uint64_t needs = load.stages[stage.value].memory_bytes;
  return replica.memory_bytes == 0 ||
         needs <= std::max(replica.memory_bytes, load.stages[replica.stage.value].memory_bytes);
}

Rebalance::Arrangement Rebalance::arrange(const SwarmLoad& load, Time now) const {
  std::vector<double> known;
  for (const auto& [peer, machine] : machines_)
    if (machine.seconds_per_work > 0) known.push_back(machine.seconds_per_work);
  const double unknown = median(std::move(known));

  // Uplinks were measured while training used them: they carry at least what they did in the measured step.
  double carries = 1;
  if (load.step > Duration{})
    for (std::uint32_t s = 0; s < load.stages.size(); ++s) {
      double uplinks = 0;
      for (const auto& replica : load.replicas)
        if (replica.stage == StageId(s) && replica.warm)
          uplinks += replica.uplink_bits_per_second > 0 ? replica.uplink_bits_per_second : kInfinity;
      if (uplinks > 0)
        carries = std::max(carries, load.microbatches * static_cast<double>(load.stages[s].sent_bytes) * 8 / uplinks /
                                        to_seconds(load.step));
    }

  Arrangement arrangement{load, options_.bits_per_second, {}};
  for (const auto& cost : load.stages) arrangement.stages.push_back({cost});
  const auto put = [&](PeerId peer, StageId stage, bool warm, const StageReplica* replica) {
    const auto machine = machines_.find(peer);
    const bool measured = machine != machines_.end() && machine->second.seconds_per_work > 0;
    arrangement.stages[stage.value].places.push_back(
        {peer, measured ? machine->second.seconds_per_work : unknown,
         replica ? carries * replica->uplink_bits_per_second : 0, warm, warm && !replica->suspected,
         machine == machines_.end() || machine->second.rests_until <= now, replica});
  };
  std::set<PeerId> present;
  for (const auto& replica : load.replicas) {
    present.insert(replica.peer);
    if (const auto journey = moving_.find(replica.peer); journey != moving_.end())
      put(replica.peer, journey->second.to, false, &replica);
    else
      put(replica.peer, replica.stage, replica.warm, &replica);
  }
  for (const auto& [peer, journey] : moving_)
    if (!present.contains(peer)) put(peer, journey.to, false, nullptr);
  for (auto& stage : arrangement.stages) stage.sum();
  return arrangement;
}

Duration Rebalance::takes(const SwarmLoad& load, StageId to) const {
  const auto donors = std::ranges::count_if(
      load.replicas, [&](const StageReplica& r) { return r.stage == to && r.warm && !moving_.contains(r.peer); });
  return fetch_time(load.stages[to.value].state_bytes, static_cast<std::size_t>(donors), options_.bits_per_second) +
         options_.catch_up;
}

ReplicaMove Rebalance::start(const ReplicaMove& move, Time now) {
  ++moves_;
  moving_[move.peer] = {move.to, now};
  wins_since_.reset();
  return move;
}

// What a lost stage did is repeated from its neighbours' journals, and a mover leaves its own behind: from afar, if
// possible.
std::optional<ReplicaMove> Rebalance::refill(Arrangement arrangement, Time now) const {
  for (std::size_t to = 0; to < arrangement.stages.size(); ++to) {
    if (!arrangement.stages[to].places.empty()) continue;
    const StageId stage = Arrangement::id(to);
    if (const auto before = refills_.find(stage);
        before != refills_.end() && (has_given_up(stage) || now < before->second.not_before))
      continue;
    std::optional<Arrangement::Step> step;
    for (std::size_t away = 3; away >= 1 && !step; --away) step = arrangement.best_step_to(to, kInfinity, false, away);
    if (!step) continue;
    ReplicaMove move{arrangement.mover(*step), Arrangement::id(step->from), stage, Reason::kEmptyStage, kNever, kNever};
    arrangement.make(*step);
    if (const double after = arrangement.predict(predict_, false); after < kInfinity) move.step_after = seconds(after);
    return move;
  }
  return {};
}

// What moves that take so long save in the time they have, seconds of the step's own, if they leave this share of it.
double Rebalance::saved(double share, Duration takes) const {
  return (1 - share) * to_seconds(options_.horizon - takes) - options_.disturbance * to_seconds(takes);
}

// The first move of the chain that saves most.
std::optional<ReplicaMove> Rebalance::chain_to_the_slowest(const SwarmLoad& load, Arrangement arrangement) const {
  auto& stages = arrangement.stages;
  const double rest = arrangement.left_out(predict_), before = arrangement.predict(predict_, false) + rest;
  std::optional<ReplicaMove> first, best;
  Duration chain_takes{};
  double most_saved = 0;
  for (std::size_t length = 1; length <= options_.chain; ++length) {
    const std::size_t to = arrangement.slowest();
    if (stages[to].places.empty()) break;
    const auto step = arrangement.best_step_to(to, stages[to].seconds(), true);
    if (!step) break;
    chain_takes += takes(load, Arrangement::id(to)) + options_.cool_down * 3 / 2;
    if (!first)
      first = ReplicaMove{
          arrangement.mover(*step), Arrangement::id(step->from), Arrangement::id(to), {}, seconds(before), {}};
    arrangement.make(*step);
    const double after = arrangement.predict(predict_, false) + rest, share = after / before;
    const bool large = share < options_.large_gain;
    const double saves = saved(share, chain_takes);
    if (!large && (share > 1 - options_.significant || saves <= most_saved)) continue;
    best = first;
    best->reason = large ? Reason::kLargeGain : Reason::kGainOverHorizon;
    best->step_after = seconds(after);
    if (large) break;
    most_saved = saves;
  }
  return best;
}

// From the stage whose sums take longest to the stage where it helps most; while it fetches, the step is no longer than
// now.
std::optional<ReplicaMove> Rebalance::away_from_sums(const SwarmLoad& load, const Arrangement& arrangement) const {
  const std::size_t from = arrangement.longest_sum();
  const Stage& donor = arrangement.stages[from];
  const double sums = donor.summing(false, options_.bits_per_second);
  if (sums == 0 || donor.safe < 2) return {};
  const double rest = arrangement.left_out(predict_), before = arrangement.predict(predict_, false) + rest;
  if (before == kInfinity || sums < options_.significant * before) return {};
  const double present = arrangement.predict(predict_, true);
  std::optional<ReplicaMove> best;
  double most_saved = 0;
  for (std::size_t i = 0; i < donor.places.size(); ++i)
    for (std::size_t to = 0; to < arrangement.stages.size(); ++to) {
      if (to == from || !arrangement.may_move(donor.places[i], to, true)) continue;
      Arrangement then = arrangement;
      then.make({from, i, to});
      const double after = then.predict(predict_, false) + rest, share = after / before;
      const double saves = saved(share, takes(load, Arrangement::id(to)));
      const bool large = share < options_.large_gain;
      if (share > 1 - options_.significant || saves <= (large ? -kInfinity : 0) || (best && saves <= most_saved) ||
          then.predict(predict_, true) > present)
        continue;
      best = ReplicaMove{donor.places[i].peer, Arrangement::id(from),
                         Arrangement::id(to),  large ? Reason::kLargeGain : Reason::kGainOverHorizon,
                         seconds(before),      seconds(after)};
      most_saved = saves;
    }
  return best;
}

std::optional<ReplicaMove> Rebalance::evaluate(const SwarmLoad& load, Time now) {
  measure(load, now);
  follow_journeys(load, now);
  follow_refills(load, now);
  const Arrangement arrangement = arrange(load, now);
  if (const auto move = refill(arrangement, now)) return start(*move, now);
  auto move = chain_to_the_slowest(load, arrangement);
  if (!move) move = away_from_sums(load, arrangement);
  if (!move) {
    wins_since_.reset();
    return {};
  }
  if (!wins_since_) wins_since_ = now;
  if (now - *wins_since_ < options_.hold || moving_.size() >= options_.movers || now < next_move_) return {};
  return start(*move, now);
}

}  // namespace isthmus::coordinator
