// What whoever watches the run is shown.

#include "scheduler/coordinator/coordinator.h"

namespace isthmus::coordinator {

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
    status.stages.push_back({plan_.stages[s].replicas, 0,
                             static_cast<std::uint32_t>(decisions_.members(StageId(s)).size()),
                             decisions_.is_absent(StageId(s))});
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
    if (const auto seen = rates.find(peer); seen != rates.end()) worker.rates = seen->second;
    status.workers.push_back(std::move(worker));
  }
  status.links = survey_.measured(now);
  status.measurements = survey_.recorded();
  status.events.assign(recent_.begin(), recent_.end());
  return status;
}

}  // namespace isthmus::coordinator
