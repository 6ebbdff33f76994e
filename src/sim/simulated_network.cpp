#include "sim/simulated_network.h"

#include <algorithm>
#include <optional>

#include "wire/messenger.h"

namespace isthmus::sim {

namespace {

// What a message weighs besides its tensor.
constexpr std::uint64_t kBodyBytes = 150;
// Share of the messages that take the way through the real codec and back.
constexpr double kThroughTheCodec = 0.02;

// Catches what a Messenger sends.
class Catcher final : public transport::Transport {
 public:
  void send(transport::Frame frame) override { frames.push_back(std::move(frame)); }
  std::vector<transport::TransportEvent> poll(Time) override { return {}; }
  Time next_due() const override { return kNever; }
  std::uint64_t queued_bytes() const override { return 0; }
  std::vector<transport::Frame> frames;
};

}  // namespace

SimulatedNetwork::SimulatedNetwork(const protocol::Plan& plan, const Options& options, Draws& draws, Checkers& checkers,
                                   std::function<std::uint64_t(PeerId)> life_of)
    : plan_(plan), options_(options), draws_(draws), checkers_(checkers), life_of_(std::move(life_of)) {
  for (const auto& stage : plan.stages) workers_ += stage.replicas;
  if (options.homes) homes_.emplace(workers_, *options.homes);
}

// --------------------------------------------------------------------------------------------- connections

// Whoever has dialled before tries again and again.
bool SimulatedNetwork::let_in(PeerId self, PeerId other) {
  return ends_[self].let_in.insert(other).second && gets_in(other, self) && connect(self, other);
}

bool SimulatedNetwork::dial(PeerId self, const protocol::Member& other, protocol::Way way) {
  ends_[self].dialled[other.peer] = {life_of_(other.peer), other.location, way};
  return connect(self, other.peer);
}

bool SimulatedNetwork::gets_in(PeerId from, PeerId to) const {
  const auto dialler = ends_.find(from), listener = ends_.find(to);
  if (dialler == ends_.end() || listener == ends_.end() || !listener->second.let_in.contains(from)) return false;
  const auto dialled = dialler->second.dialled.find(to);
  return dialled != dialler->second.dialled.end() && dialled->second.life == life_of_(to) &&
         (!homes_ || homes_->reaches(from, to, dialled->second.believed, dialled->second.way));
}

bool SimulatedNetwork::broken(PeerId a, PeerId b) const {
  return a != kCoordinator && b != kCoordinator && connected(a, b) && !gets_in(a, b) && !gets_in(b, a);
}

bool SimulatedNetwork::connect(PeerId a, PeerId b) {
  if (life_of_(a) == 0 || life_of_(b) == 0 || blocked(a, b) || blocked(b, a)) return false;
  if (a == kCoordinator || b == kCoordinator) return true;
  if (!gets_in(a, b) && !gets_in(b, a)) return false;
  connections_[std::minmax(a, b)] = {life_of_(std::min(a, b)), life_of_(std::max(a, b))};
  return true;
}

bool SimulatedNetwork::connected(PeerId a, PeerId b) const {
  if (a == kCoordinator || b == kCoordinator) return true;
  const auto at = connections_.find(std::minmax(a, b));
  return at != connections_.end() && at->second == std::pair(life_of_(std::min(a, b)), life_of_(std::max(a, b)));
}

// --------------------------------------------------------------------------------------------------- faults

void SimulatedNetwork::set_blocked(PeerId from, PeerId to, bool blocked) {
  if (blocked)
    blocked_.emplace(from, to);
  else if (const auto at = blocked_.find({from, to}); at != blocked_.end())
    blocked_.erase(at);
}

void SimulatedNetwork::change(const Fault& fault, bool begins) {
  Link& link = links_[fault.peer];
  const double share = begins ? fault.strength : 0;
  switch (fault.kind) {
    case FaultKind::kBandwidth:
      link.slowdown = begins ? fault.strength : 1;
      break;
    case FaultKind::kLatency:
      link.latency = seconds(share);
      break;
    case FaultKind::kJitter:
      link.jitter = seconds(share);
      break;
    case FaultKind::kLoss:
      link.loss = share;
      break;
    case FaultKind::kDuplicate:
      link.duplicate = share;
      break;
    case FaultKind::kReorder:
      link.reorder = share;
      break;
    case FaultKind::kCorrupt:
      link.corrupt = share;
      break;
    case FaultKind::kClog:
      if (begins) link.clogged_until = fault.start + fault.length;
      break;
    case FaultKind::kRelay:
      if (homes_) homes_->set_relay(!begins);
      break;
    case FaultKind::kAddress:
      if (homes_ && begins) homes_->renumber(fault.peer);
      break;
    case FaultKind::kOneWay:
      set_blocked(fault.peer, fault.other, begins);
      break;
    case FaultKind::kPartition:
      set_blocked(fault.peer, fault.other, begins);
      set_blocked(fault.other, fault.peer, begins);
      break;
    case FaultKind::kCut:
      for (PeerId other(1); other.value <= workers_; ++other.value) {
        if (other == fault.peer) continue;
        set_blocked(fault.peer, other, begins);
        set_blocked(other, fault.peer, begins);
      }
      break;
    default:
      break;
  }
}

// ------------------------------------------------------------------------------------------------- messages

std::shared_ptr<const protocol::Message> SimulatedNetwork::through_the_codec(PeerId from,
                                                                             const protocol::Message& message,
                                                                             bool damage) {
  Catcher catcher;
  wire::Messenger messenger(catcher, plan_.run_id, wire::Limits::of(plan_));
  messenger.send(from, message);
  if (damage) {
    transport::Frame& frame = catcher.frames[draws_.below(catcher.frames.size())];
    const std::uint64_t bit = draws_.below(frame.head.size() * 8);
    frame.head[bit / 8] ^= static_cast<std::uint8_t>(1u << (bit % 8));
  }
  std::optional<protocol::Message> received;
  for (auto& frame : catcher.frames) {
    frame.peer = from;
    if (auto whole = messenger.receive(std::move(frame))) received = std::move(whole);
  }
  if (damage) {
    if (received) checkers_.violation("a damaged frame was taken for a message");
    ++rejected_frames_;
    return nullptr;
  }
  if (!received) {
    checkers_.violation("a message does not survive its codec: " + messenger.last_rejection());
    return nullptr;
  }
  return std::make_shared<const protocol::Message>(std::move(*received));
}

std::vector<SimulatedNetwork::Arrival> SimulatedNetwork::send(PeerId from, PeerId to,
                                                              std::shared_ptr<const protocol::Message> message,
                                                              Time now) {
  if (life_of_(to) == 0 || blocked(from, to) || !connected(from, to)) return {};
  Link& link = links_[from];
  if (draws_.chance(link.loss)) return {};
  const bool damage = draws_.chance(link.corrupt);
  if (damage || draws_.chance(kThroughTheCodec)) {
    message = through_the_codec(from, *message, damage);
    if (!message) return {};
  }
  const compress::EncodedTensor* tensor = protocol::tensor_of(*message);
  const double bytes = static_cast<double>(kBodyBytes + (tensor ? tensor->bytes() : 0));
  const bool apart = tensor && !tensor->values->empty() && options_.tensor > Duration{};
  Time& free = apart ? link.tensor_free : link.free;
  const double busy = apart ? to_seconds(options_.tensor) : bytes / options_.bytes_per_second;
  free = std::max({free, now, link.clogged_until}) + seconds(busy * link.slowdown);
  std::vector<Arrival> arrivals;
  const int copies = draws_.chance(link.duplicate) ? 2 : 1;
  for (int i = 0; i < copies; ++i) {
    Time due = free + options_.latency + link.latency;
    if (link.jitter > Duration{})
      due += Duration(static_cast<Duration::rep>(draws_.below(static_cast<std::uint64_t>(link.jitter.count()))));
    if (i > 0 || draws_.chance(link.reorder)) {
      due += Duration(static_cast<Duration::rep>(draws_.below(1'000'000'000)));
    } else {
      Time& last = last_due_[{from, to, protocol::priority_of(*message)}];
      last = due = std::max(due, last);
    }
    arrivals.push_back({due, message});
  }
  return arrivals;
}

}  // namespace isthmus::sim
