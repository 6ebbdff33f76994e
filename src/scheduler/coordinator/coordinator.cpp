#include "scheduler/coordinator/coordinator.h"

#include <algorithm>
#include <span>
#include <utility>

namespace isthmus::coordinator {

namespace {

constexpr Duration kTick = std::chrono::milliseconds(100);

}  // namespace

Coordinator::Coordinator(const protocol::Plan& plan, Options options)
    : plan_(plan),
      options_(options),
      decisions_(plan),
      liveness_({.suspicion = options.suspicion,
                 .silence = options.silence,
                 .reconnect = options.reconnect,
                 .remote_silence = options.remote_silence,
                 .remote_reconnect = options.remote_reconnect,
                 .grace = options.grace,
                 .pause = options.pause}),
      seating_(plan, options.seating, options.trust),
      absence_(plan),
      verdicts_(plan, {options.guard, options.checkpoints_kept}),
      survey_(options.measure),
      vault_has_(plan.stages.size(), 0),
      durable_moved_(plan.stages.size(), true),
      join_patience_(options.join_wait) {
  if (options_.rebalance) rebalance_.emplace(*options_.rebalance, plan_.run_id);
}

void Coordinator::replay(const std::vector<LogRecord>& log) {
  for (const auto& record : log) {
    note_moves(record);
    decisions_.apply(record);
    verdicts_.apply(record);
  }
  take_seats();
  begin_attempt();
  if (decisions_.last_commit && decisions_.last_commit->step == plan_.final_step()) phase_ = protocol::Phase::kFinished;
}

std::vector<CoordinatorEffect> Coordinator::begin(std::uint64_t version, Time now) {
  liveness_.turn(now);
  phase_ = protocol::Phase::kRunning;
  append(InitRecord{version});
  send_views();
  return take();
}

// What was reported from another place counts for nothing any more.
void Coordinator::take_seats() {
  std::erase_if(reports_, [&](const auto& newest) {
    const auto& [peer, report] = newest;
    const bool leaves = decisions_.place_of(peer) != protocol::Place{report.stage, report.replica};
    if (leaves) outsiders_.erase(peer);
    return leaves;
  });
  seating_.follow(decisions_);
  newest_.clear();
  for (const auto& seat : seating_.seats()) {
    const auto report = reports_.find(seat.peer);
    newest_.push_back(report == reports_.end() ? nullptr : &report->second);
  }
}

std::vector<CoordinatorEffect> Coordinator::take() { return std::exchange(effects_, {}); }

void Coordinator::begin_attempt() {
  paths_ = protocol::StepPaths(plan_, decisions_.step, decisions_.absent);
  ledger_.begin(plan_.count(decisions_.step), paths_);
}

void Coordinator::append(LogRecord record) {
  const bool decides = is_decision(record);
  const bool new_step = std::holds_alternative<InitRecord>(record) || std::holds_alternative<CommitRecord>(record) ||
                        std::holds_alternative<RollbackRecord>(record) || std::holds_alternative<AttemptRecord>(record);
  const auto* expel = std::get_if<ExpelRecord>(&record);
  const auto* move = std::get_if<MoveRecord>(&record);
  const protocol::Member* leaves = expel  ? decisions_.find(expel->session)
                                   : move ? decisions_.live_of(move->peer)
                                          : nullptr;
  if (leaves) {
    if (const auto at = ledger_.entries().find(leaves->session); at != ledger_.entries().end())
      replayed_ += at->second.done.size();
    ledger_.forget(leaves->session);
    liveness_.clear(leaves->session);
    verdicts_.forget(leaves->session);
  }
  const bool reseats = move || std::holds_alternative<InitRecord>(record) ||
                       std::holds_alternative<SeatRecord>(record) || std::holds_alternative<UnseatRecord>(record) ||
                       std::holds_alternative<RevokeRecord>(record);
  if (decides && !std::holds_alternative<CommitRecord>(record)) durable_moved_.assign(durable_moved_.size(), true);
  note_moves(record);
  decisions_.apply(record);
  verdicts_.apply(record);
  if (decides) addresses_.follow(decisions_);
  if (reseats) take_seats();
  effects_.push_back(AppendRecord{std::move(record)});
  if (new_step) begin_attempt();
  if (decides) preparing_ = false;
}

// ------------------------------------------------------------------------------------------ connections

std::vector<CoordinatorEffect> Coordinator::connected(PeerId peer, Time now) {
  liveness_.turn(now);
  liveness_.connected(peer);
  fill_seats();
  return take();
}

std::vector<CoordinatorEffect> Coordinator::disconnected(PeerId peer, Time now) {
  liveness_.turn(now);
  liveness_.disconnected(peer);
  if (const protocol::Member* member = decisions_.live_of(peer);
      member && phase_ == protocol::Phase::kRunning && liveness_.suspect(member->session)) {
    happened(events::Suspected{peer, true});
    send_views_soon();
  }
  end_if_all_left(now);
  return take();
}

std::vector<CoordinatorEffect> Coordinator::process_ended(PeerId peer, Time now) {
  liveness_.turn(now);
  liveness_.disconnected(peer);
  const protocol::Member* member = decisions_.live_of(peer);
  if (member && (phase_ == protocol::Phase::kRunning || phase_ == protocol::Phase::kFinished) && !has_left(peer))
    expel(protocol::Member(*member), "its process has ended");
  end_if_all_left(now);
  return take();
}

void Coordinator::suspect() {
  const bool running = phase_ == protocol::Phase::kRunning;
  const auto news = liveness_.judge(running ? std::span<const protocol::Member>(decisions_.live)
                                            : std::span<const protocol::Member>());
  if (!news) return;
  for (const auto& event : *news) happened(event);
  send_views_soon();
}

void Coordinator::expel_the_lost() {
  if (phase_ != protocol::Phase::kRunning && phase_ != protocol::Phase::kFinished) return;
  std::vector<protocol::Member> expected = decisions_.live;
  std::erase_if(expected, [&](const protocol::Member& member) { return has_left(member.peer); });
  for (const auto& [member, reason] : liveness_.lost(expected)) expel(member, reason);
}

// The step begins again without a stage that nobody has served for a while.
void Coordinator::skip_the_empty(Time now) {
  if (phase_ != protocol::Phase::kRunning) return;
  Absence::Turn turn = absence_.turn(decisions_, now);
  for (auto& event : turn.events) happened(std::move(event));
  if (!turn.attempt) return;
  for (const auto& [session, entry] : ledger_.entries()) replayed_ += entry.done.size();
  append(std::move(*turn.attempt));
  send_views();
}

// -------------------------------------------------------------------------------------------- reports

std::vector<CoordinatorEffect> Coordinator::received(PeerId from, const protocol::Report& report, Time now) {
  liveness_.turn(now);
  const bool leaving = report.leaving != protocol::Leaving::kNo;
  const Seat* found = seating_.find(from);
  if (!found && leaving) {
    seating_.leaves(from);
    release(from, std::min(report.stage, plan_.last_stage()));  // it has not heard of it
    return take();
  }
  if (!found) {
    said(events::Refused{from, "a report from a peer without a seat"});
    return take();
  }
  const Seat seat = *found;
  const bool is_there = report.stage == seat.stage && report.replica == seat.replica;
  liveness_.heard(from);
  if (!is_there && leaving && phase_ == protocol::Phase::kRunning && !decisions_.live_of(from)) {
    let_go(from, "before it served there");
    return take();
  }
  if (!is_there) {
    // It does not know yet that it was moved or seated elsewhere, or was started again where it was first.
    send_view(from);
    std::get<SendView>(effects_.back()).view.moved = {seat.stage, seat.replica};
    return take();
  }
  // An old life's report may arrive after the new one's first: the newer session was admitted or is a candidate.
  const std::size_t place = seating_.index(*found);
  protocol::Report* const before = newest_[place];
  const bool member = decisions_.is_live(report.session);
  const bool stale_life =
      !member && decisions_.used_sessions.contains(report.session) && before && before->session != report.session;
  if (stale_life) return take();
  const bool first = liveness_.reported(from);
  const bool first_fault = !report.fault.empty() && (!before || before->fault.empty());
  const bool new_warning = !report.warning.empty() && (!before || before->warning != report.warning);
  const bool new_fetching = !report.fetching.empty() && (!before || before->fetching != report.fetching);
  const bool new_session = !before || before->session != report.session;
  const std::uint64_t refused_before = before ? before->stats.rejected_frames : 0;
  if (new_session || before->checkpointed != report.checkpointed || before->timeline != report.timeline)
    durable_moved_[seat.stage.value] = true;
  if (member)
    outsiders_.erase(from);
  else
    outsiders_.insert(from);
  if (before)
    *before = report;
  else
    newest_[place] = &(reports_[from] = report);
  survey_.record(from, report.link, now);
  if (!leaving) {
    seating_.is_back(from);
  } else if (!seating_.is_leaving(from)) {
    seating_.leaves(from);
    happened(events::Leaving{from, {seat.stage, seat.replica}});
    next_moves_ = now;  // somebody else may have to serve its stage
    fill_seats();
    send_views_soon();
  }

  // What is late after an expulsion is refused as well as what is forged; nothing else changes by either.
  if (report.stats.rejected_frames > refused_before)
    said(events::Refused{
        from, fmt::format("{} messages, of {} since it started", report.stats.rejected_frames - refused_before,
                          report.stats.rejected_frames)});
  if (new_warning) said(events::Warning{from, report.warning});
  if (new_fetching) said(events::Fetching{from, report.fetching});
  if (first_fault) {
    happened(events::Fault{from, report.fault});
    // A stranger's word ends its own part alone.
    if (!decisions_.peers.at(from).trusted) {
      shut_out(from, "it could not go on: " + report.fault, false);
      end_if_all_left(now);
      return take();
    }
    enter(protocol::Phase::kStopping, fmt::format("stage {}: {}", seat.stage, report.fault), now);
  }
  const std::uint64_t version = durable_moved_[seat.stage.value] && !options_.vault ? durable(seat.stage) : 0;
  durable_moved_[seat.stage.value] = false;
  if (version > decisions_.checkpointed[seat.stage.value]) {
    append(CheckpointRecord{seat.stage, version});
    happened(events::Checkpointed{from, seat.stage, version});
  }
  if (member) {
    if (addresses_.reported(*decisions_.find(report.session), report.endpoints, now)) {
      said(events::AddressChanged{from, addresses_.location(from).network});
      send_views_soon();
    }
    if (report.step == decisions_.step && report.attempt == decisions_.attempt) {
      ledger_.record(report);
      if (phase_ == protocol::Phase::kRunning) deal_returned(report);
      if (phase_ == protocol::Phase::kRunning) evaluate(now);
    }
    if (phase_ == protocol::Phase::kRunning)
      for (const auto session : report.unreachable) {
        if (const auto expulsion = Verdicts::unreachable(decisions_, report.session, session))
          expel(expulsion->member, expulsion->reason);
        else if (auto stuck = verdicts_.stuck(decisions_, report.session, session))
          happened(std::move(*stuck));
      }
    for (auto& offender : verdicts_.offenders(decisions_, report)) happened(std::move(offender));
  } else if (decisions_.used_sessions.contains(report.session)) {
    if (phase_ == protocol::Phase::kRunning) send_view(from);  // expelled and does not know it yet
  } else if (phase_ != protocol::Phase::kStopping) {
    if (const protocol::Member* old = decisions_.live_of(from)) {
      expel(*old, "its process started again");
      admit_candidates(now);
    } else if (admit(seat)) {
      outsiders_.erase(from);
      send_views_soon();
      evaluate(now);
    }
    if (is_candidate(seat)) {
      if (report.version + 1 != decisions_.step.value &&
          std::exchange(joining_noted_[from], report.session) != report.session)
        said(events::Joining{from,
                             report.version == protocol::kNoVersion ? std::nullopt : std::optional(report.version),
                             decisions_.step.value - 1});
      if (!report.unrecoverable.empty())
        consider_rollback(seat, report, report.unrecoverable);
      else if (verdicts_.cannot_repeat(decisions_, seat.stage, report, now))
        consider_rollback(seat, report,
                          fmt::format("what was decided after version {} is not kept any more", report.version));
      if (new_session) send_views_soon();
    }
  }
  if (first && decisions_.epoch != EpochId(0)) send_view(from);
  consider_leaving(from);
  end_if_all_left(now);
  return take();
}

// A version that nobody has committed is on no disk, whoever says so.
std::uint64_t Coordinator::checkpoint_of(const protocol::Report& report) const {
  return report.checkpointed < decisions_.step.value ? report.checkpointed : 0;
}

// The newest version that every live replica of the stage has on its disk. Neighbours drop their journals on the word
// of it, so one replica's is not enough: the others may be what is left of the stage.
std::uint64_t Coordinator::durable(StageId stage) const {
  std::uint64_t version = UINT64_MAX;
  for (const auto& member : decisions_.members(stage)) {
    const auto report = reports_.find(member.peer);
    const bool known =
        report != reports_.end() && report->second.session == member.session && report->second.timeline == timeline();
    version = std::min(version, known ? checkpoint_of(report->second) : 0);
  }
  return version == UINT64_MAX ? 0 : version;
}

std::vector<CoordinatorEffect> Coordinator::vaulted(StageId stage, std::uint64_t version, Time now) {
  liveness_.turn(now);
  vault_has(stage, version);
  if (version > decisions_.checkpointed[stage.value]) {
    append(CheckpointRecord{stage, version});
    happened(events::Checkpointed{kCoordinator, stage, version});
  }
  // It is the next tick that may end the run: other stages can have been vaulted in the same turn.
  return take();
}

std::vector<CheckpointHolder> Coordinator::checkpoint_holders() const {
  std::vector<CheckpointHolder> holders;
  for (const auto& member : decisions_.live) {
    const auto report = reports_.find(member.peer);
    if (report == reports_.end() || report->second.session != member.session || report->second.timeline != timeline())
      continue;
    holders.push_back({member.stage, member.peer, checkpoint_of(report->second)});
  }
  return holders;
}

// A process that is there but not a member: it may become one once it holds the weights of the last commit. After the
// run's last commit also who was asked to leave gets them: the stage's final weights may be nowhere else.
bool Coordinator::is_candidate(const Seat& seat) const {
  const auto report = reports_.find(seat.peer);
  if (report == reports_.end() || !liveness_.is_connected(seat.peer)) return false;
  if (report->second.leaving != protocol::Leaving::kNo && phase_ != protocol::Phase::kFinished) return false;
  return !decisions_.used_sessions.contains(report->second.session);
}

protocol::Member Coordinator::member_of(const Seat& seat, const protocol::Report& report) const {
  return {
      seat.peer, report.session, seat.stage, seat.replica, seat.key, report.endpoints, addresses_.location(seat.peer)};
}

// A combination that is under way would be void with a new member, so a candidate waits until the commit, unless its
// stage is empty: then there is no combination without it.
bool Coordinator::admit(const Seat& seat) {
  if (phase_ != protocol::Phase::kRunning || !is_candidate(seat)) return false;
  const protocol::Report& report = reports_.at(seat.peer);
  const bool fits = report.version + 1 == decisions_.step.value && report.timeline == timeline();
  if (!fits || !liveness_.is_prompt(seat.peer) || (preparing_ && !decisions_.stage_is_empty(seat.stage))) return false;
  append(AdmitRecord{member_of(seat, report), report.version});
  happened(events::Admitted{seat.peer, {seat.stage, seat.replica}, report.version});
  return true;
}

void Coordinator::admit_candidates(Time now) {
  std::vector<PeerId> admitted;
  for (const PeerId peer : outsiders_)
    if (admit(*seating_.find(peer))) admitted.push_back(peer);
  if (admitted.empty()) return;
  for (const PeerId peer : admitted) outsiders_.erase(peer);
  send_views_soon();
  evaluate(now);
}

void Coordinator::consider_rollback(const Seat& seat, const protocol::Report& report, const std::string& why) {
  if (!decisions_.stage_is_empty(seat.stage) || report.timeline != timeline()) return;
  std::uint64_t version = decisions_.checkpointed_by_all();
  if (version + 1 >= decisions_.step.value) {
    // The run stands there already. Who has not got it may get it from the vault, now or later.
    if (version > 0 && vault_has_[seat.stage.value] >= version) return;
    // Back to what the stage has.
    std::uint64_t newest = 0;
    for (const PeerId peer : outsiders_)
      if (const Seat& other = *seating_.find(peer); other.stage == seat.stage && is_candidate(other))
        if (const protocol::Report& r = reports_.at(peer);
            r.version != protocol::kNoVersion && r.timeline == timeline())
          newest = std::max(newest, r.version);
    version = std::min(version, newest);
  }
  roll_back({version, fmt::format("stage {} is lost: {}", seat.stage, why), {}}, seat.peer);
}

void Coordinator::roll_back(RollbackRecord record, PeerId peer) {
  events::RolledBack event{peer, record.version, record.reason};
  for (auto& version : vault_has_) version = std::min(version, record.version);
  append(std::move(record));
  // Also after the last commit: the stage's final weights are lost, so the run is not over.
  phase_ = protocol::Phase::kRunning;
  ends_at_ = kNever;
  happened(std::move(event));
  send_views();
}

void Coordinator::expel(const protocol::Member& member, const std::string& reason) {
  const PeerId peer = member.peer;
  append(ExpelRecord{member.session, reason});
  happened(events::Expelled{peer, reason});
  send_views_soon();
}

// --------------------------------------------------------------------------------------------- the end

std::vector<CoordinatorEffect> Coordinator::tick(Time now) {
  liveness_.turn(now);
  suspect();
  expel_the_lost();
  admit_candidates(now);
  free_seats();
  fill_seats();
  consider_moves(now);
  skip_the_empty(now);
  if (phase_ == protocol::Phase::kRunning && decisions_.epoch != EpochId(0)) {
    evaluate(now);
    for (const PeerId peer : survey_.turn(decisions_.live, now)) send_view(peer);
  }
  if (now >= next_repeat_) {
    next_repeat_ = now + options_.repeat;
    if (decisions_.epoch != EpochId(0)) send_views_soon();
  }
  if (round_wanted_) send_views_soon();
  end_if_all_left(now);
  next_tick_ = now + kTick;
  if (round_wanted_) next_tick_ = std::min(next_tick_, next_round_);
  // Silence is noticed as soon as it is long enough, not at the tick after that.
  if (phase_ == protocol::Phase::kRunning) next_tick_ = std::min(next_tick_, liveness_.next_suspicion(decisions_.live));
  return take();
}

}  // namespace isthmus::coordinator
