#include "router/worker_steps.h"

#include <algorithm>
#include <tuple>
#include <utility>

namespace isthmus {

namespace {

constexpr Duration kHeartbeat = std::chrono::milliseconds(250);
constexpr Duration kCoalesce = std::chrono::milliseconds(100);
constexpr Duration kUnreachable = seconds(2);
// The coordinator says when the run is over; one that has died for good does not.
constexpr Duration kGiveUp = seconds(60);
// A neighbour may be a step ahead of our view by all it can have in flight, and not more.
constexpr std::size_t kHeldPerMicrobatch = 4;

template <class Body>
concept OfMicrobatch = requires(const Body& body) { body.microbatch; };

// Which way a message of the step goes: to a later stage, to an earlier one, or between replicas of one.
template <class Body>
constexpr int direction() {
  if constexpr (std::is_same_v<Body, Forward> || std::is_same_v<Body, Ask> || std::is_same_v<Body, Cancel> || std::is_same_v<Body, Probe>)
    return 1;
  else if constexpr (std::is_same_v<Body, Part> || std::is_same_v<Body, Total>)
    return 0;
  else
    return -1;
}

}  // namespace

WorkerSteps::WorkerSteps(const Plan& plan, WorkerIdentity identity, Origin origin, std::uint64_t session_seed)
    : session_source_(session_seed, "session"),
      context_{plan, std::move(identity), {}, {}, kNoSession, {}},
      flow_(context_),
      combination_(context_),
      exchange_(context_),
      donor_(context_),
      fetch_(context_),
      rebuild_(context_),
      probe_(context_),
      version_(origin.version),
      timeline_(origin.timeline),
      checkpointed_(origin.version),
      save_started_(origin.version) {
  new_session();
}

void WorkerSteps::new_session() {
  do context_.session = SessionId(session_source_.bits(sessions_drawn_++));
  while (context_.session == kNoSession);
}

std::vector<WorkerEffect> WorkerSteps::finish(Time now) {
  // Nobody has them until the coordinator hears of it.
  if (!(flow_.returned() == returned_told_)) {
    report_changed_ = true;
    last_report_ = Time{};
  }
  if (report_changed_ && (now - last_report_ >= kCoalesce || last_report_ == Time{})) report(now);
  return std::exchange(context_.effects, {});
}

// ---------------------------------------------------------------------------------------------- views

std::vector<WorkerEffect> WorkerSteps::view_received(const View& view, Time now) {
  if (view.epoch < context_.view.epoch || gone_) return finish(now);
  const Place here{context_.identity.stage, context_.identity.replica};
  if (view.moved && *view.moved != here) {
    gone_ = true;
    context_.run(BeginAt{*view.moved});
    return std::exchange(context_.effects, {});
  }
  if (view.since == EpochId(0))
    adopt(view, now);
  else if (view.since <= context_.view.epoch)
    adopt(completed(view), now);
  else
    report_changed_ = true;  // it leaves out what another life knew; the next one will not
  return finish(now);
}

// With the members that it leaves out. Of those it names this worker may know some already, if its own view is younger
// than the report that was answered.
View WorkerSteps::completed(const View& news) const {
  View view = news;
  const auto is_new = [&](const Member& member) { return news.find(member.session) != nullptr; };
  const auto is_gone = [&](const Member& member) { return std::ranges::find(news.gone, member.session) != news.gone.end(); };
  for (const auto& member : context_.view.live)
    if (!is_new(member) && !is_gone(member)) view.live.push_back(member);
  std::ranges::sort(view.live, {}, [](const Member& m) { return std::tuple(m.stage, m.replica); });
  view.since = {};
  view.gone.clear();
  return view;
}

void WorkerSteps::adopt(const View& view, Time now) {
  const bool was_live = context_.live();
  const bool same_timeline = view.timeline() == timeline_;
  if (same_timeline && view.last_commit && view.last_commit->step.value == version_ + 1 && prepared_ &&
      prepared_epoch_ == view.last_commit->epoch)
    apply_commit(*view.last_commit);
  if (same_timeline && view.step.value <= version_) return;  // older than the weights this worker holds

  const bool epoch_changed = view.epoch != context_.view.epoch;
  const bool step_changed = view.step != context_.view.step || view.attempt != context_.view.attempt;
  const bool members_changed = view.live != context_.view.live || view.joining != context_.view.joining;
  // Whom this worker had nothing to say to may be reachable again without its having heard of it.
  if (view.absent != context_.view.absent)
    for (auto& [peer, since] : cut_since_) since = now;
  // Nobody has tried yet to reach a new life.
  for (auto& [peer, since] : cut_since_)
    for (const auto& member : view.live)
      if (member.peer == peer && !context_.view.find(member.session)) since = now;
  context_.view = view;
  if (step_changed) context_.paths = StepPaths(context_.plan, view.step, view.absent);
  if (members_changed) {
    std::vector<Member> known = view.live;
    known.insert(known.end(), view.joining.begin(), view.joining.end());
    context_.run(KnowMembers{std::move(known)});
  }
  if (step_changed) clear_step(!flow_.empty() || prepared_);
  if (!same_timeline) roll_back(view);
  if (epoch_changed) {
    // Sums of an older view are void; what is in the accumulators is not.
    combination_.reset();
    if (!prepared_alone_) prepared_.reset();
    prepared_epoch_ = preparing_own_ = EpochId(0);
  }
  probe_.view_changed(now);
  trim_journal();
  if (leaving_ && view.phase == Phase::kRunning) {
    leaving_ = left_ = digests_here_ = false;
    weights_.clear();
  }
  const bool expelled = !context_.live() && (was_live || view.last_session == context_.session);
  if (expelled) {
    // Whatever this life added to the step counts for nothing, and it must never be taken for the next.
    clear_step(true);
    new_session();
  }
  if (view.phase != Phase::kRunning) {
    leave_phase(now);
    return;
  }
  if (!context_.live()) {
    catch_up(now);
    if (expelled || epoch_changed) report(now);
    return;
  }
  fetch_.stop();
  rebuild_.stop();
  if (view.step.value != version_ + 1) return;  // its weights are on their way to another version
  flow_.view_changed(epoch_changed, now);
  if (syncing()) exchange_.pursue(version_, now);
  prepare_if_complete(now);
  release_held(now);
  run_next(now);
}

// The run goes on from an older version. Weights above it belong to a past that did not happen.
void WorkerSteps::roll_back(const View& view) {
  const auto missed = view.rollbacks.begin() + std::min<std::ptrdiff_t>(timeline_, std::ssize(view.rollbacks));
  timeline_ = view.timeline();
  donor_.forget();
  exchange_.forget();
  fetch_.stop();
  rebuild_.stop();
  if (missed == view.rollbacks.end()) return;
  const std::uint64_t version = *std::min_element(missed, view.rollbacks.end());
  // A snapshot of that past may be on its way into the weights.
  if (version_ <= version && !fetch_.restoring()) return;
  version_ = std::min(version_, version);
  checkpointed_ = std::min(checkpointed_, version);
  save_started_ = checkpointed_;
  trimmed_ = std::min(trimmed_, version);
  loading_ = true;
  context_.run(RunLoad{version_, timeline_});
}

void WorkerSteps::apply_commit(const Commit& commit) {
  const bool sync = context_.syncs();
  Commit own = context_.for_own_stage(commit);
  if (context_.local()) {
    // What one of them learned from its own share alone is of no use to the others.
    if (sync) donor_.applied(commit, exchange_.outcome());
    own.scale *= own_weight();
    own.apply = own.apply && own_weight() > 0;
  } else if (prepared_->total) {
    donor_.applied(commit, {prepared_->total});
  } else {
    donor_.applied(commit, combination_.totals());
  }
  context_.run(RunApply{own, sync});
  if (sync) exchange_.forget();
  ++version_;
  clear_step(false);
  const Plan& plan = context_.plan;
  // A skipped step leaves the weights of the one before, whose checkpoint would push one of older weights off the disk, which are
  // wanted if too many steps are bad.
  if (commit.apply && plan.checkpoint_every != 0 && version_ % plan.checkpoint_every == 0 && version_ <= plan.steps) save(version_);
}

// A replica that steps on its own counts its microbatches as if they were all of the stage's; 0: it had none.
double WorkerSteps::own_weight() const {
  const std::uint32_t own = flow_.done().size_below(context_.plan.training_count(context_.view.step));
  return own == 0 ? 0 : static_cast<double>(context_.paths.training_count(context_.identity.stage)) / own;
}

void WorkerSteps::save(std::uint64_t version) {
  if (version <= save_started_) return;
  save_started_ = version;
  context_.run(RunSave{version, timeline_});
  ++saves_;
}

void WorkerSteps::clear_step(bool drop_accumulator) {
  if (drop_accumulator) context_.run(RunDropStep{});
  flow_.clear();
  combination_.reset();
  prepared_.reset();
  prepared_alone_ = preparing_alone_ = false;
  prepared_epoch_ = preparing_own_ = EpochId(0);
  report_changed_ = true;
}

void WorkerSteps::leave() {
  if (std::exchange(gone_, true)) return;
  context_.run(Leave{context_.view.reason});
}

void WorkerSteps::leave_phase(Time now) {
  if (context_.view.phase == Phase::kEnded) return leave();
  const bool behind = version_ + 1 != context_.view.step.value || loading_ || fetch_.restoring();
  if (behind && context_.view.phase == Phase::kFinished && !leaving_) {
    // The stage's final weights may be nowhere else.
    catch_up(now);
    return;
  }
  if (!leaving_) {
    leaving_ = true;
    clear_step(true);
    fetch_.stop();
    rebuild_.stop();
    const std::uint64_t trained = std::min(version_, context_.plan.final_step().value - 1);
    if (fault_.empty() && !behind) save(trained);
    if (context_.view.phase == Phase::kFinished && !behind) context_.run(RunDigests{});
    digests_here_ = behind;
  }
  const bool left_before = left_;
  left_ = saves_ == 0 && (context_.view.phase == Phase::kStopping || digests_here_);
  if (left_ && !left_before) report(now);
}

// Not a member: gets the weights of the last commit, to be admitted.
void WorkerSteps::catch_up(Time now) {
  if (loading_ || context_.view.step == StepId(0)) return;
  const std::uint64_t current = context_.view.step.value - 1;
  // Where replicas step on their own, only what they agreed on since then is missing.
  if (context_.local() && version_ < current && !fetch_.restoring() && context_.plan.last_sync(version_) == context_.plan.last_sync(current)) {
    version_ = current;
    report_changed_ = true;
  }
  if (version_ + 1 >= context_.view.step.value) {
    fetch_.stop();
    rebuild_.stop();
    return;
  }
  if (!context_.own_stage().empty()) {
    rebuild_.stop();
    fetch_.pursue(version_, now);
  } else if (!fetch_.restoring()) {
    fetch_.stop();
    rebuild_.pursue(version_, now);
  }
  report_changed_ = true;
}

// The neighbours' checkpoints say what they could still ask for.
void WorkerSteps::trim_journal() {
  std::uint64_t needed = UINT64_MAX;
  const auto& versions = context_.view.checkpointed;
  const std::size_t s = context_.identity.stage.value;
  for (std::size_t distance = 1; distance <= context_.plan.reach(); ++distance) {
    if (s >= distance && s - distance < versions.size()) needed = std::min(needed, versions[s - distance]);
    if (s + distance < versions.size()) needed = std::min(needed, versions[s + distance]);
  }
  if (needed == UINT64_MAX || needed <= trimmed_) return;
  trimmed_ = needed;
  context_.run(RunTrim{needed});
}

// The only live replica of a stage needs nobody to combine with, so its sum is the stage's as soon as its own done
// set is full; waiting for the coordinator to say so would cost a round trip a step.
void WorkerSteps::prepare_if_complete(Time now) {
  if (!context_.live()) return;
  if (context_.local()) return prepare_own();
  const View& view = context_.view;
  if (context_.own_stage().size() == 1) {
    if (!share_is_done() || preparing_alone_) return;
    if (!prepared_) {
      preparing_alone_ = true;
      context_.run(RunPrepare{context_.job_tag(), EpochId(0), {}, true, donor_.is_followed(now)});
    } else if (prepared_epoch_ != view.epoch) {
      prepared_epoch_ = view.epoch;
      last_report_ = Time{};  // at once: everybody waits for it
      report_changed_ = true;
    }
    return;
  }
  if (prepared_alone_) {
    // It has company now: what it closed alone is only its own part.
    prepared_.reset();
    prepared_alone_ = false;
  }
  if (!view.preparing || combination_.started()) return;
  if (agrees_on_its_share())
    combination_.start(now);
  else
    report_changed_ = true;
}

bool WorkerSteps::agrees_on_its_share() const {
  const auto& owners = context_.view.owners;
  const auto mine = owners.find(context_.session);
  return mine == owners.end() ? flow_.done().size() == 0 : mine->second == flow_.done();
}

// A replica that steps on its own closes its own sum, and at a sync has what all of them agreed on.
void WorkerSteps::prepare_own() {
  const View& view = context_.view;
  if (!view.preparing || preparing_own_ == view.epoch) return;
  if (!agrees_on_its_share()) {
    report_changed_ = true;
    return;
  }
  if (context_.syncs() && !exchange_.complete()) return;
  preparing_own_ = view.epoch;
  context_.run(RunPrepare{context_.job_tag(), view.epoch, {}, true, false, context_.syncs()});
}

void WorkerSteps::release_held(Time now) {
  auto waiting = std::exchange(held_, {});
  for (auto& held : waiting) dispatch(held.from, held.message, now);
}

// ------------------------------------------------------------------------------------------- messages

std::vector<WorkerEffect> WorkerSteps::message_received(PeerId from, Message message, Time now) {
  flow_.peer_heard(from);
  cut_since_.erase(from);
  dispatch(from, message, now);
  run_next(now);
  return finish(now);
}

WorkerSteps::Fence WorkerSteps::fence(PeerId from, const StepTag& tag) const {
  const View& view = context_.view;
  if (tag.to != context_.session) return Fence::kRefuse;   // for another life of this worker
  if (tag.epoch > view.epoch) return Fence::kHold;         // a newer view has to explain it
  // Its step is over, or belongs to a past that did not happen: epochs order the steps, numbers alone do not.
  if (tag.step != view.step || tag.attempt != view.attempt) return Fence::kRefuse;
  if (!context_.live() || view.step.value != version_ + 1) return Fence::kRefuse;
  const Member* sender = view.find(tag.from);
  if (!sender || sender->peer != from) return Fence::kRefuse;  // no member, or another's session
  return Fence::kPass;
}

// Whether the microbatch comes from (way 1), or comes back from (way -1), that stage to this one.
bool WorkerSteps::is_neighbour(MicrobatchId m, StageId sender, int way) const {
  const StageId own = context_.identity.stage;
  const StepPaths& paths = context_.paths;
  if (m.value >= context_.plan.count(context_.view.step) || !paths.visits(m, own)) return false;
  if (way > 0) return !context_.is_head() && paths.previous(m, own) == sender;
  return !context_.is_tail() && paths.next(m, own) == sender;
}

template <class Body>
void WorkerSteps::dispatch_tagged(PeerId from, const Body& body, Time now) {
  switch (fence(from, body.tag)) {
    case Fence::kRefuse:
      return refuse();
    case Fence::kHold: {
      const std::size_t room = kHeldPerMicrobatch * (context_.plan.microbatches + context_.plan.evaluation_microbatches + 1);
      if (held_.size() >= room) return refuse();  // the sender will ask again
      held_.push_back({from, body});
      return;
    }
    case Fence::kPass:
      break;
  }
  const StageId sender = context_.view.find(body.tag.from)->stage;
  if constexpr (OfMicrobatch<Body>) {
    if (!is_neighbour(body.microbatch, sender, direction<Body>())) return refuse();
  } else {
    const int way = sender < context_.identity.stage ? 1 : sender > context_.identity.stage ? -1 : 0;
    if (way != direction<Body>()) return refuse();
  }
  if constexpr (direction<Body>() == 0) {
    if (body.tag.epoch != context_.view.epoch) return refuse();  // a sum of another combination
    combination_.received(body, now);
  } else {
    flow_.received(body, now);
  }
}

void WorkerSteps::dispatch(PeerId from, const Message& message, Time now) {
  std::visit(
      [&](const auto& body) {
        using Body = std::decay_t<decltype(body)>;
        if constexpr (std::is_same_v<Body, View> || std::is_same_v<Body, Report>) {
          refuse();  // not between workers
        } else if constexpr (std::is_same_v<Body, Fetch>) {
          if (body.piece.kind >= PieceKind::kOwnUpdate) {
            if (!context_.local() || !exchange_.received(body, from, version_, now)) refuse();
          } else if (!loading_) {
            donor_.received(body, from, version_, now);
          }
        } else if constexpr (std::is_same_v<Body, Chunk>) {
          if (body.piece.kind >= PieceKind::kOwnUpdate) {
            if (body.to != context_.session || body.timeline != timeline_ || !context_.live() || !exchange_.received(body, from, now)) return refuse();
            return prepare_if_complete(now);
          }
          if (body.to != context_.session || body.timeline != timeline_ || context_.live()) return refuse();
          const std::uint64_t before = version_;
          const bool asked = fetch_.received(body, from, version_, now) || rebuild_.received(body, from, version_, now);
          if (!asked) return refuse();
          if (version_ != before) catch_up(now);
          report_changed_ = true;
        } else if constexpr (std::is_same_v<Body, Absent>) {
          if (body.to != context_.session || body.timeline != timeline_) return refuse();
          fetch_.received(body, from, now);
          rebuild_.received(body, from);
          if (!context_.live() && !leaving_) catch_up(now);
        } else if constexpr (std::is_same_v<Body, Sounding> || std::is_same_v<Body, Echo>) {
          if (!probe_.received(body, from, now)) refuse();
        } else {
          dispatch_tagged(from, body, now);
        }
      },
      message);
}

// ------------------------------------------------------------------------------------------ the device

void WorkerSteps::run_next(Time now) {
  if (running_ || leaving_ || loading_ || !context_.live() || context_.view.step.value != version_ + 1) return;
  auto run = flow_.next(now);
  if (!run) return;
  running_ = Running{run->tag, run->task};
  context_.run(std::move(*run));
}

std::vector<WorkerEffect> WorkerSteps::job_done(JobResult result, Time now) {
  if (const auto* operation = std::get_if<OperationDone>(&result)) {
    if (running_ == Running{operation->tag, operation->task}) running_.reset();
    operation_done(*operation, now);
  } else if (const auto* closed = std::get_if<CloseDone>(&result)) {
    combination_.closed(*closed, now);
  } else if (const auto* added = std::get_if<AddDone>(&result)) {
    combination_.added(*added);
  } else if (auto* updated = std::get_if<UpdateDone>(&result)) {
    exchange_.updated(std::move(*updated), now);
  } else if (auto* agreed = std::get_if<AgreeDone>(&result)) {
    exchange_.agreed(std::move(*agreed), now);
    prepare_if_complete(now);
  } else if (auto* prepared = std::get_if<PrepareDone>(&result)) {
    // Epoch 0: closed alone; the sum is good in any epoch in which the replica is still the only one.
    const bool alone = prepared->epoch == EpochId(0);
    const bool current = prepared->tag == context_.job_tag() && context_.live();
    if (current && alone) preparing_alone_ = false;
    if (current && alone && share_is_done() && context_.own_stage().size() == 1) {
      prepared_ = std::move(*prepared);
      prepared_alone_ = true;
      prepare_if_complete(now);
    } else if (current && !alone && prepared->epoch == context_.view.epoch) {
      prepared_ = std::move(*prepared);
      prepared_epoch_ = prepared_->epoch;
      last_report_ = Time{};
      report_changed_ = true;
    } else {
      prepare_if_complete(now);
    }
  } else if (const auto* save = std::get_if<SaveDone>(&result)) {
    --saves_;
    if (!save->error.empty())
      warning_ = save->error;  // training goes on while the replicas hold the weights
    else if (save->timeline == timeline_)  // else the run went back while it was written
      checkpointed_ = std::max(checkpointed_, save->version);
    report_changed_ = true;
    last_report_ = Time{};
  } else if (auto* warned = std::get_if<Warned>(&result)) {
    warning_ = std::move(warned->text);
    report_changed_ = true;
  } else if (auto* digests = std::get_if<DigestsDone>(&result)) {
    weights_ = std::move(digests->weights);
    digests_here_ = true;
  } else if (const auto* loaded = std::get_if<LoadDone>(&result)) {
    if (fetch_.restoring()) {
      fetch_.restored(loaded->error.empty());
      if (loaded->error.empty() && !loading_) version_ = loaded->version;
    } else {
      loading_ = false;
      if (loaded->error.empty()) {
        version_ = loaded->version;
        // What could not be loaded is not there, whatever was thought.
        checkpointed_ = save_started_ = std::min(checkpointed_, version_);
      } else {
        fault_ = loaded->error;
      }
    }
    report(now);
  } else if (const auto* snapshot = std::get_if<SnapshotDone>(&result)) {
    donor_.snapshot_done(*snapshot, now);
  } else if (const auto* recalled = std::get_if<RecallDone>(&result)) {
    donor_.recalled(*recalled);
  }
  if (context_.view.phase != Phase::kRunning)
    leave_phase(now);
  else if (!context_.live())
    catch_up(now);
  run_next(now);
  return finish(now);
}

void WorkerSteps::operation_done(const OperationDone& done, Time now) {
  const bool repeated = rebuild_.operation_done(done);
  if (!repeated && (done.tag != context_.job_tag() || leaving_ || !context_.live())) return;
  if (!done.error.empty()) {
    fault_ = done.error;
    report(now);
    return;
  }
  if (repeated) return;
  const auto before = flow_.done().size();
  flow_.operation_done(done, now);
  if (flow_.done().size() == before) return;
  report_changed_ = true;
  // Its share is done, for all it knows: siblings may be waiting for it.
  const bool idle = flow_.schedule().queued() == 0 && flow_.schedule().in_flight() == 0;
  if (idle && context_.own_stage().size() > 1) last_report_ = std::min(last_report_, now - kCoalesce);
  prepare_if_complete(now);
}

// ---------------------------------------------------------------------------------------------- timers

std::vector<WorkerEffect> WorkerSteps::peer_connected(PeerId peer, Time now) {
  cut_since_.erase(peer);
  if (peer == kCoordinator) coordinator_lost_ = kNever;
  flow_.peer_connected(peer, now);
  if (combination_.started()) combination_.resend(now);
  ask_again(peer, now);
  if (peer == kCoordinator) report(now);
  return finish(now);
}

// Whoever catches up does not wait until a request that went nowhere is taken for unanswered.
void WorkerSteps::ask_again(PeerId peer, Time now) {
  fetch_.forget_asked(peer);
  rebuild_.forget_asked(peer);
  exchange_.forget_asked(peer);
  if (syncing()) exchange_.pursue(version_, now);
  if (!context_.live() && !leaving_) catch_up(now);
}

std::vector<WorkerEffect> WorkerSteps::peer_lost(PeerId peer, Time now) {
  if (peer == kCoordinator) {
    if (coordinator_lost_ == kNever) coordinator_lost_ = now;
    return finish(now);
  }
  cut_since_.try_emplace(peer, now);
  flow_.peer_lost(peer);
  ask_again(peer, now);
  return finish(now);
}

std::vector<WorkerEffect> WorkerSteps::tick(Time now) {
  flow_.tick(now);
  if (combination_.resend_due() <= now) combination_.resend(now);
  if (syncing() && exchange_.next_due() <= now) exchange_.pursue(version_, now);
  donor_.tick(now);
  probe_.tick(now);
  if (context_.view.phase != Phase::kRunning)
    leave_phase(now);
  else if (!context_.live())
    catch_up(now);
  if (left_ && coordinator_lost_ != kNever && now - coordinator_lost_ >= kGiveUp) leave();
  if (now - last_report_ >= kHeartbeat) report(now);
  run_next(now);
  return finish(now);
}

Time WorkerSteps::next_due() const {
  const Time due = last_report_ + (report_changed_ ? kCoalesce : kHeartbeat);
  return std::min({due, flow_.next_due(), combination_.resend_due(), syncing() ? exchange_.next_due() : kNever, donor_.next_due(),
                   probe_.next_due()});
}

void WorkerSteps::report(Time now) {
  if (gone_) return;
  Report report;
  report.session = context_.session;
  report.stage = context_.identity.stage;
  report.replica = context_.identity.replica;
  report.endpoints = context_.identity.endpoints;
  report.version = loading_ || fetch_.restoring() ? kNoVersion : version_;
  report.step = context_.view.step;
  report.attempt = context_.view.attempt;
  report.epoch = context_.view.epoch;
  report.done = flow_.done();
  report.returned = returned_told_ = flow_.returned();
  if (prepared_ && prepared_epoch_ != EpochId(0)) {
    report.prepared_epoch = prepared_epoch_;
    report.norms = prepared_->norms;
    report.finite = prepared_->finite;
    report.sum_digest = prepared_->sum_digest;
  }
  for (const auto& [m, loss] : flow_.losses()) report.losses.push_back(loss);
  report.checkpointed = checkpointed_;
  report.weights = weights_;
  report.left = left_;
  report.fault = fault_;
  report.warning = warning_;
  report.fetching = context_.live() ? "" : fetch_.news();
  report.unrecoverable = context_.live() ? "" : rebuild_.impossible();
  report.timeline = timeline_;
  for (const auto& [peer, since] : cut_since_)
    if (now - since >= kUnreachable)
      for (const auto& member : context_.view.live)
        if (member.peer == peer && (member.stage == context_.identity.stage || context_.paths.meet(member.stage, context_.identity.stage)))
          report.unreachable.push_back(member.session);
  if (context_.live())
    for (const SessionId session : exchange_.stalled(now)) report.unreachable.push_back(session);
  report.offences = exchange_.offences();
  report.stats = stats_;
  report.stats.service_us = flow_.load(now).service_us;
  report.stats.queued = flow_.schedule().queued();
  report.stats.waiting_for = waiting_for();
  report.device = context_.identity.device;
  report.link = probe_.figures();
  context_.run(SendMessage{kCoordinator, std::move(report)});
  last_report_ = now;
  report_changed_ = false;
}

std::string WorkerSteps::waiting_for() const {
  if (running_ || preparing_alone_ || saves_ > 0) return "";
  if (leaving_) return "the others to leave";
  if (loading_) return "its checkpoint";
  if (!context_.live()) {
    if (version_ + 1 >= context_.view.step.value) return "admission";
    return context_.own_stage().empty() ? rebuild_.progress() : fetch_.progress();
  }
  const auto& schedule = flow_.schedule();
  if (combination_.started()) return "its siblings' gradients";
  if (context_.syncs() && context_.view.preparing && !exchange_.complete()) return exchange_.waiting_for();
  if (share_is_done()) return "the commit";
  if (schedule.waits_for_credit()) return "a credit: gradients of what is in flight";
  if (schedule.in_flight() > 0) return fmt::format("gradients from stage {}", context_.identity.stage.value + 1);
  if (context_.is_head()) return "its share of the step";
  return fmt::format("activations from stage {}", context_.identity.stage.value - 1);
}

}  // namespace isthmus
