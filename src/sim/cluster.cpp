#include "sim/cluster.h"

#include <algorithm>
#include <utility>

namespace isthmus::sim {

namespace {

constexpr Duration kProcessStart = std::chrono::milliseconds(300);
constexpr Duration kAskAgain = seconds(1);  // for a seat

}  // namespace

Cluster::Cluster(const protocol::Plan& plan, const Options& options)
    : plan_(plan),
      options_(options),
      draws_(options.seed, "cluster"),
      checkers_(plan, options.seed),
      network_(plan_,
               {options.latency, options.bytes_per_second, options.tensor,
                options.homes ? std::optional(options.seed) : std::nullopt},
               draws_, checkers_, [this](PeerId peer) { return up(peer) ? life_of(peer) : 0; }) {
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
    in_worker(peer, life, [this](router::WorkerSteps& steps) { return steps.tick(now_); });
  });
}

void Cluster::wake_coordinator() {
  const Time due = std::max(now_ + std::chrono::milliseconds(1), coordinator_.machine->next_due());
  if (coordinator_.wake_at > now_ && coordinator_.wake_at <= due) return;
  coordinator_.wake_at = due;
  at(due, [this, life = coordinator_.life, due] {
    if (coordinator_.life != life || coordinator_.wake_at != due) return;
    in_coordinator(life, [this](coordinator::Coordinator& c) { return c.tick(now_); });
  });
}

void Cluster::describe() {
  const auto& decisions = coordinator_.machine->decisions();
  checkers_.violation(fmt::format("  coordinator {}: epoch {}, step {}, {} members", coordinator_.up ? "up" : "down",
                                  decisions.epoch, decisions.step, decisions.live.size()));
  for (const auto& w : workers_)
    checkers_.violation(fmt::format(
        "  worker {} (stage {}, {}{}): version {}, view epoch {} step {}, "
        "{}waits for {}",
        w.peer, w.stage, w.up ? "up" : "down", w.left ? ", left" : "", w.steps->version(), w.steps->view().epoch,
        w.steps->view().step, decisions.find(w.steps->session()) ? "" : "not a member, ", w.steps->waiting_for()));
}

// ------------------------------------------------------------------------------------------------ processes

void Cluster::in_worker(PeerId peer, std::uint64_t life,
                        std::function<std::vector<protocol::WorkerEffect>(router::WorkerSteps&)> step) {
  Worker& worker = worker_of(peer);
  if (!worker.up || worker.life != life || ended_) return;
  if (now_ < worker.frozen_until) {
    at(worker.frozen_until, [this, peer, life, step = std::move(step)] { in_worker(peer, life, step); });
    return;
  }
  carry_out(peer, step(*worker.steps));
  if (!worker.up || worker.life != life) return;
  const std::uint64_t count = plan_.microbatches + plan_.evaluation_microbatches;
  const std::uint64_t each = 2 * (plan_.token_bytes + plan_.forward_bytes + plan_.backward_bytes);
  checkers_.bounds(peer, {worker.steps->custody_bytes(), worker.steps->held_messages(), worker.steps->samples()},
                   {each * count, 4 * (count + 1), protocol::samples_max(plan_)});
  wake_worker(worker);
}

void Cluster::in_coordinator(
    std::uint64_t life, std::function<std::vector<coordinator::CoordinatorEffect>(coordinator::Coordinator&)> step) {
  if (!coordinator_.up || coordinator_.life != life || ended_) return;
  if (now_ < coordinator_.frozen_until) {
    at(coordinator_.frozen_until, [this, life, step = std::move(step)] { in_coordinator(life, step); });
    return;
  }
  carry_out(step(*coordinator_.machine));
  if (coordinator_.up && coordinator_.life == life) wake_coordinator();
}

void Cluster::start_worker(PeerId peer, protocol::Place place) {
  Worker& worker = worker_of(peer);
  if (worker.up || worker.left || ended_) return;
  worker.stage = place.stage;
  worker.replica = place.replica;
  worker.life = ++lives_;
  worker.up = true;
  worker.die_in = -1;
  worker.asked_to_leave = false;
  worker.wake_at = kNever;
  worker.frozen_until = now_;
  network_.forget(peer);
  const runner::StageReady ready = start_device(worker);
  // As a worker's process has it: slow is not taken for lost.
  const double tensors = 2.0 * (static_cast<double>(plan_.microbatches) + plan_.evaluation_microbatches);
  const Duration ask_after = seconds(2 + 2 * tensors * to_seconds(options_.tensor));
  router::WorkerIdentity identity{peer,         worker.stage,  worker.replica, {}, ask_after, options_.bytes_per_second,
                                  ready.device, options_.homes};
  worker.steps = std::make_unique<router::WorkerSteps>(
      plan_, identity, router::WorkerSteps::Origin{ready.version, ready.timeline}, mix(options_.seed, lives_));
  if (coordinator_.up) join(peer, kCoordinator);
  wake_worker(worker);
}

void Cluster::kill_worker(PeerId peer, Duration down) {
  Worker& worker = worker_of(peer);
  if (!worker.up) return;
  note(1, peer.value);
  hang_up(worker);
  // Its supervisor knows only its first place, unless it gave that up.
  const coordinator::Seat& seat = seats_[peer.value - 1];
  at(now_ + down + kProcessStart, [this, peer, place = protocol::Place{seat.stage, seat.replica}] {
    if (coordinator_.machine->place_of(peer))
      start_worker(peer, place);
    else
      ask_for_seat(peer);
  });
}

void Cluster::hang_up(Worker& worker) {
  // While it is up: the others had a connection with this life.
  for (const auto& seat : seats_)
    if (seat.peer != worker.peer && up(seat.peer)) lose(seat.peer, worker.peer);
  if (coordinator_.up) lose(kCoordinator, worker.peer);
  worker.up = false;
}

// It said good-bye, and is back after a moment.
void Cluster::go_for_a_while(Worker& worker) {
  hang_up(worker);
  at(now_ + kProcessStart, [this, peer = worker.peer] { ask_for_seat(peer); });
}

// As a process does that has just been started: again and again, until it has one.
void Cluster::ask_for_seat(PeerId peer) {
  if (worker_of(peer).up || ended_) return;
  if (coordinator_.up && now_ >= coordinator_.frozen_until && enrol(peer))
    if (const auto place = coordinator_.machine->place_of(peer)) return start_worker(peer, *place);
  at(now_ + kAskAgain, [this, peer] { ask_for_seat(peer); });
}

// Whether the coordinator is still there afterwards.
bool Cluster::enrol(PeerId peer) {
  coordinator::Enrolment enrolment;
  for (std::size_t i = 0; i < 4; ++i) enrolment.key[i] = static_cast<std::uint8_t>(peer.value >> (8 * i));
  enrolment.identity = enrolment.key;
  enrolment.wish = seats_[peer.value - 1].stage;
  carry_out(coordinator_.machine->enrol(enrolment, now_));
  if (coordinator_.up) wake_coordinator();
  return coordinator_.up;
}

// The process goes on in another place, on new connections.
void Cluster::leave_for(Worker& worker, protocol::Place place) {
  hang_up(worker);
  for (auto& [stage, disk] : worker.disks)
    if (stage != place.stage) disk.journal->clear();
  at(now_ + kProcessStart, [this, peer = worker.peer, place] { start_worker(peer, place); });
}

void Cluster::start_coordinator(bool fresh) {
  if (coordinator_.up || ended_) return;
  coordinator_.life = ++lives_;
  coordinator_.up = true;
  coordinator_.die_in = -1;
  coordinator_.wake_at = kNever;
  coordinator_.frozen_until = now_;
  coordinator::Coordinator::Options options;
  options.measure = options_.measure;
  options.guard.patience = options_.patience;
  if (!options_.coordinator_times) options.silence = options.reconnect = seconds(1e6);
  coordinator_.machine = std::make_unique<coordinator::Coordinator>(plan_, options);
  coordinator_.machine->replay(log_);
  coordinator_.tokens.emplace(plan_, options_.bytes_per_second);
  if (fresh) {
    for (const auto& seat : seats_) enrol(seat.peer);
    carry_out(coordinator_.machine->begin(0, now_));
  }
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
  if (!network_.connected(a, b)) return;
  at(now_ + options_.latency, [this, a, b, life = life_of(a)] {
    if (a == kCoordinator)
      in_coordinator(life, [this, b](coordinator::Coordinator& c) {
        coordinator_.tokens->forget(b);
        return c.disconnected(b, now_);
      });
    else
      in_worker(a, life, [this, b](router::WorkerSteps& steps) { return steps.peer_lost(b, now_); });
  });
}

// Both learn that they are connected, after the handshake.
void Cluster::join(PeerId a, PeerId b) {
  for (const auto& [self, other] : {std::pair(a, b), std::pair(b, a)})
    at(now_ + 3 * options_.latency, [this, self = self, other = other, life = life_of(self),
                                     other_life = life_of(other)] {
      // It may have broken before the handshake was over.
      if (!up(other) || life_of(other) != other_life || !network_.connected(self, other)) return;
      if (self == kCoordinator)
        in_coordinator(life, [this, other](coordinator::Coordinator& c) {
          if (const Homes* homes = network_.homes()) c.located(other, homes->location(other));
          return c.connected(other, now_);
        });
      else
        in_worker(self, life, [this, other](router::WorkerSteps& steps) { return steps.peer_connected(other, now_); });
    });
}

// -------------------------------------------------------------------------------------------------- network

void Cluster::send(PeerId from, PeerId to, std::shared_ptr<const protocol::Message> message) {
  ++sent_[message->index()];
  for (auto& arrival : network_.send(from, to, std::move(message), now_))
    at(arrival.due, [this, from, to, life = life_of(to), sender = life_of(from), message = std::move(arrival.message)] {
      // What an old life sent does not overtake the connection of the new one.
      if (up(from) && life_of(from) != sender) return;
      deliver(from, to, life, message);
    });
}

void Cluster::deliver(PeerId from, PeerId to, std::uint64_t to_life,
                      const std::shared_ptr<const protocol::Message>& message) {
  note(message->index() + 16, (std::uint64_t{from.value} << 32) | to.value);
  ++delivered_;
  if (to == kCoordinator) {
    in_coordinator(to_life, [this, from, message](coordinator::Coordinator& c) {
      if (const auto* report = std::get_if<protocol::Report>(&*message)) return c.received(from, *report, now_);
      if (const auto* request = std::get_if<protocol::TokenRequest>(&*message)) {
        (void)coordinator_.tokens->asked(c.decisions(), from, *request);
        give_tokens();
      }
      return std::vector<coordinator::CoordinatorEffect>();
    });
    return;
  }
  in_worker(to, to_life, [this, from, message](router::WorkerSteps& steps) {
    if (from != kCoordinator) return steps.message_received(from, *message, now_);
    if (const auto* view = std::get_if<protocol::View>(&*message)) return steps.view_received(*view, now_);
    if (const auto* ids = std::get_if<protocol::TokenIds>(&*message)) return steps.tokens_received(*ids, now_);
    return std::vector<protocol::WorkerEffect>();
  });
}

// ------------------------------------------------------------------------------------ the coordinator's process

std::map<SessionId, std::multiset<std::uint32_t>> Cluster::sums() const {
  std::map<SessionId, std::multiset<std::uint32_t>> sums;
  for (const auto& worker : workers_)
    if (worker.up) sums[worker.steps->session()] = worker.device->stage().in_sum();
  return sums;
}

void Cluster::carry_out(std::vector<coordinator::CoordinatorEffect> effects) {
  for (auto& effect : effects) {
    if (coordinator_.die_in >= 0 && coordinator_.die_in-- == 0) {
      kill_coordinator(std::chrono::milliseconds(50 + static_cast<int>(draws_.below(2000))));
      return;
    }
    if (auto* append = std::get_if<coordinator::AppendRecord>(&effect)) {
      if (now_ < coordinator_.disk_full_until) {
        // The process ends before anything follows from a record that is not on the disk.
        kill_coordinator(coordinator_.disk_full_until - now_);
        return;
      }
      checkers_.logged(append->record, sums());
      log_.push_back(std::move(append->record));
    } else if (auto* view = std::get_if<coordinator::SendView>(&effect)) {
      send(kCoordinator, view->peer, std::make_shared<const protocol::Message>(std::move(view->view)));
    } else if (auto* step = std::get_if<coordinator::StepCommitted>(&effect)) {
      replayed_ += step->outcome.figures.replayed;
    } else if (auto* event = std::get_if<coordinator::Happened>(&effect)) {
      ++events_[std::string(coordinator::name_of(event->event))];
      note(4, coordinator::peer_of(event->event).value);
    } else if (auto* end = std::get_if<coordinator::RunEnded>(&effect)) {
      ended_ = *end;
    }
  }
}

void Cluster::give_tokens() {
  coordinator::TokenDesk& desk = *coordinator_.tokens;
  for (const auto& [to, sample] : desk.answers(coordinator_.machine->decisions(), now_))
    send(kCoordinator, to, std::make_shared<const protocol::Message>(token_ids(options_.seed, sample)));
  if (desk.next_due() == kNever) return;
  at(desk.next_due(), [this, life = coordinator_.life] {
    in_coordinator(life, [this](coordinator::Coordinator&) {
      give_tokens();
      return std::vector<coordinator::CoordinatorEffect>();
    });
  });
}

// ------------------------------------------------------------------------------------------ a worker's process

void Cluster::carry_out(PeerId peer, std::vector<protocol::WorkerEffect> effects) {
  Worker& worker = worker_of(peer);
  for (auto& effect : effects) {
    if (worker.die_in >= 0 && worker.die_in-- == 0) {
      kill_worker(peer, std::chrono::milliseconds(50 + static_cast<int>(draws_.below(2500))));
      return;
    }
    if (auto* message = std::get_if<protocol::SendMessage>(&effect)) {
      if (const auto* report = std::get_if<protocol::Report>(&message->message)) checkers_.reported(*report);
      send(peer, message->peer, std::make_shared<const protocol::Message>(std::move(message->message)));
    } else if (const auto* let_in = std::get_if<protocol::LetIn>(&effect)) {
      if (network_.let_in(peer, let_in->member.peer)) join(peer, let_in->member.peer);
    } else if (const auto* dial = std::get_if<protocol::Dial>(&effect)) {
      if (options_.dial && network_.dial(peer, dial->member, dial->way)) join(peer, dial->member.peer);
    } else if (const auto* begin = std::get_if<protocol::BeginAt>(&effect)) {
      leave_for(worker, begin->place);
      return;
    } else if (std::holds_alternative<protocol::Leave>(effect)) {
      if (worker.asked_to_leave) return go_for_a_while(worker);
      worker.up = false;
      worker.left = true;
      return;
    } else {
      std::visit(
          [&](auto& job) {
            if constexpr (std::is_constructible_v<runner::Job, decltype(job)>) worker.device->give(std::move(job));
          },
          effect);
    }
  }
}

// ---------------------------------------------------------------------------------------- a worker's device

Cluster::Disk& Cluster::disk_of(Worker& worker) {
  Disk& disk = worker.disks[worker.stage];
  if (disk.journal) return disk;
  const auto full = [this, peer = worker.peer] { return now_ < worker_of(peer).disk_full_until; };
  disk.journal = std::make_unique<SimulatedJournal>(options_.journal_entries, full);
  disk.checkpoints = std::make_unique<SimulatedCheckpoints>(
      [this, peer = worker.peer](std::function<void()> written) { worker_of(peer).device->write(std::move(written)); },
      full);
  return disk;
}

runner::StageReady Cluster::start_device(Worker& worker) {
  Disk& disk = disk_of(worker);
  const auto later = [this, peer = worker.peer, life = worker.life](
                         Time due, std::function<std::optional<protocol::JobResult>()> then) {
    at(due, [this, peer, life, then = std::move(then)] {
      in_worker(peer, life, [this, then](router::WorkerSteps& steps) -> std::vector<protocol::WorkerEffect> {
        auto result = then();
        if (!result) return {};
        return steps.job_done(std::move(*result), now_);
      });
    });
  };
  const SimulatedDevice::Times times{options_.forward, options_.input_gradient, options_.weight_gradient,
                                     options_.noise, options_.hiccups};
  worker.device = std::make_unique<SimulatedDevice>(
      SimulatedDevice::World{plan_, options_.seed, draws_, checkers_, [this] { return now_; }, later,
                             [&worker] { return worker.slow; }},
      times, worker.tally, worker.peer, worker.stage, *disk.journal, *disk.checkpoints, options_.make_runner);
  auto versions = disk.checkpoints->versions();
  std::ranges::reverse(versions);
  versions.push_back(0);
  return worker.device->start(versions);
}

}  // namespace isthmus::sim
