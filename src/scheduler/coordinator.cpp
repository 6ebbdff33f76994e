#include "scheduler/coordinator.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "scheduler/step_result.h"

namespace isthmus {

namespace {

constexpr Duration kRepeatPatience = seconds(10);  // as long as a rebuild waits for a lost journal
constexpr Duration kTick = std::chrono::milliseconds(100);
// A joiner whose newest report is not older than this follows its siblings step by step.
constexpr std::uint64_t kNearlyCaughtUp = 3;

}  // namespace

Coordinator::Coordinator(const Plan& plan, std::vector<Seat> seats, Options options)
    : plan_(plan), roster_(std::move(seats)), seats_(roster_), options_(options), decisions_(plan), guard_(options.guard),
      survey_(options.measure), newest_(seats_.size(), nullptr), durable_moved_(plan.stages.size(), true), join_patience_(options.join_wait) {
  for (std::size_t i = 0; i < seats_.size(); ++i) seat_index_.emplace(seats_[i].peer, i);
  if (options_.rebalance) rebalance_.emplace(*options_.rebalance, plan_.run_id);
}

void Coordinator::replay(const std::vector<LogRecord>& log) {
  for (const auto& record : log) {
    note_moves(record);
    decisions_.apply(record);
    guard_.apply(record);
  }
  take_seats();
  begin_attempt();
  if (decisions_.last_commit && decisions_.last_commit->step == plan_.final_step())
    phase_ = Phase::kFinished;
}

std::vector<CoordinatorEffect> Coordinator::begin(std::uint64_t version, Time now) {
  turn(now);
  phase_ = Phase::kRunning;
  append(InitRecord{version});
  send_views();
  return take();
}

const Seat* Coordinator::seat_of(PeerId peer) const {
  const auto at = seat_index_.find(peer);
  return at == seat_index_.end() ? nullptr : &seats_[at->second];
}

void Coordinator::take_seats() {
  seats_ = roster_;
  for (auto& seat : seats_)
    if (const auto at = decisions_.moved.find(seat.peer); at != decisions_.moved.end()) {
      seat.stage = at->second.stage;
      seat.replica = at->second.replica;
    }
}

std::vector<CoordinatorEffect> Coordinator::take() { return std::exchange(effects_, {}); }

void Coordinator::happened(std::string event, PeerId peer, std::string reason) {
  effects_.push_back(Happened{std::move(event), decisions_.step, peer, std::move(reason)});
}

void Coordinator::begin_attempt() {
  paths_ = StepPaths(plan_, decisions_.step, decisions_.absent);
  ledger_.begin(plan_.count(decisions_.step), paths_);
}

void Coordinator::append(LogRecord record) {
  const bool is_decision = !std::holds_alternative<CheckpointRecord>(record);
  const bool new_step = std::holds_alternative<InitRecord>(record) || std::holds_alternative<CommitRecord>(record) ||
                        std::holds_alternative<RollbackRecord>(record) || std::holds_alternative<AttemptRecord>(record);
  const auto* expel = std::get_if<ExpelRecord>(&record);
  const auto* move = std::get_if<MoveRecord>(&record);
  const Member* leaves = expel ? decisions_.find(expel->session) : move ? decisions_.live_of(move->peer) : nullptr;
  if (leaves) {
    if (const auto at = ledger_.entries().find(leaves->session); at != ledger_.entries().end())
      replayed_ += at->second.done.size();
    ledger_.forget(leaves->session);
    suspected_.erase(leaves->session);
    accused_.erase(leaves->session);
  }
  const bool reseats = move || std::holds_alternative<InitRecord>(record);
  if (is_decision && !std::holds_alternative<CommitRecord>(record)) durable_moved_.assign(durable_moved_.size(), true);
  note_moves(record);
  decisions_.apply(record);
  guard_.apply(record);
  if (reseats) take_seats();
  effects_.push_back(AppendRecord{std::move(record)});
  if (new_step) begin_attempt();
  if (is_decision) preparing_ = false;
}

// ------------------------------------------------------------------------------------------ connections

// Every public call starts here: `now` is read once, and a loop that stood still, or has just begun, blames itself for
// the silence.
void Coordinator::turn(Time now) {
  if (last_turn_ == Time{}) {
    started_ = now;
    patient_until_ = now + options_.grace;
  } else if (now - last_turn_ > options_.pause) {
    patient_until_ = std::max(patient_until_, now + options_.grace);
  }
  last_turn_ = now;
}

std::vector<CoordinatorEffect> Coordinator::connected(PeerId peer, Time now) {
  turn(now);
  contacts_[peer] = Contact{now};
  return take();
}

std::vector<CoordinatorEffect> Coordinator::disconnected(PeerId peer, Time now) {
  turn(now);
  auto& contact = contacts_[peer];
  if (!contact.lost) contact.lost = now;
  contact.reported = false;
  if (const Member* member = decisions_.live_of(peer); member && phase_ == Phase::kRunning && suspected_.insert(member->session).second) {
    happened("suspected", peer, "its connection is lost");
    send_views_soon();
  }
  end_if_all_left(now);
  return take();
}

std::vector<CoordinatorEffect> Coordinator::process_ended(PeerId peer, Time now) {
  turn(now);
  auto& contact = contacts_[peer];
  if (!contact.lost) contact.lost = now;
  contact.reported = false;
  const Member* member = decisions_.live_of(peer);
  if (member && (phase_ == Phase::kRunning || phase_ == Phase::kFinished) && !has_left(peer)) expel(Member(*member), "its process has ended");
  end_if_all_left(now);
  return take();
}

void Coordinator::suspect(Time now) {
  std::set<SessionId> suspected;
  if (phase_ == Phase::kRunning)
    for (const auto& member : decisions_.live) {
      const auto& contact = contacts_[member.peer];
      if (contact.lost || now - std::max(contact.heard, started_) >= options_.suspicion) suspected.insert(member.session);
    }
  if (suspected == suspected_) return;
  for (const auto session : suspected)
    if (!suspected_.contains(session)) {
      const Member& member = *decisions_.find(session);
      happened("suspected", member.peer, contacts_[member.peer].lost ? "its connection is lost" : "silent");
    }
  suspected_ = std::move(suspected);
  send_views_soon();
}

void Coordinator::expel_the_gone(Time now) {
  if ((phase_ != Phase::kRunning && phase_ != Phase::kFinished) || now < patient_until_) return;
  std::vector<std::pair<Member, std::string>> gone;
  for (const auto& member : decisions_.live) {
    const auto& contact = contacts_[member.peer];
    const Duration silent = now - std::max(contact.heard, started_);
    if ((!contact.lost && silent < options_.silence) || has_left(member.peer)) continue;
    if (contact.lost && now - *contact.lost >= options_.reconnect)
      gone.emplace_back(member, "its connection is lost");
    else if (silent >= options_.silence)
      gone.emplace_back(member, fmt::format("silent for {:.1f} s", to_seconds(silent)));
  }
  if (gone.empty()) was_patient_ = false;
  // If most of them fall silent together it is probably this machine's own link.
  if (gone.size() > 1 && gone.size() * 2 > decisions_.live.size() && !was_patient_) {
    was_patient_ = true;
    patient_until_ = now + options_.grace;
    return;
  }
  for (const auto& [member, reason] : gone) expel(member, reason);
}

// ------------------------------------------------------------------------------------------- skipping

// Stages that the running step goes without, but for those that somebody has come back to.
std::vector<StageId> Coordinator::still_empty() const {
  std::vector<StageId> empty = decisions_.absent;
  std::erase_if(empty, [&](StageId stage) { return !decisions_.stage_is_empty(stage); });
  return empty;
}

// Stages that the next step goes without: those the running one does, unless somebody has come back or it has been
// too long; then the run waits.
std::vector<StageId> Coordinator::still_absent() const {
  std::vector<StageId> absent = still_empty();
  std::erase_if(absent, [&](StageId stage) { return decisions_.steps_without[stage.value] >= plan_.skip_steps; });
  return absent;
}

// The step begins again without a stage that nobody has served for a while. Before the first commit every stage is
// still on its way.
void Coordinator::skip_the_empty(Time now) {
  if (phase_ != Phase::kRunning || plan_.skip_after == Duration{} || !decisions_.last_commit || decisions_.step > plan_.final_step()) return;
  // The running step goes on without those it goes without already, also if the next one would not.
  std::vector<StageId> absent = still_empty();
  bool more = false;
  for (std::uint32_t s = 0; s < plan_.stages.size(); ++s) {
    const StageId stage(s);
    if (!decisions_.stage_is_empty(stage)) {
      empty_since_.erase(stage);
      waited_for_.erase(stage);
      continue;
    }
    const Time since = empty_since_.try_emplace(stage, now).first->second;
    if (decisions_.is_absent(stage) || now - since < plan_.skip_after) continue;
    if (decisions_.steps_without[s] >= plan_.skip_steps) {
      if (waited_for_.insert(stage).second)
        happened("waiting", kCoordinator, fmt::format("stage {} has been skipped for {} steps in a row, as many as recovery.skip_steps allows: the run waits for it", stage, plan_.skip_steps));
      continue;
    }
    std::vector<StageId> with = absent;
    with.push_back(stage);
    std::ranges::sort(with);
    if (!may_be_absent(plan_, with)) continue;
    absent = std::move(with);
    more = true;
    happened("skipped", kCoordinator, fmt::format("stage {}: nobody has served it for {:.1f} s", stage, to_seconds(now - since)));
  }
  if (!more) return;
  for (const auto& [session, entry] : ledger_.entries()) replayed_ += entry.done.size();
  append(AttemptRecord{absent});
  send_views();
}

// -------------------------------------------------------------------------------------------- reports

std::vector<CoordinatorEffect> Coordinator::received(PeerId from, const Report& report, Time now) {
  turn(now);
  const Seat* seat = seat_of(from);
  const bool is_there = seat && report.stage == seat->stage && report.replica == seat->replica;
  const bool was_moved = seat && decisions_.moved.contains(from);
  if (!is_there && !was_moved) {
    happened("refused", from,
             fmt::format("a report for stage {} replica {} from a peer without that seat",
                         report.stage, report.replica));
    return take();
  }
  Contact& contact = contacts_[from];
  contact.heard = now;
  contact.lost.reset();
  if (!is_there) {
    // It does not know yet that it was moved, or was started again where it was first.
    send_view(from);
    return take();
  }
  // An old life's report may arrive after the new one's first: the newer session was admitted or is a candidate.
  const auto place = static_cast<std::size_t>(seat - seats_.data());
  Report* const before = newest_[place];
  const bool member = decisions_.is_live(report.session);
  const bool stale_life = !member && decisions_.used_sessions.contains(report.session) &&
                          before && before->session != report.session;
  if (stale_life) return take();
  const bool first = !std::exchange(contact.reported, true);
  const bool first_fault = !report.fault.empty() && (!before || before->fault.empty());
  const bool new_warning = !report.warning.empty() && (!before || before->warning != report.warning);
  const bool new_fetching = !report.fetching.empty() && (!before || before->fetching != report.fetching);
  const bool new_session = !before || before->session != report.session;
  const std::uint64_t refused_before = before ? before->stats.rejected_frames : 0;
  if (new_session || before->checkpointed != report.checkpointed || before->timeline != report.timeline)
    durable_moved_[seat->stage.value] = true;
  if (member)
    outsiders_.erase(place);
  else
    outsiders_.insert(place);
  if (before)
    *before = report;
  else
    newest_[place] = &(reports_[from] = report);
  survey_.record(from, report.link, now);

  // What is late after an expulsion is refused as well as what is forged; nothing else changes by either.
  if (report.stats.rejected_frames > refused_before)
    happened("refused", from, fmt::format("{} messages, of {} since it started", report.stats.rejected_frames - refused_before, report.stats.rejected_frames));
  if (new_warning) happened("warning", from, report.warning);
  if (new_fetching) happened("fetching", from, report.fetching);
  if (first_fault) {
    happened("fault", from, report.fault);
    enter(Phase::kStopping, fmt::format("stage {}: {}", seat->stage, report.fault), now);
  }
  const std::uint64_t version = durable_moved_[seat->stage.value] ? durable(seat->stage) : 0;
  durable_moved_[seat->stage.value] = false;
  if (version > decisions_.checkpointed[seat->stage.value]) {
    append(CheckpointRecord{seat->stage, version});
    happened("checkpoint", from, fmt::format("version {}", version));
  }
  if (member) {
    if (report.step == decisions_.step && report.attempt == decisions_.attempt) {
      ledger_.record(report);
      if (phase_ == Phase::kRunning) deal_returned(report);
      if (phase_ == Phase::kRunning) evaluate(now);
    }
    if (phase_ == Phase::kRunning) consider_unreachable(report);
    hear_offences(report);
  } else if (decisions_.used_sessions.contains(report.session)) {
    if (phase_ == Phase::kRunning) send_view(from);  // expelled and does not know it yet
  } else if (phase_ != Phase::kStopping) {
    if (const Member* old = decisions_.live_of(from)) {
      expel(*old, "its process started again");
      admit_candidates(now);
    } else if (admit(*seat, now)) {
      outsiders_.erase(place);
      send_views_soon();
      evaluate(now);
    }
    if (is_candidate(*seat)) {
      if (report.version + 1 != decisions_.step.value && joining_noted_.insert(report.session).second)
        happened("joining", from, fmt::format("it holds version {}, step {} needs {}", report.version, decisions_.step, decisions_.step.value - 1));
      if (!report.unrecoverable.empty())
        consider_rollback(*seat, report, report.unrecoverable);
      else if (cannot_repeat(*seat, report, now))
        consider_rollback(*seat, report, fmt::format("what was decided after version {} is not kept any more", report.version));
      if (new_session) send_views_soon();
    }
  }
  if (first && decisions_.epoch != EpochId(0)) send_view(from);
  end_if_all_left(now);
  return take();
}

// The newest version that every live replica of the stage has on its disk. Neighbours drop their journals on the word of
// it, so one replica's is not enough: the others may be what is left of the stage.
std::uint64_t Coordinator::durable(StageId stage) const {
  std::uint64_t version = UINT64_MAX;
  for (const auto& member : decisions_.members(stage)) {
    const auto report = reports_.find(member.peer);
    const bool known = report != reports_.end() && report->second.session == member.session && report->second.timeline == timeline();
    version = std::min(version, known ? report->second.checkpointed : 0);
  }
  return version == UINT64_MAX ? 0 : version;
}

// A process that is there but not a member: it may become one once it holds the weights of the last commit.
bool Coordinator::is_candidate(const Seat& seat) const {
  const auto report = reports_.find(seat.peer);
  const auto contact = contacts_.find(seat.peer);
  return report != reports_.end() && contact != contacts_.end() && !contact->second.lost &&
         !decisions_.used_sessions.contains(report->second.session);
}

Member Coordinator::member_of(const Seat& seat, const Report& report) const {
  return {seat.peer, report.session, seat.stage, seat.replica, seat.key, report.endpoints};
}

// A combination that is under way would be void with a new member, so a candidate waits until the commit, unless its
// stage is empty: then there is no combination without it.
bool Coordinator::admit(const Seat& seat, Time now) {
  if (phase_ != Phase::kRunning || !is_candidate(seat)) return false;
  const Report& report = reports_.at(seat.peer);
  const bool fits = report.version + 1 == decisions_.step.value && report.timeline == timeline();
  const bool heard = now - contacts_.at(seat.peer).heard < options_.suspicion;
  if (!fits || !heard || (preparing_ && !decisions_.stage_is_empty(seat.stage))) return false;
  append(AdmitRecord{member_of(seat, report), report.version});
  happened("admitted", seat.peer, fmt::format("stage {} replica {}, version {}", seat.stage, seat.replica, report.version));
  return true;
}

void Coordinator::admit_candidates(Time now) {
  std::vector<std::size_t> admitted;
  for (const auto i : outsiders_)
    if (admit(seats_[i], now)) admitted.push_back(i);
  if (admitted.empty()) return;
  for (const auto i : admitted) outsiders_.erase(i);
  send_views_soon();
  evaluate(now);
}

// Two members that cannot reach each other would wait for ever; the one whose stage can do without it goes.
void Coordinator::consider_unreachable(const Report& report) {
  for (const auto session : report.unreachable) {
    const Member* accuser = decisions_.find(report.session);
    const Member* accused = decisions_.find(session);
    if (!accuser || !accused) continue;
    const auto replicas = [&](const Member& m) { return decisions_.members(m.stage).size(); };
    if (std::max(replicas(*accuser), replicas(*accused)) < 2) continue;
    const Member goes = replicas(*accuser) > replicas(*accused) ? *accuser : *accused;
    const Member stays = goes == *accuser ? *accused : *accuser;
    expel(goes, fmt::format("it and worker {} cannot reach each other", stays.peer));
  }
}

// A replica that most of its siblings find fault with at one sync is named, once for it.
void Coordinator::hear_offences(const Report& report) {
  for (const auto& offence : report.offences) {
    const Member* accuser = decisions_.find(report.session);
    const Member* accused = decisions_.find(offence.session);
    if (!accuser || !accused || accuser->stage != accused->stage || accuser == accused) continue;
    auto& [version, accusers] = accused_[accused->session];
    if (version > offence.version) continue;
    if (version < offence.version) accusers.clear();
    version = offence.version;
    const std::size_t before = accusers.size(), siblings = decisions_.members(accused->stage).size() - 1;
    accusers.insert(accuser->session);
    if (2 * before <= siblings && 2 * accusers.size() > siblings)
      happened("offender", accused->peer, fmt::format("sync of version {}: {}", offence.version, offence.what));
  }
}

// A stage that comes back repeats the committed steps from the version it holds. If the next of them is not kept any
// more, only going back helps, unless another replica with newer weights appears in the meantime.
bool Coordinator::cannot_repeat(const Seat& seat, const Report& report, Time now) {
  const bool behind = report.version != kNoVersion && report.timeline == timeline() && report.version + 1 < decisions_.step.value;
  const bool kept = std::ranges::find(decisions_.commits, StepId(report.version + 1), &Commit::step) != decisions_.commits.end();
  if (!behind || kept || !decisions_.stage_is_empty(seat.stage)) {
    cannot_repeat_since_.erase(report.session);
    return false;
  }
  return now - cannot_repeat_since_.try_emplace(report.session, now).first->second >= kRepeatPatience;
}

void Coordinator::consider_rollback(const Seat& seat, const Report& report, const std::string& why) {
  if (!decisions_.stage_is_empty(seat.stage) || report.timeline != timeline()) return;
  std::uint64_t version = decisions_.checkpointed_by_all();
  if (version + 1 >= decisions_.step.value) {
    // The run stands there already and the stage has not got that version: back to what it has.
    std::uint64_t newest = 0;
    for (const auto i : outsiders_)
      if (const Seat& other = seats_[i]; other.stage == seat.stage && is_candidate(other))
        if (const Report& r = reports_.at(other.peer); r.version != kNoVersion && r.timeline == timeline()) newest = std::max(newest, r.version);
    version = std::min(version, newest);
  }
  roll_back({version, fmt::format("stage {} is lost: {}", seat.stage, why), {}}, seat.peer);
}

void Coordinator::roll_back(RollbackRecord record, PeerId peer) {
  const std::string what = fmt::format("to version {} on every stage; {}", record.version, record.reason);
  append(std::move(record));
  cannot_repeat_since_.clear();  // what is kept, and who holds it, has to be found out anew
  // Also after the last commit: the stage's final weights are lost, so the run is not over.
  phase_ = Phase::kRunning;
  ends_at_ = kNever;
  happened("rolled back", peer, what);
  send_views();
}

void Coordinator::expel(const Member& member, const std::string& reason) {
  const PeerId peer = member.peer;
  append(ExpelRecord{member.session, reason});
  happened("expelled", peer, reason);
  send_views_soon();
}

// ----------------------------------------------------------------------------------------------- commit

// A replica that is a few steps behind would stay behind for ever if a step is shorter than it takes to fetch one: the
// finished step waits for it before the sums are combined, for a small share of the time.
bool Coordinator::waits_for_joiner(Time now) {
  const auto steps = step_time_ > Duration{} ? static_cast<std::uint64_t>(options_.join_within / step_time_) : 0;
  const std::uint64_t few = std::max(kNearlyCaughtUp, steps);
  std::vector<SessionId> near;
  for (const auto i : outsiders_) {
    if (!is_candidate(seats_[i])) continue;
    const Report& report = reports_.at(seats_[i].peer);
    if (report.timeline == timeline() && report.version != kNoVersion && report.version + few >= decisions_.step.value) near.push_back(report.session);
  }
  return join_patience_.waits(near, now);
}

void Coordinator::evaluate(Time now) {
  const auto verdict = ledger_.verdict();
  if (verdict.duplicate) {
    const Member twice = *decisions_.find(*verdict.duplicate);
    expel(twice, "a microbatch has two owners in its stage");
    return;
  }
  if (!verdict.complete) return;
  // A step that is nothing but a sync has no microbatch that would wait for a stage nobody serves.
  for (std::uint32_t s = 0; s < plan_.stages.size() && ledger_.count() == 0; ++s)
    if (decisions_.stage_is_empty(StageId(s)) && !decisions_.is_absent(StageId(s))) return;
  if (ledger_.all_prepared(decisions_.live.size(), decisions_.epoch)) {
    if (const auto wrong = dissenter())
      expel(*wrong, "its sum of the step differs from its siblings'");
    else if (preparing_ || !waits_for_joiner(now))  // stages of one replica are prepared without being asked
      commit();
  } else if (!preparing_ && !waits_for_joiner(now)) {
    // Not logged: after a restart the same Reports lead here again.
    preparing_ = true;
    send_views();
  }
}

// Replicas of a stage must have prepared the same sum. Of those that did not, whoever is in the minority; of two, the
// later one.
std::optional<Member> Coordinator::dissenter() const {
  std::map<StageId, std::map<std::string, std::uint32_t>> votes;
  for (const auto& member : decisions_.live) ++votes[member.stage][ledger_.entries().at(member.session).sum_digest];
  for (const auto& member : decisions_.live) {
    const auto& of_stage = votes[member.stage];
    if (of_stage.size() < 2) continue;
    const auto most = std::ranges::max_element(of_stage, {}, [](const auto& v) { return v.second; });
    for (const auto& sibling : decisions_.members(member.stage))
      if (ledger_.entries().at(sibling.session).sum_digest != most->first) return sibling;
  }
  return std::nullopt;
}

// Squared norms of the stage's gradient, per unit. All replicas have prepared the same sum, unless they step on their own.
std::vector<UnitNorm> Coordinator::norms_of(StageId stage) const {
  const auto members = decisions_.members(stage);
  const auto entry = [&](const Member& member) -> const Ledger::Entry& { return ledger_.entries().at(member.session); };
  const double weight = paths_.weight(stage);
  std::vector<UnitNorm> norms = entry(members.front()).norms;
  if (plan_.stages[stage.value].local) {
    std::vector<OwnNorms> own;
    for (const auto& member : members) own.push_back({entry(member).done.size_below(plan_.training_count(decisions_.step)), entry(member).norms});
    norms = mean_norms(own);
  }
  for (auto& unit : norms) unit.norm2 *= weight * weight;
  return norms;
}

void Coordinator::commit() {
  StepOutcome outcome;
  bool finite = true;
  std::vector<UnitNorm> norms;
  std::map<MicrobatchId, MicrobatchLoss> losses;
  std::optional<StageId> counted;
  CommitRecord record;
  // Members are in stage order and units in layer order.
  for (const auto& member : decisions_.live) {
    const auto& entry = ledger_.entries().at(member.session);
    finite = finite && entry.finite;
    if (counted != member.stage) std::ranges::move(norms_of(member.stage), std::back_inserter(norms));
    counted = member.stage;
    losses.insert(entry.losses.begin(), entry.losses.end());
    const WorkerStats& stats = outcome.stats[member.peer] = reports_[member.peer].stats;
    if (member.stage == StageId(0) && stats.service_us > 0)
      record.head_share[member.session] = static_cast<std::uint32_t>(std::max(1.0, 1e9 / static_cast<double>(stats.service_us)));
  }
  const StepResult result = step_result(plan_, decisions_.step, options_.clip, norms, finite, losses, guard_, decisions_.absent);
  outcome.figures = result.figures;
  outcome.figures.replayed = std::exchange(replayed_, 0);
  outcome.commit.step = decisions_.step;
  outcome.commit.attempt = decisions_.attempt;
  outcome.commit.epoch = decisions_.epoch;
  outcome.commit.apply = result.apply;
  outcome.commit.scale = result.scale;
  outcome.commit.absent = decisions_.absent;
  record.absent = still_absent();

  const StepId step = decisions_.step;
  if (committed_ != Time{}) step_time_ = step_time_ == Duration{} ? last_turn_ - committed_ : (3 * step_time_ + last_turn_ - committed_) / 4;
  committed_ = last_turn_;
  record.commit = outcome.commit;
  record.figures = outcome.figures;
  record.reason = result.reason;
  append(std::move(record));
  if (step == plan_.final_step()) {
    phase_ = Phase::kFinished;
    ends_at_ = last_turn_ + options_.leave;
  }
  make_move();
  send_views();
  effects_.push_back(StepCommitted{outcome});
  effects_.push_back(Happened{"committed", step, kCoordinator,
                              result.reason.empty() ? "" : "skipped on every stage: " + result.reason});
  consider_bad_steps();
  if (phase_ == Phase::kFinished) happened("finished", kCoordinator, "");
  admit_candidates(last_turn_);
}

// The newest version that every stage has on its disk of weights older than those that the bad steps found; 0: none. A run
// goes back to a version once: whatever spoilt its weights did so again.
std::uint64_t Coordinator::last_good_version() const {
  const std::uint64_t every = std::max<std::uint64_t>(plan_.checkpoint_every, 1);
  const auto is_kept = [&](std::uint64_t version) {
    return std::ranges::all_of(decisions_.checkpointed, [&](auto newest) { return newest < version + options_.checkpoints_kept * every; });
  };
  for (const std::uint64_t version : {decisions_.checkpointed_by_all(), decisions_.checkpointed_before})
    if (version > guard_.gone_back_to() && version < guard_.trained().value && is_kept(version)) return version;
  return 0;
}

// Where nothing helps but other weights, skipping does not. With none to go back to, the guard takes the bad steps for what is
// usual now; one that is bad even so is not finite, and the run is over.
void Coordinator::consider_bad_steps() {
  if (phase_ != Phase::kRunning || !guard_.out_of_patience()) return;
  const std::string what = fmt::format("{} steps in a row were bad", guard_.streak());
  if (const std::uint64_t version = last_good_version()) {
    const StepRange left_out = guard_.suspects(version);
    roll_back({version, fmt::format("{}; the data of steps {} to {} is left out", what, left_out.first, left_out.last), left_out}, kCoordinator);
  } else if (guard_.streak() == options_.guard.patience) {
    happened("warning", kCoordinator, what + ", and there is no checkpoint to go back to; the next ones are judged anew");
  } else {
    enter(Phase::kStopping, what + ", and there is no checkpoint to go back to; try a lower train.learning_rate", last_turn_);
  }
}

// --------------------------------------------------------------------------------------------- the end

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

bool Coordinator::has_left(PeerId peer) const {
  const auto report = reports_.find(peer);
  return report != reports_.end() && report->second.left;
}

void Coordinator::end_if_all_left(Time now) {
  if (phase_ == Phase::kRunning || ended_) return;
  const auto is_gone = [&](const Seat& seat) {
    const auto contact = contacts_.find(seat.peer);
    return contact == contacts_.end() || contact->second.lost.has_value();
  };
  // A stage is safe once one replica has left in order; while stopping, one that is gone has nothing more to save.
  bool all_left = true;
  std::vector<bool> safe(plan_.stages.size(), phase_ == Phase::kStopping);
  for (const auto& seat : seats_) {
    // One that was still catching up is not waited for.
    const bool joins = phase_ == Phase::kFinished && is_candidate(seat);
    all_left = all_left && (has_left(seat.peer) || is_gone(seat) || joins);
    if (has_left(seat.peer) && !reports_[seat.peer].weights.empty()) safe[seat.stage.value] = true;
  }
  all_left = all_left && std::ranges::all_of(safe, [](bool s) { return s; });
  if (ends_at_ == kNever) ends_at_ = now + options_.leave;
  if (!all_left && now < ends_at_) return;
  ended_ = true;
  RunEnded end;
  end.finished = phase_ == Phase::kFinished && all_left;
  end.reason = !all_left && reason_.empty() ? "a worker did not report its final weights" : reason_;
  end.version = decisions_.step.value - 1;
  for (const auto& [peer, report] : reports_)
    for (const auto& unit : report.weights) {
      const auto [at, fresh] = end.weights_hash.emplace(unit.unit, unit.hex);
      if (!fresh && at->second != unit.hex) {
        end.finished = false;
        end.reason = fmt::format("replicas of stage {} end with different weights of {}", report.stage, unit.unit);
      }
    }
  effects_.push_back(std::move(end));
  phase_ = Phase::kEnded;
  send_views();
}

std::vector<CoordinatorEffect> Coordinator::tick(Time now) {
  turn(now);
  suspect(now);
  expel_the_gone(now);
  admit_candidates(now);
  consider_moves(now);
  skip_the_empty(now);
  if (phase_ == Phase::kRunning && decisions_.epoch != EpochId(0)) {
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
  if (phase_ == Phase::kRunning)
    for (const auto& member : decisions_.live)
      if (!suspected_.contains(member.session))
        next_tick_ = std::min(next_tick_, std::max(contacts_[member.peer].heard, started_) + options_.suspicion);
  return take();
}

}  // namespace isthmus
