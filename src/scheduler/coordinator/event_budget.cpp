#include "scheduler/coordinator/event_budget.h"

#include <utility>

namespace isthmus::coordinator {

namespace {

constexpr RateLimit::Rate kEvents{20, seconds(1)};

}  // namespace

bool EventBudget::takes(PeerId peer, Time now) {
  Account& account = accounts_[peer];
  const bool takes = account.limit.takes(kEvents, now);
  if (!takes) ++account.left_out;
  return takes;
}

std::uint64_t EventBudget::left_out(PeerId peer) { return std::exchange(accounts_[peer].left_out, 0); }

}  // namespace isthmus::coordinator
