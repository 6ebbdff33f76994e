// Microbatches that a head returned because it got slow, or leaves.

#include <algorithm>
#include <utility>

#include "scheduler/coordinator/coordinator.h"

namespace isthmus::coordinator {

// Each goes to the head that would be done with it first, by what it has left and takes for one; that may be the one
// that returned it. A report from before the last deal is about microbatches that may have come back to it since.
void Coordinator::deal_returned(const protocol::Report& report) {
  const auto last = decisions_.dealt_again.find(report.session);
  if (report.returned.size() == 0 || (last != decisions_.dealt_again.end() && report.epoch < last->second)) return;
  struct Head {
    SessionId session;
    bool suspected = false;  // or about to leave
    double left = 0;
    double service = 0;  // 0: not known
  };
  std::vector<Head> heads;
  double fastest = 0;
  for (const auto& member : decisions_.members(StageId(0))) {
    const auto newest = reports_.find(member.peer);
    const bool known = newest != reports_.end() && newest->second.session == member.session;
    heads.push_back({member.session, liveness_.suspects(member.session) || seating_.is_leaving(member.peer), 0,
                     known ? static_cast<double>(newest->second.stats.service_us) : 0.0});
    if (heads.back().service > 0)
      fastest = fastest == 0 ? heads.back().service : std::min(fastest, heads.back().service);
  }
  DealRecord record{report.session, {}};
  const auto& entries = ledger_.entries();
  for (std::uint32_t i = 0; i < decisions_.head_owner.size(); ++i) {
    const MicrobatchId m(i);
    const SessionId owner = decisions_.head_owner[i];
    const auto entry = entries.find(owner);
    if (entry != entries.end() && entry->second.done.contains(m)) continue;
    if (owner == report.session && report.returned.contains(m)) {
      record.to.emplace(m, kNoSession);
    } else if (const auto head = std::ranges::find(heads, owner, &Head::session); head != heads.end()) {
      head->left += 1;
    }
  }
  if (record.to.empty() || heads.empty()) return;
  for (auto& [m, to] : record.to) {
    Head& first = *std::ranges::min_element(heads, {}, [&](const Head& head) {
      return std::pair(head.suspected, (head.left + 1) * (head.service > 0 ? head.service : std::max(fastest, 1.0)));
    });
    to = first.session;
    first.left += 1;
  }
  const auto away = std::ranges::count_if(record.to, [&](const auto& deal) { return deal.second != report.session; });
  const std::uint64_t returned = record.to.size();
  const PeerId peer = decisions_.find(report.session)->peer;
  append(std::move(record));
  if (away > 0) happened(events::Dealt{peer, static_cast<std::uint64_t>(away), returned});
  send_views();
}

}  // namespace isthmus::coordinator
