#include "sim/cluster.h"

#include <algorithm>
#include <utility>

#include "base/digest.h"
#include "base/little_endian.h"
#include "wire/messenger.h"

namespace isthmus::sim {

namespace {

// What a message weighs besides its tensor.
constexpr std::uint64_t kBodyBytes = 150;
// Share of the messages that take the way through the real codec and back.
constexpr double kThroughTheCodec = 0.02;
constexpr Duration kProcessStart = std::chrono::milliseconds(300);

// Catches what a Messenger sends.
class Catcher final : public Transport {
 public:
  void send(Frame frame) override { frames.push_back(std::move(frame)); }
  std::vector<TransportEvent> poll(Time) override { return {}; }
  Time next_due() const override { return kNever; }
  std::uint64_t queued_bytes() const override { return 0; }
  std::vector<Frame> frames;
};

SharedBytes to_bytes(const Weights& numbers) {
  Bytes bytes;
  for (const auto n : numbers) append_le(bytes, n);
  return share(std::move(bytes));
}

Weights from_bytes(const SharedBytes& bytes) {
  Weights numbers;
  for (ByteView in = *bytes; !in.empty();) numbers.push_back(*take_le<std::uint64_t>(in));
  return numbers;
}

// What replicas that step on their own make of their updates: depends on every one, its weight and its place.
std::uint64_t sum_of(const std::vector<SharedBytes>& updates) {
  std::uint64_t sum = 0;
  for (const auto& update : updates) {
    ByteView in = *update;
    const std::uint64_t weight = *take_le<std::uint32_t>(in);
    if (weight > 0) sum = mix(sum, weight * *take_le<std::uint64_t>(in));
  }
  return sum;
}

// The same, of what they kept of a sync.
std::vector<std::uint64_t> agreed_in(bool has_owners, const SharedBytes& outcome) {
  if (has_owners) return from_bytes(outcome);
  std::vector<SharedBytes> updates;
  for (ByteView rest = *outcome; !rest.empty();) {
    ByteView in = rest;
    const std::size_t size = *take_le<std::uint32_t>(in) == 0 ? 4 : 12;
    updates.push_back(share(Bytes(rest.begin(), rest.begin() + static_cast<std::ptrdiff_t>(size))));
    rest = rest.subspan(size);
  }
  return {sum_of(updates)};
}

}  // namespace

Cluster::Cluster(const Plan& plan, const Options& options)
    : plan_(plan), options_(options), random_(options.seed, "cluster"), checkers_(plan, options.seed) {
  for (std::uint32_t s = 0; s < plan.stages.size(); ++s)
    for (std::uint32_t r = 0; r < plan.stages[s].replicas; ++r) {
      const PeerId peer(static_cast<std::uint32_t>(seats_.size()) + 1);
      seats_.push_back({peer, StageId(s), ReplicaId(r), {}});
      Worker& worker = workers_.emplace_back();
      worker.peer = peer;
      worker.stage = StageId(s);
      worker.replica = ReplicaId(r);
    }
  start_coordinator(true);
  for (const auto& seat : seats_) start_worker(seat.peer, {seat.stage, seat.replica});
}

// ------------------------------------------------------------------------------------------------- the clock

bool Cluster::run(Duration limit) {
  return run_until([this] { return ended(); }, limit);
}

bool Cluster::run_until(const std::function<bool()>& stop, Duration limit) {
  const Time until = now_ + limit;
  while (!stop()) {
    if (ended_ || events_queue_.empty() || events_queue_.top().time > until) {
      now_ = std::max(now_, std::min(until, now_ + limit));
      return stop();
    }
    Event event = std::move(const_cast<Event&>(events_queue_.top()));
    events_queue_.pop();
    now_ = std::max(now_, event.time);
    event.run();
  }
  return true;
}

void Cluster::wake_worker(Worker& worker) {
  const Time due = std::max(now_ + std::chrono::milliseconds(1), worker.steps->next_due());
  if (worker.wake_at > now_ && worker.wake_at <= due) return;
  worker.wake_at = due;
  at(due, [this, peer = worker.peer, life = worker.life, due] {
    Worker& w = worker_of(peer);
    if (w.life != life || w.wake_at != due) return;
    in_worker(peer, life, [this](WorkerSteps& steps) { return steps.tick(now_); });
  });
}

void Cluster::wake_coordinator() {
  const Time due = std::max(now_ + std::chrono::milliseconds(1), coordinator_.machine->next_due());
  if (coordinator_.wake_at > now_ && coordinator_.wake_at <= due) return;
  coordinator_.wake_at = due;
  at(due, [this, life = coordinator_.life, due] {
    if (coordinator_.life != life || coordinator_.wake_at != due) return;
    in_coordinator(life, [this](Coordinator& c) { return c.tick(now_); });
  });
}

void Cluster::describe() {
  const auto& decisions = coordinator_.machine->decisions();
  checkers_.violation(fmt::format("  coordinator {}: epoch {}, step {}, {} members", coordinator_.up ? "up" : "down", decisions.epoch, decisions.step, decisions.live.size()));
  for (const auto& w : workers_)
    checkers_.violation(fmt::format("  worker {} (stage {}, {}{}): version {}, view epoch {} step {}, {}waits for {}", w.peer, w.stage, w.up ? "up" : "down",
                                    w.left ? ", left" : "", w.steps->version(), w.steps->view().epoch, w.steps->view().step,
                                    decisions.find(w.steps->session()) ? "" : "not a member, ", w.steps->waiting_for()));
}

// ------------------------------------------------------------------------------------------------ processes

void Cluster::in_worker(PeerId peer, std::uint64_t life, std::function<std::vector<WorkerEffect>(WorkerSteps&)> step) {
  Worker& worker = worker_of(peer);
  if (!worker.up || worker.life != life || ended_) return;
  if (now_ < worker.frozen_until) {
    at(worker.frozen_until, [this, peer, life, step = std::move(step)] { in_worker(peer, life, step); });
    return;
  }
  carry_out(peer, step(*worker.steps));
  if (!worker.up || worker.life != life) return;
  const std::uint64_t count = plan_.microbatches + plan_.evaluation_microbatches;
  checkers_.bounds(peer, worker.steps->custody_bytes(), 4 * 8 * count, worker.steps->held_messages(), 4 * (count + 1));
  wake_worker(worker);
}

void Cluster::in_coordinator(std::uint64_t life, std::function<std::vector<CoordinatorEffect>(Coordinator&)> step) {
  if (!coordinator_.up || coordinator_.life != life || ended_) return;
  if (now_ < coordinator_.frozen_until) {
    at(coordinator_.frozen_until, [this, life, step = std::move(step)] { in_coordinator(life, step); });
    return;
  }
  carry_out(step(*coordinator_.machine));
  if (coordinator_.up && coordinator_.life == life) wake_coordinator();
}

void Cluster::start_worker(PeerId peer, Place place) {
  Worker& worker = worker_of(peer);
  if (worker.up || worker.left || ended_) return;
  worker.stage = place.stage;
  worker.replica = place.replica;
  worker.life = ++lives_;
  worker.up = true;
  worker.die_in = -1;
  worker.wake_at = kNever;
  worker.frozen_until = now_;
  worker.known.clear();
  worker.device = Device();
  const std::uint64_t parameters = plan_.stages[worker.stage.value].parameters;
  worker.device.sum.assign(parameters, 0);
  WorkerSteps::Origin origin;
  worker.device.weights = worker.device.anchor = initial_weights(options_.seed, worker.stage, parameters);
  if (!worker.disk().checkpoints.empty()) {
    const auto& newest = *worker.disk().checkpoints.rbegin();
    origin = {newest.first, newest.second.timeline};
    worker.device.weights = newest.second.weights;
    worker.device.anchor = newest.second.anchor;
  }
  worker.device.version = origin.version;
  WorkerIdentity identity{peer, worker.stage, worker.replica, {}, seconds(2), options_.bytes_per_second, {.memory_bytes = 1 << 30, .layer = {options_.forward, options_.input_gradient, options_.weight_gradient}}};
  worker.steps = std::make_unique<WorkerSteps>(plan_, identity, origin, mix(options_.seed, lives_));
  if (coordinator_.up) join(peer, kCoordinator);
  wake_worker(worker);
}

void Cluster::kill_worker(PeerId peer, Duration down) {
  Worker& worker = worker_of(peer);
  if (!worker.up) return;
  note(1, peer.value);
  worker.up = false;
  for (const auto& seat : seats_)
    if (seat.peer != peer && up(seat.peer)) lose(seat.peer, peer);
  if (coordinator_.up) lose(kCoordinator, peer);
  // Its supervisor knows only the roster.
  const Seat& seat = seats_[peer.value - 1];
  at(now_ + down + kProcessStart, [this, peer, place = Place{seat.stage, seat.replica}] { start_worker(peer, place); });
}

// The process goes on in another place, on new connections.
void Cluster::leave_for(Worker& worker, Place place) {
  worker.up = false;
  for (const auto& seat : seats_)
    if (seat.peer != worker.peer && up(seat.peer)) lose(seat.peer, worker.peer);
  if (coordinator_.up) lose(kCoordinator, worker.peer);
  for (auto& [stage, disk] : worker.disks)
    if (stage != place.stage) disk.journal.clear();
  at(now_ + kProcessStart, [this, peer = worker.peer, place] { start_worker(peer, place); });
}

void Cluster::start_coordinator(bool fresh) {
  if (coordinator_.up || ended_) return;
  coordinator_.life = ++lives_;
  coordinator_.up = true;
  coordinator_.die_in = -1;
  coordinator_.wake_at = kNever;
  coordinator_.frozen_until = now_;
  Coordinator::Options options;
  options.measure = options_.measure;
  options.guard.patience = options_.patience;
  if (!options_.coordinator_times) options.silence = options.reconnect = seconds(1e6);
  coordinator_.machine = std::make_unique<Coordinator>(plan_, seats_, options);
  coordinator_.machine->replay(log_);
  if (fresh) carry_out(coordinator_.machine->begin(0, now_));
  if (!coordinator_.up) return;
  for (const auto& worker : workers_)
    if (worker.up) join(worker.peer, kCoordinator);
  wake_coordinator();
}

void Cluster::kill_coordinator(Duration down) {
  if (!coordinator_.up) return;
  note(2, 0);
  coordinator_.up = false;
  for (const auto& worker : workers_)
    if (worker.up) lose(worker.peer, kCoordinator);
  at(now_ + down + kProcessStart, [this] { start_coordinator(false); });
}

// `a` learns that its connection to `b` is gone.
void Cluster::lose(PeerId a, PeerId b) {
  at(now_ + options_.latency, [this, a, b, life = life_of(a)] {
    if (a == kCoordinator)
      in_coordinator(life, [this, b](Coordinator& c) { return c.disconnected(b, now_); });
    else
      in_worker(a, life, [this, b](WorkerSteps& steps) { return steps.peer_lost(b, now_); });
  });
}

// Both learn that they are connected, after the handshake.
void Cluster::join(PeerId a, PeerId b) {
  for (const auto& [self, other] : {std::pair(a, b), std::pair(b, a)})
    at(now_ + 3 * options_.latency, [this, self = self, other = other, life = life_of(self), other_life = life_of(other)] {
      if (!up(other) || life_of(other) != other_life) return;
      if (self == kCoordinator)
        in_coordinator(life, [this, other](Coordinator& c) { return c.connected(other, now_); });
      else
        in_worker(self, life, [this, other](WorkerSteps& steps) { return steps.peer_connected(other, now_); });
    });
}

// --------------------------------------------------------------------------------------------------- faults

void Cluster::add(const Fault& fault) {
  at(fault.start, [this, fault] { begin(fault); });
  at(fault.start + fault.length, [this, fault] { end(fault); });
}

void Cluster::begin(const Fault& fault) {
  note(3, static_cast<std::uint64_t>(fault.kind));
  Links& links = links_[fault.peer];
  switch (fault.kind) {
    case FaultKind::kBandwidth: links.slowdown = fault.strength; break;
    case FaultKind::kLatency: links.latency = seconds(fault.strength); break;
    case FaultKind::kJitter: links.jitter = seconds(fault.strength); break;
    case FaultKind::kLoss: links.loss = fault.strength; break;
    case FaultKind::kDuplicate: links.duplicate = fault.strength; break;
    case FaultKind::kReorder: links.reorder = fault.strength; break;
    case FaultKind::kCorrupt: links.corrupt = fault.strength; break;
    case FaultKind::kPartition:
      blocked_.emplace(fault.peer, fault.other);
      blocked_.emplace(fault.other, fault.peer);
      lose(fault.peer, fault.other);
      lose(fault.other, fault.peer);
      break;
    case FaultKind::kOneWay: blocked_.emplace(fault.peer, fault.other); break;
    case FaultKind::kClog: links.clogged_until = fault.start + fault.length; break;
    case FaultKind::kCut:
      for (const auto& seat : seats_)
        if (seat.peer != fault.peer) {
          lose(fault.peer, seat.peer);
          lose(seat.peer, fault.peer);
          blocked_.emplace(fault.peer, seat.peer);
          blocked_.emplace(seat.peer, fault.peer);
        }
      break;
    case FaultKind::kFreeze: worker_of(fault.peer).frozen_until = std::max(worker_of(fault.peer).frozen_until, fault.start + fault.length); break;
    case FaultKind::kCrash: worker_of(fault.peer).die_in = static_cast<int>(below(12)); break;
    case FaultKind::kStageCrash:
      for (const auto& worker : workers_)
        if (worker.stage == fault.stage) kill_worker(worker.peer, fault.length);
      break;
    case FaultKind::kSlow: worker_of(fault.peer).slow = fault.strength; break;
    case FaultKind::kMove:
      in_coordinator(coordinator_.life, [this, fault](Coordinator& c) { return c.move(fault.peer, fault.stage, "asked to", now_); });
      break;
    case FaultKind::kCoordinatorCrash: coordinator_.die_in = static_cast<int>(below(6)); break;
    case FaultKind::kCoordinatorFreeze: coordinator_.frozen_until = std::max(coordinator_.frozen_until, fault.start + fault.length); break;
    case FaultKind::kDiskFull:
      (fault.peer == kCoordinator ? coordinator_.disk_full_until : worker_of(fault.peer).disk_full_until) = fault.start + fault.length;
      break;
  }
}

void Cluster::end(const Fault& fault) {
  Links& links = links_[fault.peer];
  const auto unblock = [&](PeerId a, PeerId b) {
    if (const auto at = blocked_.find({a, b}); at != blocked_.end()) blocked_.erase(at);
  };
  switch (fault.kind) {
    case FaultKind::kBandwidth: links.slowdown = 1; break;
    case FaultKind::kLatency: links.latency = {}; break;
    case FaultKind::kJitter: links.jitter = {}; break;
    case FaultKind::kLoss: links.loss = 0; break;
    case FaultKind::kDuplicate: links.duplicate = 0; break;
    case FaultKind::kReorder: links.reorder = 0; break;
    case FaultKind::kCorrupt: links.corrupt = 0; break;
    case FaultKind::kPartition:
      unblock(fault.peer, fault.other);
      unblock(fault.other, fault.peer);
      join(fault.peer, fault.other);
      break;
    case FaultKind::kOneWay: unblock(fault.peer, fault.other); break;
    case FaultKind::kCut:
      for (const auto& seat : seats_)
        if (seat.peer != fault.peer) {
          unblock(fault.peer, seat.peer);
          unblock(seat.peer, fault.peer);
          join(fault.peer, seat.peer);
        }
      break;
    case FaultKind::kSlow: worker_of(fault.peer).slow = 1; break;
    // It was idle until now, so it did not get to the effect it should have died at.
    case FaultKind::kCrash:
      if (std::exchange(worker_of(fault.peer).die_in, -1) >= 0) kill_worker(fault.peer, seconds(0.1));
      break;
    case FaultKind::kCoordinatorCrash:
      if (std::exchange(coordinator_.die_in, -1) >= 0) kill_coordinator(seconds(0.1));
      break;
    default: break;
  }
}

// -------------------------------------------------------------------------------------------------- network

std::shared_ptr<const Message> Cluster::through_the_codec(PeerId from, const Message& message, bool damage) {
  Catcher catcher;
  Messenger messenger(catcher, plan_.run_id, Limits::of(plan_));
  messenger.send(from, message);
  if (damage) {
    Frame& frame = catcher.frames[below(catcher.frames.size())];
    const std::uint64_t bit = below(frame.head.size() * 8);
    frame.head[bit / 8] ^= static_cast<std::uint8_t>(1u << (bit % 8));
  }
  std::optional<Message> received;
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
  return std::make_shared<const Message>(std::move(*received));
}

void Cluster::inject(PeerId from, PeerId to, Message message) { send(from, to, std::make_shared<const Message>(std::move(message))); }

void Cluster::send(PeerId from, PeerId to, std::shared_ptr<const Message> message) {
  ++sent_[message->index()];
  if (!up(to) || blocked_.contains({from, to})) return;
  Links& links = links_[from];
  if (chance(links.loss)) return;
  const bool damage = chance(links.corrupt);
  if (damage || chance(kThroughTheCodec)) {
    message = through_the_codec(from, *message, damage);
    if (!message) return;
  }
  const EncodedTensor* tensor = tensor_of(*message);
  const double bytes = static_cast<double>(kBodyBytes + (tensor ? tensor->bytes() : 0));
  links.free = std::max({links.free, now_, links.clogged_until}) + seconds(bytes * links.slowdown / options_.bytes_per_second);
  const int copies = chance(links.duplicate) ? 2 : 1;
  for (int i = 0; i < copies; ++i) {
    Time due = links.free + options_.latency + links.latency;
    if (links.jitter > Duration{}) due += Duration(static_cast<Duration::rep>(below(static_cast<std::uint64_t>(links.jitter.count()))));
    if (i > 0 || chance(links.reorder)) {
      due += Duration(static_cast<Duration::rep>(below(1'000'000'000)));
    } else {
      Time& last = last_due_[{from, to, priority_of(*message)}];
      last = due = std::max(due, last);
    }
    at(due, [this, from, to, life = life_of(to), sender = life_of(from), message] {
      // What an old life sent does not overtake the connection of the new one.
      if (up(from) && life_of(from) != sender) return;
      deliver(from, to, life, message);
    });
  }
}

void Cluster::deliver(PeerId from, PeerId to, std::uint64_t to_life, const std::shared_ptr<const Message>& message) {
  note(message->index() + 16, (std::uint64_t{from.value} << 32) | to.value);
  ++delivered_;
  if (to == kCoordinator) {
    if (!std::holds_alternative<Report>(*message)) return;
    in_coordinator(to_life, [this, from, message](Coordinator& c) { return c.received(from, std::get<Report>(*message), now_); });
    return;
  }
  in_worker(to, to_life, [this, from, message](WorkerSteps& steps) {
    if (from != kCoordinator) return steps.message_received(from, *message, now_);
    if (const auto* view = std::get_if<View>(&*message)) return steps.view_received(*view, now_);
    return std::vector<WorkerEffect>();
  });
}

// ------------------------------------------------------------------------------------ the coordinator's process

std::map<SessionId, std::multiset<std::uint32_t>> Cluster::sums() const {
  std::map<SessionId, std::multiset<std::uint32_t>> sums;
  for (const auto& worker : workers_)
    if (worker.up) sums[worker.steps->session()] = worker.device.in_sum;
  return sums;
}

void Cluster::carry_out(std::vector<CoordinatorEffect> effects) {
  for (auto& effect : effects) {
    if (coordinator_.die_in >= 0 && coordinator_.die_in-- == 0) {
      kill_coordinator(std::chrono::milliseconds(50 + static_cast<int>(below(2000))));
      return;
    }
    if (auto* append = std::get_if<AppendRecord>(&effect)) {
      if (now_ < coordinator_.disk_full_until) {
        // The process ends before anything follows from a record that is not on the disk.
        kill_coordinator(coordinator_.disk_full_until - now_);
        return;
      }
      checkers_.logged(append->record, sums());
      log_.push_back(std::move(append->record));
    } else if (auto* view = std::get_if<SendView>(&effect)) {
      send(kCoordinator, view->peer, std::make_shared<const Message>(std::move(view->view)));
    } else if (auto* step = std::get_if<StepCommitted>(&effect)) {
      replayed_ += step->outcome.figures.replayed;
      outcomes_.push_back(std::move(step->outcome));
    } else if (auto* event = std::get_if<Happened>(&effect)) {
      ++events_[event->event];
      note(4, event->peer.value);
    } else if (auto* end = std::get_if<RunEnded>(&effect)) {
      ended_ = *end;
    }
  }
}

// ------------------------------------------------------------------------------------------ a worker's process

void Cluster::carry_out(PeerId peer, std::vector<WorkerEffect> effects) {
  Worker& worker = worker_of(peer);
  for (auto& effect : effects) {
    if (worker.die_in >= 0 && worker.die_in-- == 0) {
      kill_worker(peer, std::chrono::milliseconds(50 + static_cast<int>(below(2500))));
      return;
    }
    if (auto* message = std::get_if<SendMessage>(&effect)) {
      if (const auto* report = std::get_if<Report>(&message->message)) checkers_.reported(*report);
      send(peer, message->peer, std::make_shared<const Message>(std::move(message->message)));
    } else if (const auto* members = std::get_if<KnowMembers>(&effect)) {
      // Messages find their way anyway; that they can is told as by a connection that was made.
      for (const auto& member : members->members)
        if (member.peer < peer && worker.known.insert(member.session).second && up(member.peer) && !blocked_.contains({peer, member.peer}))
          join(peer, member.peer);
    } else if (std::holds_alternative<ConnectTo>(effect)) {
      // Everybody can reach everybody here.
    } else if (const auto* begin = std::get_if<BeginAt>(&effect)) {
      leave_for(worker, begin->place);
      return;
    } else if (std::holds_alternative<Leave>(effect)) {
      worker.up = false;
      worker.left = true;
      return;
    } else {
      give(worker, std::move(effect));
    }
  }
}

void Cluster::give(Worker& worker, WorkerEffect job) {
  worker.device.jobs.push_back(std::move(job));
  if (!worker.device.busy) start_job(worker);
}

Duration Cluster::time_of(const Worker& worker, const WorkerEffect& job) {
  if (const auto* run = std::get_if<RunOperation>(&job)) {
    switch (run->task.operation) {
      case Operation::kForward: return options_.forward;
      case Operation::kInputGradient: return options_.input_gradient;
      case Operation::kWeightGradient: return options_.weight_gradient;
    }
  }
  // One checkpoint is written at a time, and none while another one is loaded.
  const Duration written = std::max(Duration(), worker.device.writing_until - now_);
  if (std::holds_alternative<RunSave>(job)) return written + std::chrono::milliseconds(1);
  if (std::holds_alternative<RunLoad>(job)) return written + std::chrono::milliseconds(50);
  return std::chrono::milliseconds(1);
}

// Draws only where there is some, so that it changes nothing elsewhere.
double Cluster::noise() {
  const double share = options_.noise > 0 ? options_.noise * (2e-6 * static_cast<double>(below(1'000'000)) - 1) : 0;
  return (1 + share) * (chance(options_.hiccups) ? 2 : 1);
}

void Cluster::start_job(Worker& worker) {
  Device& device = worker.device;
  device.busy = true;
  Duration time = seconds(to_seconds(time_of(worker, device.jobs.front())) * worker.slow);
  if (const auto* run = std::get_if<RunOperation>(&device.jobs.front())) {
    ++worker.begun[static_cast<std::size_t>(run->task.operation)];
    time = seconds(to_seconds(time) * noise());
  }
  at(now_ + time, [this, peer = worker.peer, life = worker.life] {
    in_worker(peer, life, [this, peer](WorkerSteps& steps) -> std::vector<WorkerEffect> {
      Worker& w = worker_of(peer);
      WorkerEffect job = std::move(w.device.jobs.front());
      w.device.jobs.pop_front();
      w.device.busy = false;
      auto result = work(w, job);
      if (!w.device.jobs.empty()) start_job(w);
      if (!result) return {};
      return steps.job_done(std::move(*result), now_);
    });
  });
}

void Cluster::write_journal(Worker& worker, const JobTag& tag, MicrobatchId m, bool gradient, const EncodedTensor& tensor) {
  if (now_ < worker.disk_full_until) return;
  worker.disk().journal[{tag.step.value, tag.attempt, m.value, gradient}] = tensor;
  while (worker.disk().journal.size() > options_.journal_entries) worker.disk().journal.erase(worker.disk().journal.begin());
}

// Takes its time while the device goes on.
void Cluster::write_checkpoint(Worker& worker, std::uint64_t version, Checkpoint checkpoint) {
  worker.device.writing_until = now_ + std::chrono::milliseconds(20 + static_cast<int>(below(1000)));
  at(worker.device.writing_until, [this, peer = worker.peer, life = worker.life, version, checkpoint = std::move(checkpoint)] {
    in_worker(peer, life, [this, peer, version, checkpoint](WorkerSteps& steps) {
      Worker& w = worker_of(peer);
      const bool full = now_ < w.disk_full_until;
      auto& written = w.disk().checkpoints;
      if (!full) written[version] = checkpoint;
      while (written.size() > 2) written.erase(written.begin());
      return steps.job_done(SaveDone{version, checkpoint.timeline, full ? "disk full" : ""}, now_);
    });
  });
}

std::optional<JobResult> Cluster::work(Worker& worker, WorkerEffect& effect) {
  Device& device = worker.device;
  const bool tail = worker.stage == plan_.last_stage();
  const auto clear = [&] {
    device.sum.assign(device.sum.size(), 0);
    device.in_sum.clear();
    device.inputs.clear();
    device.gradients.clear();
    device.combined.reset();
    device.bad = false;
    device.combined_finite = true;
  };
  const StagePlan& stage = plan_.stages[worker.stage.value];
  const auto holds = [&] { checkers_.holds(worker.peer, worker.stage, device.version, device.weights); };
  const auto take_sync = [&] {
    for (std::size_t slice = 0; slice < device.agreed.size(); ++slice)
      for (auto& number : device.anchor) number = mix(number, device.agreed[slice]);
    device.weights = device.anchor;
  };
  const auto take_step = [&](const Commit& commit) {
    if (commit.apply) {
      add_step(device.weights, device.combined ? *device.combined : device.sum);
      device.own_microbatches += static_cast<std::uint32_t>(device.in_sum.size());
    }
    device.version = commit.step.value;
    clear();
    holds();
    if (stage.local && plan_.syncs(commit.step)) checkers_.agrees(worker.peer, worker.stage, commit, device.anchor);
  };

  if (auto* run = std::get_if<RunOperation>(&effect)) {
    const MicrobatchId m = run->task.microbatch;
    const std::uint64_t weights = fingerprint(device.weights);
    OperationDone done{run->tag, run->task, {}, {}, {}};
    switch (run->task.operation) {
      case Operation::kForward: {
        const std::uint64_t input = worker.stage == StageId(0) ? head_input(options_.seed, run->tag.step, m) : decode(run->tensor);
        if (run->training) device.inputs[m] = input;
        if (!tail) done.tensor = encode(forward(input, weights));
        if (tail) done.loss.push_back({m, 1.0, 1});
        if (!tail && run->training) write_journal(worker, run->tag, m, false, done.tensor);
        break;
      }
      case Operation::kInputGradient: {
        const std::uint64_t input = device.inputs[m];
        const std::uint64_t gradient = tail ? loss_gradient(input, weights) : decode(run->tensor);
        device.gradients[m] = gradient;
        if (worker.stage != StageId(0)) {
          done.tensor = encode(input_gradient(gradient, input, weights));
          write_journal(worker, run->tag, m, true, done.tensor);
        }
        break;
      }
      case Operation::kWeightGradient:
        for (std::size_t p = 0; p < device.sum.size(); ++p)
          device.sum[p] += weight_gradient(device.gradients[m], device.inputs[m], weights, p);
        device.in_sum.insert(m.value);
        device.bad = device.bad || (is_bad_step(options_.seed, run->tag.step) && m == MicrobatchId(0));
        ++worker.computed;
        break;
    }
    return done;
  }
  if (auto* close = std::get_if<RunClose>(&effect)) return CloseDone{close->tag, close->epoch, to_bytes(device.sum), !device.bad};
  if (auto* add = std::get_if<RunAdd>(&effect)) {
    Weights total;
    for (const auto& part : add->parts) {
      const Weights numbers = from_bytes(part);
      total.resize(numbers.size(), 0);
      for (std::size_t p = 0; p < numbers.size(); ++p) total[p] += numbers[p];
    }
    return AddDone{add->tag, add->epoch, to_bytes(total)};
  }
  if (auto* prepare = std::get_if<RunPrepare>(&effect)) {
    device.combined.reset();
    device.combined_finite = prepare->totals.empty() ? !device.bad : prepare->finite;
    if (!prepare->totals.empty()) {
      device.combined.emplace();
      for (const auto& slice : prepare->totals)
        for (const auto number : from_bytes(slice)) device.combined->push_back(number);
    }
    const Weights& sum = device.combined ? *device.combined : device.sum;
    if (stage.local)
      return PrepareDone{prepare->tag, prepare->epoch, {}, device.combined_finite, prepare->sync ? std::to_string(fingerprint(device.agreed)) : "", nullptr};
    return PrepareDone{prepare->tag, prepare->epoch, {}, device.combined_finite, std::to_string(fingerprint(sum)),
                       prepare->keep_total ? to_bytes(sum) : nullptr};
  }
  if (auto* commit = std::get_if<RunApply>(&effect)) {
    if (commit->sync) take_sync();
    take_step(commit->commit);
    return std::nullopt;
  }
  if (auto* follow = std::get_if<RunFollow>(&effect); follow && follow->sync) {
    device.agreed = agreed_in(!plan_.sparse_sync(follow->commit.step.value - 1), follow->total);
    clear();
    take_sync();
    device.version = follow->commit.step.value;
    checkers_.agrees(worker.peer, worker.stage, follow->commit, device.anchor);
    return LoadDone{follow->commit.step.value, ""};
  }
  if (auto* follow = std::get_if<RunFollow>(&effect)) {
    device.combined = from_bytes(follow->total);
    take_step(follow->commit);
    return std::nullopt;
  }
  if (std::holds_alternative<RunDropStep>(effect)) {
    clear();
    return std::nullopt;
  }
  if (auto* save = std::get_if<RunSave>(&effect)) {
    write_checkpoint(worker, save->version, {device.weights, device.anchor, save->timeline});
    return std::nullopt;
  }
  if (std::holds_alternative<RunDigests>(effect))
    return DigestsDone{{{fmt::format("stage {}", worker.stage), std::to_string(fingerprint(device.weights))}}};
  if (auto* load = std::get_if<RunLoad>(&effect)) {
    std::erase_if(worker.disk().checkpoints, [&](const auto& c) { return c.first > load->version && c.second.timeline < load->timeline; });
    clear();
    // It is rebuilt, or fetches, from there.
    const auto above = worker.disk().checkpoints.upper_bound(load->version);
    const auto at = above == worker.disk().checkpoints.begin() ? worker.disk().checkpoints.end() : std::prev(above);
    const bool none = at == worker.disk().checkpoints.end();
    const std::uint64_t version = none ? 0 : at->first;
    device.weights = none ? initial_weights(options_.seed, worker.stage, device.sum.size()) : at->second.weights;
    device.anchor = none ? device.weights : at->second.anchor;
    device.version = version;
    holds();
    return LoadDone{version, ""};
  }
  if (auto* restore = std::get_if<RunRestore>(&effect)) {
    clear();
    device.weights = device.anchor = from_bytes(restore->state);
    device.version = restore->version;
    holds();
    return LoadDone{restore->version, ""};
  }
  if (auto* snapshot = std::get_if<RunSnapshot>(&effect)) {
    if (snapshot->version != (stage.local ? plan_.last_sync(device.version) : device.version)) checkers_.violation("a snapshot of another version than it says");
    const SharedBytes state = to_bytes(stage.local ? device.anchor : device.weights);
    return SnapshotDone{snapshot->version, state, digest_hex(*state)};
  }
  if (auto* update = std::get_if<RunUpdate>(&effect)) {
    UpdateDone done{update->version, {}};
    for (std::uint32_t slice = 0; slice < plan_.update_bytes(worker.stage, update->version).size(); ++slice) {
      Bytes bytes;
      append_le(bytes, device.own_microbatches);
      if (device.own_microbatches > 0) append_le(bytes, mix(fingerprint(device.weights), slice));
      done.updates.push_back(share(std::move(bytes)));
    }
    device.own_microbatches = 0;
    device.agreed.assign(done.updates.size(), 0);
    return done;
  }
  if (auto* agree = std::get_if<RunAgree>(&effect)) {
    AgreeDone done{agree->version, agree->slice, agree->number, nullptr, "", std::vector<std::string>(agree->updates.size()), ""};
    const std::uint64_t sum = device.agreed[agree->slice] = sum_of(agree->updates);
    if (!plan_.sparse_sync(agree->version)) done.agreement = to_bytes({sum});
    done.digest = digest_hex(*to_bytes({sum}));
    return done;
  }
  if (auto* take = std::get_if<RunTake>(&effect)) {
    device.agreed[take->slice] = from_bytes(take->agreement).at(0);
    return AgreeDone{take->version, take->slice, take->number, take->agreement, digest_hex(*take->agreement), {}, ""};
  }
  if (auto* recall = std::get_if<RunRecall>(&effect)) {
    const bool gradient = recall->piece.kind == PieceKind::kGradient;
    const auto at = worker.disk().journal.find({recall->piece.version, recall->piece.attempt, recall->piece.index, gradient});
    const bool found = at != worker.disk().journal.end();
    return RecallDone{recall->asker, recall->piece, found, found ? at->second : EncodedTensor()};
  }
  if (auto* trim = std::get_if<RunTrim>(&effect))
    worker.disk().journal.erase(worker.disk().journal.begin(), worker.disk().journal.lower_bound({trim->version + 1, 0, 0, false}));
  return std::nullopt;
}

}  // namespace isthmus::sim
