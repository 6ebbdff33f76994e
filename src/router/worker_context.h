#pragma once

#include <set>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "base/time.h"
#include "protocol/effects.h"
#include "protocol/message.h"
#include "protocol/plan.h"
#include "protocol/step_paths.h"
#include "protocol/view.h"
#include "router/spare_uplink.h"

namespace isthmus::router {

// Who a worker is and what its link is like, as its process begins.
struct WorkerIdentity {
  PeerId peer;
  StageId stage;
  ReplicaId replica;
  protocol::Endpoints endpoints;  // as it begins
  // After this long without the answer a successor owes, ask for it: at least twice the time in which an uplink
  // moves a whole step's boundary traffic, so that slow is not taken for lost.
  Duration ask_after = seconds(2);
  // Its uplink, as the run file says it; what it sends to joiners is paced by it.
  double bytes_per_second = 10e6;
  protocol::DeviceFigures device;
  bool relays = false;  // there are some through which it reaches others
  // What it asks of others to join; 0: as much as they give.
  double fetched_per_second = 0;
};

// What the parts of a worker's state machine share: the newest view, this life's session, and the effects so far.
struct WorkerContext {
  const protocol::Plan plan;
  const WorkerIdentity identity;
  protocol::View view;
  protocol::StepPaths paths;  // of the view's step
  SessionId session;
  std::vector<protocol::WorkerEffect> effects;
  std::set<PeerId> connected;  // whose connection is up (router/connections.h)
  SpareUplink uplink{identity.bytes_per_second};

  const protocol::StagePlan& stage_plan() const { return plan.stages[identity.stage.value]; }
  // The stage's replicas take steps of their own between syncs.
  bool local() const { return stage_plan().local; }
  // The running step's commit is one.
  bool syncs() const { return local() && plan.syncs(view.step); }
  bool is_head() const { return identity.stage == StageId(0); }
  bool is_tail() const { return identity.stage == plan.last_stage(); }
  bool live() const { return view.find(session) != nullptr; }
  bool training(MicrobatchId m) const { return plan.is_training(view.step, m); }
  // Who may get the microbatch next. REQUIRES: not the tail.
  std::vector<const protocol::Member*> next_stage(MicrobatchId m) const {
    return view.replicas_of(paths.next(m, identity.stage));
  }
  // Who may get any microbatch next.
  std::vector<const protocol::Member*> successors() const {
    std::vector<const protocol::Member*> members;
    for (const auto& member : view.live)
      if (member.stage > identity.stage && distance(member.stage) <= plan.reach()) members.push_back(&member);
    return members;
  }
  std::uint32_t distance(StageId stage) const {
    return stage > identity.stage ? stage.value - identity.stage.value : identity.stage.value - stage.value;
  }
  // Microbatches of the step that visit this stage.
  std::uint32_t expected() const { return paths.stages() == 0 ? 0 : paths.count(identity.stage); }
  std::vector<const protocol::Member*> own_stage() const { return view.replicas_of(identity.stage); }
  protocol::Commit for_own_stage(const protocol::Commit& commit) const {
    return protocol::StepPaths(plan, commit.step, commit.absent).for_stage(commit, identity.stage);
  }
  protocol::StepTag tag_to(SessionId to) const { return {session, to, view.epoch, view.step, view.attempt}; }
  protocol::JobTag job_tag() const { return {view.step, view.attempt, session}; }

  // To a live member; nothing if it is none.
  void send_to(SessionId to, protocol::Message message) {
    if (const protocol::Member* member = view.find(to))
      effects.push_back(protocol::SendMessage{member->peer, std::move(message)});
  }
  void run(protocol::WorkerEffect job) { effects.push_back(std::move(job)); }
};

}  // namespace isthmus::router
