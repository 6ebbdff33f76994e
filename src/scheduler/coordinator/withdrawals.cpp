#include "scheduler/coordinator/withdrawals.h"

#include <algorithm>
#include <optional>

namespace isthmus::coordinator {

namespace {

// So much of the uplink's time leaves at once.
constexpr Duration kBurst = std::chrono::milliseconds(20);

// Where the peer is, if it may have this version of its stage.
std::optional<StageId> stage_for(const Decisions& decisions, PeerId peer, std::uint64_t version) {
  const auto place = decisions.place_of(peer);
  if (!place || version == 0 || decisions.checkpointed[place->stage.value] != version) return std::nullopt;
  return decisions.stage_is_empty(place->stage) ? std::optional(place->stage) : std::nullopt;
}

}  // namespace

Withdrawals::Withdrawals(double bytes_per_second) : bytes_per_second_(bytes_per_second) {}

bool Withdrawals::asked(const Decisions& decisions, PeerId from, const protocol::CheckpointRequest& request) {
  if (!stage_for(decisions, from, request.version)) return false;
  auto& waiting = waiting_[from];
  if (std::ranges::find(waiting, request) == waiting.end() && waiting.size() < kWaitingMax) waiting.push_back(request);
  return true;
}

std::vector<Withdrawals::Piece> Withdrawals::next(const Decisions& decisions, std::size_t most, Time now) {
  std::vector<Piece> pieces;
  free_at_ = std::max(free_at_, now);
  while (!waiting_.empty() && pieces.size() < most && free_at_ < now + kBurst) {
    auto next = waiting_.upper_bound(last_);
    if (next == waiting_.end()) next = waiting_.begin();
    last_ = next->first;
    const auto request = next->second.front();
    next->second.pop_front();
    if (next->second.empty()) waiting_.erase(next);
    const auto stage = stage_for(decisions, last_, request.version);
    if (!stage) continue;
    pieces.push_back({last_, *stage, request});
    free_at_ += seconds(static_cast<double>(protocol::kPieceBytes) / bytes_per_second_);
  }
  return pieces;
}

}  // namespace isthmus::coordinator
