// What whoever watches the run is shown.

#include <fmt/format.h>

#include <algorithm>

#include "scheduler/coordinator/coordinator.h"

namespace isthmus::coordinator {

// What it does now, or why it does nothing, and until when that is so.
void Coordinator::describe(RunStatus::Worker& worker, const protocol::Report* report) const {
  const PeerId peer = worker.peer;
  const Duration silent = liveness_.now() - liveness_.last_heard(peer);
  if (liveness_.was_seen(peer)) worker.heard = silent;
  switch (worker.standing) {
    case Standing::kWaiting:
      worker.does =
          fmt::format("place {} of {}: {}", worker.queued->place, worker.queued->length, worker.queued->reason);
      return;
    case Standing::kAway:
      if (liveness_.is_connected(peer)) {
        worker.does = "loads its stage";
        return;
      }
      worker.does = liveness_.was_seen(peer) ? "is not there" : "was not seen since the coordinator started";
      worker.does += "; its seat is kept for a while";
      worker.until = liveness_.last_heard(peer) + options_.seating.expected_back;
      if (*worker.until > liveness_.now()) return;
      worker.does = "is not there; its seat goes to whoever waits for one";
      worker.until.reset();
      return;
    case Standing::kJoining:
      worker.does = report->fetching.empty() ? "waits for " + report->stats.waiting_for : report->fetching;
      return;
    case Standing::kSuspected:
      worker.does = liveness_.lost_since(peer) ? "its connection is lost; its work goes around it"
                                               : "is silent; its work goes around it";
      if (const protocol::Member* member = decisions_.live_of(peer))
        if (const Time at = liveness_.lost_at(*member); at > liveness_.now()) worker.until = at;
      return;
    case Standing::kLeaving:
      worker.does =
          decisions_.live_of(peer) ? fmt::format("finishes step {}, then leaves", decisions_.step) : "has left";
      return;
    case Standing::kMember:
      break;
  }
  if (!report)
    worker.does = "was not heard of since the coordinator started";
  else if (!report->stats.waiting_for.empty())
    worker.does = "waits for " + report->stats.waiting_for;
  else
    worker.does = report->stats.queued > 0 ? fmt::format("computes; {} queued", report->stats.queued) : "computes";
}

// Why the stage is not served as it should be.
void Coordinator::describe(RunStatus::Stage& stage, StageId id, const RunStatus& status) const {
  const auto at_it = [&](Standing standing) {
    return std::ranges::count_if(status.workers, [&](const RunStatus::Worker& worker) {
      return worker.standing == standing && worker.place && worker.place->stage == id;
    });
  };
  if (stage.members == 0) {
    stage.waits = stage.seated == 0                  ? "nobody has a seat at it"
                  : at_it(Standing::kJoining) > 0    ? "nobody serves it yet; a worker gets its weights"
                  : at_it(Standing::kSuspected) == 0 ? "nobody serves it; whoever has its seat is not there or loads"
                                                     : "nobody serves it";
    if (stage.skipped) stage.waits += "; steps go without it until somebody does";
    stage.until = absence_.skips_at(decisions_, id);
    if (stage.until) stage.waits += "; then steps go without it";
  } else if (stage.members < stage.wished) {
    const auto joins = at_it(Standing::kJoining);
    stage.waits = joins > 0 ? fmt::format("{} join{}", joins, joins == 1 ? "s" : "")
                            : fmt::format("lacks {} of {}", stage.wished - stage.members, stage.wished);
  }
}

RunStatus Coordinator::status(Time now) const {
  RunStatus status;
  status.at = now;
  status.phase = phase_;
  status.reason = reason_;
  status.step = decisions_.step;
  status.attempt = decisions_.attempt;
  status.rollbacks = decisions_.rollbacks.size();
  status.last = verdicts_.last_figures();
  status.validation_loss = verdicts_.last_validation();
  for (std::uint32_t s = 0; s < plan_.stages.size(); ++s)
    status.stages.push_back({plan_.stages[s].replicas,
                             0,
                             static_cast<std::uint32_t>(decisions_.members(StageId(s)).size()),
                             decisions_.is_absent(StageId(s)),
                             {},
                             {}});
  const auto rates = survey_.rates();
  for (const auto& [peer, known] : decisions_.peers) {
    if (known.revoked) continue;
    RunStatus::Worker worker;
    worker.peer = peer;
    worker.name = known.name;
    worker.place = decisions_.place_of(peer);
    worker.queued = queued(peer);
    const protocol::Member* member = decisions_.live_of(peer);
    if (seating_.is_leaving(peer))
      worker.standing = Standing::kLeaving;
    else if (worker.queued)
      worker.standing = Standing::kWaiting;
    else if (member)
      worker.standing = liveness_.suspects(member->session) ? Standing::kSuspected : Standing::kMember;
    else if (const Seat* seat = seating_.find(peer); seat && is_candidate(*seat))
      worker.standing = Standing::kJoining;
    if (worker.place) ++status.stages[worker.place->stage.value].seated;
    if (const auto report = reports_.find(peer); report != reports_.end()) {
      if (report->second.version != protocol::kNoVersion) worker.version = report->second.version;
      worker.stats = report->second.stats;
      worker.device = report->second.device;
    }
    const auto newest = reports_.find(peer);
    describe(worker, newest == reports_.end() ? nullptr : &newest->second);
    if (const auto seen = rates.find(peer); seen != rates.end()) worker.rates = seen->second;
    status.workers.push_back(std::move(worker));
  }
  for (std::uint32_t s = 0; s < plan_.stages.size(); ++s) describe(status.stages[s], StageId(s), status);
  status.links = survey_.measured(now);
  status.measurements = survey_.recorded();
  status.events.assign(recent_.begin(), recent_.end());
  return status;
}

}  // namespace isthmus::coordinator
