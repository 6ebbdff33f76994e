#include "scheduler/coordinator/event_budget.h"

#include <algorithm>
#include <utility>

namespace isthmus::coordinator {

namespace {

constexpr Duration kEventEach = seconds(1);
constexpr Duration kEventBurst = 20 * kEventEach;

}  // namespace

bool EventBudget::takes(PeerId peer, Time now) {
  Account& account = accounts_[peer];
  const Time then = std::max(account.full_at, now) + kEventEach;
  if (then - now > kEventBurst) {
    ++account.left_out;
    return false;
  }
  account.full_at = then;
  return true;
}

std::uint64_t EventBudget::left_out(PeerId peer) { return std::exchange(accounts_[peer].left_out, 0); }

}  // namespace isthmus::coordinator
