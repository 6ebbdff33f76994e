// How a run comes to its end.

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "scheduler/coordinator/coordinator.h"

namespace isthmus::coordinator {

void Coordinator::enter(protocol::Phase phase, const std::string& reason, Time now) {
  if (phase_ != protocol::Phase::kRunning) return;
  phase_ = phase;
  reason_ = reason;
  ends_at_ = now + options_.leave;
  happened(events::Stopping{reason});
  send_views();
}

std::vector<CoordinatorEffect> Coordinator::stop(const std::string& reason, Time now) {
  liveness_.turn(now);
  enter(protocol::Phase::kStopping, reason, now);
  end_if_all_left(now);
  return take();
}

bool Coordinator::has_left(PeerId peer) const {
  const auto report = reports_.find(peer);
  return report != reports_.end() && report->second.left;
}

// Nobody has the final weights once the workers have left, but for their disks, or the vault.
std::string Coordinator::unsaved() const {
  const std::uint64_t last = plan_.final_step().value - 1;
  std::string stages;
  for (std::uint32_t s = 0; s < plan_.stages.size(); ++s) {
    const bool in_vault = options_.vault && decisions_.checkpointed[s] >= last;
    const bool saved = options_.vault ? in_vault : std::ranges::any_of(reports_, [&](const auto& report) {
      return report.second.stage == StageId(s) && report.second.left && report.second.checkpointed >= last;
    });
    if (!saved) stages += fmt::format("{}{}", stages.empty() ? "" : ", ", s);
  }
  return stages;
}

void Coordinator::end_if_all_left(Time now) {
  if (phase_ == protocol::Phase::kRunning || ended_) return;
  // A member that is not heard of since a restart may be on its way back.
  const auto is_gone = [&](const Seat& seat) {
    return !liveness_.is_connected(seat.peer) && (liveness_.was_seen(seat.peer) || !decisions_.live_of(seat.peer));
  };
  // A stage is safe once one replica has left in order; while stopping, one that is gone has nothing more to save.
  bool all_left = true;
  std::vector<bool> safe(plan_.stages.size(), phase_ == protocol::Phase::kStopping);
  for (const auto& seat : seating_.seats()) {
    // One that was still catching up is not waited for.
    const bool joins = phase_ == protocol::Phase::kFinished && is_candidate(seat);
    all_left = all_left && (has_left(seat.peer) || is_gone(seat) || joins);
    if (has_left(seat.peer) && !reports_[seat.peer].weights.empty()) safe[seat.stage.value] = true;
  }
  all_left = all_left && std::ranges::all_of(safe, [](bool s) { return s; });
  if (ends_at_ == kNever) ends_at_ = now + options_.leave;
  if (!all_left && now < ends_at_) return;
  if (all_left && vault_busy_ && phase_ == protocol::Phase::kFinished) return;
  ended_ = true;
  RunEnded end;
  end.finished = phase_ == protocol::Phase::kFinished && all_left;
  end.reason = !all_left && reason_.empty() ? "a worker did not report its final weights" : reason_;
  if (end.finished) {
    end.reason = verdicts_.objection_to_end();
    end.finished = end.reason.empty();
  }
  end.version = decisions_.step.value - 1;
  for (const auto& [peer, report] : reports_)
    for (const auto& unit : report.weights) {
      const auto [at, fresh] = end.weights_hash.emplace(unit.unit, unit.hex);
      if (!fresh && at->second != unit.hex) {
        end.finished = false;
        end.reason = fmt::format("replicas of stage {} end with different weights of {}", report.stage, unit.unit);
      }
    }
  if (end.finished) end.unsaved = unsaved();
  effects_.push_back(std::move(end));
  phase_ = protocol::Phase::kEnded;
  send_views();
}

}  // namespace isthmus::coordinator
