#include "scheduler/coordinator.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace isthmus {

namespace {
constexpr Duration kTick = std::chrono::milliseconds(100);
}  // namespace

Coordinator::Coordinator(const Plan& plan, std::vector<Seat> seats, Options options)
    : plan_(plan), seats_(std::move(seats)), options_(options), decisions_(plan) {}

void Coordinator::replay(const std::vector<LogRecord>& log) {
  for (const auto& record : log) decisions_.apply(record);
  ledger_.begin(plan_.count(decisions_.step));
  if (decisions_.last_commit && decisions_.last_commit->step == plan_.final_step())
    phase_ = Phase::kFinished;
}

std::vector<CoordinatorEffect> Coordinator::begin(std::uint64_t version, Time now) {
  turn(now);
  patient_until_ = now + options_.grace;
  phase_ = Phase::kRunning;
  append(InitRecord{version});
  send_views();
  return take();
}

const Seat* Coordinator::seat_of(PeerId peer) const {
  const auto at = std::ranges::find(seats_, peer, &Seat::peer);
  return at == seats_.end() ? nullptr : &*at;
}

std::vector<CoordinatorEffect> Coordinator::take() { return std::exchange(effects_, {}); }

void Coordinator::happened(std::string event, PeerId peer, std::string reason) {
  effects_.push_back(Happened{std::move(event), decisions_.step, peer, std::move(reason)});
}

void Coordinator::append(LogRecord record) {
  const bool is_decision = !std::holds_alternative<CheckpointRecord>(record);
  const bool new_step = std::holds_alternative<InitRecord>(record) ||
                        std::holds_alternative<CommitRecord>(record);
  if (const auto* expel = std::get_if<ExpelRecord>(&record)) {
    if (const auto at = ledger_.entries().find(expel->session); at != ledger_.entries().end())
      replayed_ += at->second.done.size();
    ledger_.forget(expel->session);
  }
  decisions_.apply(record);
  effects_.push_back(AppendRecord{std::move(record)});
  if (new_step) ledger_.begin(plan_.count(decisions_.step));
  if (is_decision) preparing_ = false;
}

void Coordinator::send_view(PeerId peer) {
  View view;
  view.epoch = decisions_.epoch;
  view.step = decisions_.step;
  view.attempt = decisions_.attempt;
  view.live = decisions_.live;
  view.head_owner = decisions_.head_owner;
  view.head_again = decisions_.head_again;
  view.last_commit = decisions_.last_commit;
  view.preparing = preparing_;
  if (preparing_)
    for (const auto& member : decisions_.live)
      if (const auto at = ledger_.entries().find(member.session); at != ledger_.entries().end())
        view.owners.emplace(member.session, at->second.done);
  if (const auto at = decisions_.last_session.find(peer); at != decisions_.last_session.end())
    view.last_session = at->second;
  view.checkpointed = decisions_.checkpointed;
  view.phase = phase_;
  view.reason = reason_;
  effects_.push_back(SendView{peer, std::move(view)});
}

void Coordinator::send_views() {
  for (const auto& seat : seats_) send_view(seat.peer);
}

// Every public call starts here: `now` is read once, and a loop that stood still blames itself for the silence.
void Coordinator::turn(Time now) {
  if (now - last_turn_ > options_.pause && last_turn_ != Time{})
    patient_until_ = std::max(patient_until_, now + options_.grace);
  last_turn_ = now;
}

std::vector<CoordinatorEffect> Coordinator::connected(PeerId peer, Time now) {
  turn(now);
  contacts_[peer] = Contact{now, std::nullopt};
  if (seat_of(peer) && decisions_.epoch != EpochId(0)) send_view(peer);
  return take();
}

std::vector<CoordinatorEffect> Coordinator::disconnected(PeerId peer, Time now) {
  turn(now);
  auto& contact = contacts_[peer];
  if (!contact.lost) contact.lost = now;
  end_if_all_left(now);
  return take();
}

std::vector<CoordinatorEffect> Coordinator::received(PeerId from, const Report& report, Time now) {
  turn(now);
  const Seat* seat = seat_of(from);
  if (!seat || report.stage != seat->stage || report.replica != seat->replica) {
    happened("refused", from,
             fmt::format("a report for stage {} replica {} from a peer without that seat",
                         report.stage, report.replica));
    return take();
  }
  contacts_[from] = Contact{now, std::nullopt};
  // An old life's report may arrive after the new one's first: the newer session was admitted or is a candidate.
  const bool stale_life = decisions_.used_sessions.contains(report.session) &&
                          !decisions_.find(report.session) && reports_.contains(from) &&
                          reports_[from].session != report.session;
  if (stale_life) return take();
  const bool first_fault = !report.fault.empty() && reports_[from].fault.empty();
  reports_[from] = report;

  if (first_fault) {
    happened("fault", from, report.fault);
    enter(Phase::kStopping, fmt::format("stage {}: {}", seat->stage, report.fault), now);
  }
  if (report.checkpointed > decisions_.checkpointed[seat->stage.value]) {
    append(CheckpointRecord{seat->stage, report.checkpointed});
    happened("checkpoint", from, fmt::format("version {}", report.checkpointed));
  }
  if (decisions_.find(report.session)) {
    if (report.step == decisions_.step && report.attempt == decisions_.attempt) {
      ledger_.record(report);
      if (phase_ == Phase::kRunning) evaluate();
    }
  } else if (phase_ == Phase::kRunning && !decisions_.used_sessions.contains(report.session)) {
    consider_candidate(*seat, report);
  } else if (phase_ == Phase::kRunning) {
    send_view(from);  // expelled and does not know it yet
  }
  end_if_all_left(now);
  return take();
}

void Coordinator::consider_candidate(const Seat& seat, const Report& report) {
  if (const Member* old = decisions_.live_of(seat.peer))
    expel(*old, "its process started again");
  if (report.version + 1 != decisions_.step.value) {
    if (waiting_noted_.insert(seat.peer).second)
      happened("refused", seat.peer,
               fmt::format("it holds weights of version {}, step {} needs version {}",
                           report.version, decisions_.step, decisions_.step.value - 1));
    return;
  }
  waiting_noted_.erase(seat.peer);
  append(AdmitRecord{Member{seat.peer, report.session, seat.stage, seat.replica, seat.key,
                            report.endpoints},
                     report.version});
  happened("admitted", seat.peer,
           fmt::format("stage {} replica {}, version {}", seat.stage, seat.replica,
                       report.version));
  send_views();
}

void Coordinator::expel(const Member& member, const std::string& reason) {
  const PeerId peer = member.peer;
  append(ExpelRecord{member.session, reason});
  happened("expelled", peer, reason);
  send_views();
}

void Coordinator::evaluate() {
  const auto verdict = ledger_.verdict(decisions_.live, static_cast<std::uint32_t>(plan_.stages.size()));
  if (verdict.duplicate) {
    const Member twice = *decisions_.find(*verdict.duplicate);
    expel(twice, "a microbatch has two owners in its stage");
    return;
  }
  if (!verdict.complete) return;
  if (ledger_.all_prepared(decisions_.live, decisions_.epoch)) {
    commit();
  } else if (!preparing_) {
    // Not logged: after a restart the same Reports lead here again.
    preparing_ = true;
    send_views();
  }
}

void Coordinator::commit() {
  StepOutcome outcome;
  double norm2 = 0;
  bool finite = true;
  std::map<MicrobatchId, MicrobatchLoss> losses;
  // Members are in stage order and units in layer order, so the sum is the same for every layout of the same model.
  for (const auto& member : decisions_.live) {
    const auto& entry = ledger_.entries().at(member.session);
    finite = finite && entry.finite;
    if (member.replica == ReplicaId(0))
      for (const auto& unit : entry.norms) norm2 += unit.norm2;
    losses.insert(entry.losses.begin(), entry.losses.end());
  }
  double training = 0, validation = 0;
  std::uint64_t validation_tokens = 0;
  for (const auto& [m, loss] : losses) {
    const bool trains = plan_.is_training(decisions_.step, m);
    (trains ? training : validation) += loss.sum;
    (trains ? outcome.tokens : validation_tokens) += loss.tokens;
  }
  outcome.grad_norm = std::sqrt(norm2);
  if (outcome.tokens > 0) outcome.loss = training / static_cast<double>(outcome.tokens);
  if (validation_tokens > 0)
    outcome.validation_loss = validation / static_cast<double>(validation_tokens);

  outcome.commit.step = decisions_.step;
  outcome.commit.attempt = decisions_.attempt;
  outcome.commit.epoch = decisions_.epoch;
  outcome.commit.apply = plan_.training_count(decisions_.step) > 0 && finite && std::isfinite(norm2);
  if (options_.clip > 0 && outcome.commit.apply && outcome.grad_norm > options_.clip)
    outcome.commit.scale = options_.clip / outcome.grad_norm;
  for (const auto& member : decisions_.live)
    outcome.stats[member.peer] = reports_[member.peer].stats;

  outcome.replayed = std::exchange(replayed_, 0);
  const StepId step = decisions_.step;
  const bool bad = plan_.training_count(step) > 0 && !outcome.commit.apply;
  append(CommitRecord{outcome.commit});
  if (step == plan_.final_step()) {
    phase_ = Phase::kFinished;
    ends_at_ = last_turn_ + options_.leave;
  }
  send_views();
  effects_.push_back(StepCommitted{outcome});
  effects_.push_back(Happened{"committed", step, kCoordinator,
                              bad ? "skipped on every stage: the gradient is not finite" : ""});
  if (phase_ == Phase::kFinished) happened("finished", kCoordinator, "");
}

void Coordinator::enter(Phase phase, const std::string& reason, Time now) {
  if (phase_ != Phase::kRunning) return;
  phase_ = phase;
  reason_ = reason;
  ends_at_ = now + options_.leave;
  happened("stopping", kCoordinator, reason);
  send_views();
}

std::vector<CoordinatorEffect> Coordinator::stop(const std::string& reason, Time now) {
  turn(now);
  enter(Phase::kStopping, reason, now);
  end_if_all_left(now);
  return take();
}

void Coordinator::end_if_all_left(Time now) {
  if (phase_ == Phase::kRunning || ended_) return;
  const bool all_left = std::ranges::all_of(seats_, [&](const Seat& seat) {
    const auto report = reports_.find(seat.peer);
    const auto contact = contacts_.find(seat.peer);
    const bool left = report != reports_.end() && report->second.left;
    // While stopping, a worker that is gone, or never came, has nothing more to save.
    const bool gone = contact == contacts_.end() || contact->second.lost.has_value();
    return left || (phase_ == Phase::kStopping && gone);
  });
  if (!all_left && now < ends_at_) return;
  ended_ = true;
  RunEnded end;
  end.finished = phase_ == Phase::kFinished && all_left;
  end.reason = !all_left && reason_.empty() ? "a worker did not report its final weights" : reason_;
  end.version = decisions_.step.value - 1;
  for (const auto& [peer, report] : reports_)
    for (const auto& unit : report.weights) end.weights_hash[unit.unit] = unit.hex;
  effects_.push_back(std::move(end));
}

std::vector<CoordinatorEffect> Coordinator::tick(Time now) {
  turn(now);
  if (phase_ == Phase::kRunning && now >= patient_until_) {
    std::vector<std::pair<Member, std::string>> gone;
    for (const auto& member : decisions_.live) {
      const auto& contact = contacts_[member.peer];
      if (contact.lost && now - *contact.lost >= options_.reconnect)
        gone.emplace_back(member, "its connection is lost");
      else if (now - contact.heard >= options_.silence)
        gone.emplace_back(member, fmt::format("silent for {:.1f} s", to_seconds(now - contact.heard)));
    }
    // If most of them fall silent together it is this machine's own link.
    if (gone.size() > 1 && gone.size() * 2 > decisions_.live.size())
      patient_until_ = now + options_.grace;
    else
      for (const auto& [member, reason] : gone) expel(member, reason);
  }
  if (now >= next_repeat_) {
    next_repeat_ = now + options_.repeat;
    if (decisions_.epoch != EpochId(0)) send_views();
  }
  end_if_all_left(now);
  next_tick_ = now + kTick;
  return take();
}

}  // namespace isthmus
