#include "router/worker_steps.h"

#include <algorithm>
#include <utility>

#include "router/complete_view.h"
#include "router/fences.h"

namespace isthmus::router {

namespace {

constexpr Duration kHeartbeat = std::chrono::milliseconds(250);
// The coordinator says when the run is over; one that has died for good does not.
constexpr Duration kGiveUp = seconds(60);
// A vault that could not give a checkpoint may be able to later.
constexpr Duration kAskVaultAgain = seconds(60);
// A neighbour may be a step ahead of our view by all it can have in flight, and not more.
constexpr std::size_t kHeldPerMicrobatch = 4;

}  // namespace

WorkerSteps::WorkerSteps(const protocol::Plan& plan, WorkerIdentity identity, Origin origin, std::uint64_t session_seed)
    : session_source_(session_seed, "session"),
      context_{plan, std::move(identity), {}, {}, kNoSession, {}},
      connections_(context_),
      tokens_(context_),
      flow_(context_, tokens_),
      combination_(context_),
      exchange_(context_),
      donor_(context_),
      preparation_(context_, flow_, combination_, exchange_, donor_),
      fetch_(context_),
      rebuild_(context_, tokens_),
      probe_(context_, connections_),
      endpoints_(context_.identity.endpoints),
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

// ---------------------------------------------------------------------------------------------- views

std::vector<protocol::WorkerEffect> WorkerSteps::view_received(const protocol::View& view, Time now) {
  if (is_leaving() && view.released) {
    be_released(view, now);
    return finish(now);
  }
  if (view.epoch < context_.view.epoch || life_ >= Life::kReleased || view.released) return finish(now);
  const protocol::Place here{context_.identity.stage, context_.identity.replica};
  if (view.moved && *view.moved != here && is_leaving()) return finish(now);  // it will be released instead
  if (view.moved && *view.moved != here) {
    life_ = Life::kGone;
    context_.run(protocol::BeginAt{*view.moved});
    return std::exchange(context_.effects, {});
  }
  if (view.since == EpochId(0))
    adopt(view, now);
  else if (view.since <= context_.view.epoch)
    adopt(completed(view, context_.view), now);
  else
    report_changed_ = true;  // it leaves out what another life knew; the next one will not
  return finish(now);
}

void WorkerSteps::adopt(const protocol::View& view, Time now) {
  const bool was_live = context_.live();
  const bool same_timeline = view.timeline() == timeline_;
  if (same_timeline && view.last_commit && view.last_commit->step.value == version_ + 1 &&
      preparation_.ready_in(view.last_commit->epoch))
    apply_commit(*view.last_commit, now);
  if (same_timeline && view.step.value <= version_) return;  // older than the weights this worker holds

  const bool epoch_changed = view.epoch != context_.view.epoch;
  const bool step_changed = view.step != context_.view.step || view.attempt != context_.view.attempt;
  connections_.view_comes(view, now);
  context_.view = view;
  if (step_changed) context_.paths = protocol::StepPaths(context_.plan, view.step, view.absent);
  if (step_changed) clear_step(!flow_.empty() || preparation_.begun());
  if (!same_timeline) roll_back(view);
  if (epoch_changed) {
    combination_.reset();
    preparation_.epoch_changed();
  }
  probe_.view_changed(now);
  trim_journal();
  if (life_ != Life::kServing && view.phase == protocol::Phase::kRunning) {
    life_ = Life::kServing;
    digests_here_ = false;
    weights_.clear();
  }
  const bool expelled = !context_.live() && (was_live || view.last_session == context_.session);
  if (expelled) {
    // Whatever this life added to the step counts for nothing, and it must never be taken for the next.
    clear_step(true);
    new_session();
  }
  if (view.phase != protocol::Phase::kRunning) {
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
  tell(preparation_.pursue(now));
  release_held(now);
  run_next(now);
}

// The run goes on from an older version. Weights above it belong to a past that did not happen.
void WorkerSteps::roll_back(const protocol::View& view) {
  const auto missed = view.rollbacks.begin() + std::min<std::ptrdiff_t>(timeline_, std::ssize(view.rollbacks));
  timeline_ = view.timeline();
  donor_.forget();
  exchange_.forget();
  fetch_.stop();
  rebuild_.stop();
  if (missed == view.rollbacks.end()) return;
  const std::uint64_t version = *std::min_element(missed, view.rollbacks.end());
  // A snapshot or a checkpoint of that past may be on its way into the weights.
  if (version_ <= version && !fetch_.restoring() && loading_ == 0) return;
  // What is on its way from the vault is not newer: it still is what the stage begins again with.
  if (version_ <= version && !fetch_.restoring() && loading_ == 1 && asked_vault_ != 0 && asked_vault_ <= version)
    return;
  asked_vault_ = 0;
  version_ = std::min(version_, version);
  checkpointed_ = std::min(checkpointed_, version);
  save_started_ = checkpointed_;
  trimmed_ = std::min(trimmed_, version);
  ++loading_;
  context_.run(protocol::RunLoad{version_, timeline_});
}

void WorkerSteps::apply_commit(const protocol::Commit& commit, Time now) {
  const bool sync = context_.syncs();
  const protocol::StepPaths paths(context_.plan, commit.step, commit.absent);
  protocol::Commit own = paths.for_stage(commit, context_.identity.stage);
  if (context_.local()) {
    // What one of them learned from its own share alone is of no use to the others.
    if (sync) donor_.applied(commit, exchange_.outcome());
    own = paths.for_replica(commit, context_.identity.stage,
                            flow_.done().size_below(context_.plan.training_count(commit.step)));
  } else if (preparation_.sum().total) {
    donor_.applied(commit, {preparation_.sum().total});
  } else {
    donor_.applied(commit, combination_.totals());
  }
  context_.run(protocol::RunApply{own, sync});
  if (sync) exchange_.forget();
  ++given_.steps;
  given_.microbatches += flow_.done().size();
  if (applied_ != Time{}) step_takes_ = now - applied_;
  applied_ = now;
  ++version_;
  clear_step(false);
  const protocol::Plan& plan = context_.plan;
  // A skipped step leaves the weights of the one before, whose checkpoint would push one of older weights off the disk,
  // which are wanted if too many steps are bad.
  if (commit.apply && plan.checkpoint_every != 0 && version_ % plan.checkpoint_every == 0 && version_ <= plan.steps)
    save(version_);
}

void WorkerSteps::save(std::uint64_t version) {
  if (version <= save_started_) return;
  save_started_ = version;
  context_.run(protocol::RunSave{version, timeline_, context_.view.whole});
  ++saves_;
}

void WorkerSteps::clear_step(bool drop_accumulator) {
  if (drop_accumulator) context_.run(protocol::RunDropStep{});
  flow_.clear();
  combination_.reset();
  preparation_.clear();
  report_changed_ = true;
}

void WorkerSteps::leave() {
  if (std::exchange(life_, Life::kGone) == Life::kGone) return;
  context_.run(protocol::Leave{context_.view.reason});
}

void WorkerSteps::leave_phase(Time now) {
  if (context_.view.phase == protocol::Phase::kEnded) return leave();
  const bool behind = version_ + 1 != context_.view.step.value || loading_ > 0 || fetch_.restoring();
  if (behind && context_.view.phase == protocol::Phase::kFinished && life_ == Life::kServing) {
    // The stage's final weights may be nowhere else.
    catch_up(now);
    return;
  }
  if (life_ == Life::kServing) {
    life_ = Life::kLeaving;
    clear_step(true);
    tokens_.clear();
    fetch_.stop();
    rebuild_.stop();
    const std::uint64_t trained = std::min(version_, context_.plan.final_step().value - 1);
    if (fault_.empty() && !behind) save(trained);
    if (context_.view.phase == protocol::Phase::kFinished && !behind) context_.run(protocol::RunDigests{});
    digests_here_ = behind;
  }
  const bool done = saves_ == 0 && (context_.view.phase == protocol::Phase::kStopping || digests_here_);
  if (life_ != Life::kLeaving || !done) return;
  life_ = Life::kLeft;
  report(now);
}

// Not a member: gets the weights of the last commit, to be admitted.
void WorkerSteps::catch_up(Time now) {
  if (loading_ > 0 || context_.view.step == StepId(0)) return;
  if (is_leaving() && context_.view.phase == protocol::Phase::kRunning) {
    // Nobody will admit it.
    fetch_.stop();
    rebuild_.stop();
    return;
  }
  const std::uint64_t current = context_.view.step.value - 1;
  // Where replicas step on their own, only what they agreed on since then is missing.
  if (context_.local() && version_ < current && !fetch_.restoring() &&
      context_.plan.last_sync(version_) == context_.plan.last_sync(current)) {
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
    tokens_.clear();
    asked_vault_ = 0;
    fetch_.pursue(version_, now);
  } else if (!fetch_.restoring()) {
    fetch_.stop();
    // Nobody has it, but the vault has less of it to repeat.
    const std::uint64_t vaulted = context_.view.vaulted;
    const bool again = now - asked_vault_at_ >= kAskVaultAgain && !rebuild_.works();
    if (vaulted > version_ && vaulted <= current && (vaulted != asked_vault_ || again)) {
      rebuild_.stop();
      ++loading_;
      asked_vault_ = vaulted;
      asked_vault_at_ = now;
      context_.run(protocol::RunLoad{vaulted, timeline_});
    } else {
      rebuild_.pursue(version_, now);
    }
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
  context_.run(protocol::RunTrim{needed});
}

void WorkerSteps::tell(News news) {
  if (news == News::kNone) return;
  report_changed_ = true;
  if (news == News::kAtOnce) last_report_ = Time{};
}

void WorkerSteps::release_held(Time now) {
  auto waiting = std::exchange(held_, {});
  for (auto& held : waiting) dispatch(held.from, held.message, now);
}

// ------------------------------------------------------------------------------------------- messages

std::vector<protocol::WorkerEffect> WorkerSteps::message_received(PeerId from, protocol::Message message, Time now) {
  if (life_ >= Life::kReleased) return finish(now);
  flow_.peer_heard(from);
  dispatch(from, message, now);
  run_next(now);
  return finish(now);
}

std::vector<protocol::WorkerEffect> WorkerSteps::tokens_received(const protocol::TokenIds& ids, Time now) {
  if (!tokens_.received(ids))
    refuse();
  else if (context_.live())
    flow_.tokens_arrived();
  else if (life_ == Life::kServing)
    catch_up(now);
  run_next(now);
  return finish(now);
}

template <class Body>
void WorkerSteps::dispatch_tagged(PeerId from, const Body& body, Time now) {
  switch (judge(context_, version_, from, body.tag)) {
    case Fence::kRefuse:
      return refuse();
    case Fence::kHold: {
      const std::size_t room =
          kHeldPerMicrobatch * (context_.plan.microbatches + context_.plan.evaluation_microbatches + 1);
      if (held_.size() >= room) return refuse();  // the sender will ask again
      held_.push_back({from, body});
      return;
    }
    case Fence::kPass:
      break;
  }
  if (!comes_the_right_way(context_, body)) return refuse();
  if constexpr (direction<Body>() == 0) {
    if (body.tag.epoch != context_.view.epoch) return refuse();  // a sum of another combination
    combination_.received(body, now);
  } else {
    flow_.received(body, now);
  }
}

void WorkerSteps::dispatch(PeerId from, const protocol::Message& message, Time now) {
  std::visit(
      [&](const auto& body) {
        using Body = std::decay_t<decltype(body)>;
        if constexpr (std::is_same_v<Body, protocol::View> || std::is_same_v<Body, protocol::Report> ||
                      std::is_same_v<Body, protocol::TokenRequest> || std::is_same_v<Body, protocol::TokenIds> ||
                      std::is_same_v<Body, protocol::CheckpointRequest> ||
                      std::is_same_v<Body, protocol::CheckpointPiece>) {
          refuse();  // not between workers
        } else if constexpr (std::is_same_v<Body, protocol::Fetch>) {
          if (body.piece.kind >= protocol::PieceKind::kOwnUpdate) {
            if (!context_.local() || !exchange_.received(body, from, version_, now)) refuse();
          } else if (loading_ == 0) {
            donor_.received(body, from, version_, now);
          }
        } else if constexpr (std::is_same_v<Body, protocol::Chunk>) {
          if (body.piece.kind >= protocol::PieceKind::kOwnUpdate) {
            if (body.to != context_.session || body.timeline != timeline_ || !context_.live() ||
                !exchange_.received(body, from, now))
              return refuse();
            return tell(preparation_.pursue(now));
          }
          if (body.to != context_.session || body.timeline != timeline_ || context_.live()) return refuse();
          const std::uint64_t before = version_;
          const bool asked = fetch_.received(body, from, version_, now) || rebuild_.received(body, from, version_, now);
          if (!asked) return refuse();
          if (version_ != before) catch_up(now);
          report_changed_ = true;
        } else if constexpr (std::is_same_v<Body, protocol::Absent>) {
          if (body.to != context_.session || body.timeline != timeline_) return refuse();
          fetch_.received(body, from, now);
          rebuild_.received(body, from);
          if (!context_.live() && life_ == Life::kServing) catch_up(now);
        } else if constexpr (std::is_same_v<Body, protocol::Sounding> || std::is_same_v<Body, protocol::Echo>) {
          if (!probe_.received(body, from, now)) refuse();
        } else {
          dispatch_tagged(from, body, now);
        }
      },
      message);
}

// ---------------------------------------------------------------------------------------------- timers

std::vector<protocol::WorkerEffect> WorkerSteps::peer_connected(PeerId peer, Time now) {
  connections_.connected(peer);
  if (peer == kCoordinator) coordinator_lost_ = kNever;
  flow_.peer_connected(peer, now);
  if (combination_.started()) combination_.resend(now);
  ask_again(peer, now);
  if (peer == kCoordinator) tokens_.ask_anew(now);
  if (peer == kCoordinator) report(now);
  return finish(now);
}

// Whoever catches up does not wait until a request that went nowhere is taken for unanswered.
void WorkerSteps::ask_again(PeerId peer, Time now) {
  fetch_.forget_asked(peer);
  rebuild_.forget_asked(peer);
  exchange_.forget_asked(peer);
  if (syncing()) exchange_.pursue(version_, now);
  if (!context_.live() && life_ == Life::kServing) catch_up(now);
}

std::vector<protocol::WorkerEffect> WorkerSteps::peer_lost(PeerId peer, Time now) {
  if (peer == kCoordinator) {
    if (coordinator_lost_ == kNever) coordinator_lost_ = now;
    return finish(now);
  }
  connections_.lost(peer, now);
  flow_.peer_lost(peer);
  ask_again(peer, now);
  return finish(now);
}

std::vector<protocol::WorkerEffect> WorkerSteps::tick(Time now) {
  if (goes_at() <= now) return leave_at_once(now);
  if (life_ >= Life::kReleased) return finish(now);
  flow_.tick(now);
  if (combination_.resend_due() <= now) combination_.resend(now);
  if (syncing() && exchange_.next_due() <= now) exchange_.pursue(version_, now);
  tokens_.tick(now);
  donor_.tick(now);
  probe_.tick(now);
  connections_.tick(now);
  if (context_.view.phase != protocol::Phase::kRunning)
    leave_phase(now);
  else if (!context_.live())
    catch_up(now);
  if (life_ == Life::kLeft && coordinator_lost_ != kNever && now - coordinator_lost_ >= kGiveUp) leave();
  if (now - last_report_ >= kHeartbeat) report(now);
  run_next(now);
  return finish(now);
}

Time WorkerSteps::next_due() const {
  const Time due = last_report_ + (report_changed_ ? kCoalesce : kHeartbeat);
  return std::min({due, goes_at(), flow_.next_due(), combination_.resend_due(),
                   syncing() ? exchange_.next_due() : kNever, tokens_.next_due(), donor_.next_due(), probe_.next_due(),
                   connections_.next_due()});
}

}  // namespace isthmus::router
