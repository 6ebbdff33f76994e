#include "scheduler/coordinator/join_patience.h"

#include <algorithm>

namespace isthmus::coordinator {

namespace {

constexpr int kPausesMost = 10;  // times the wait

}  // namespace

bool JoinPatience::waits(const std::vector<SessionId>& near, Time now) {
  bool any = false;
  for (const SessionId session : near) {
    Wait& wait = newest_.try_emplace(session, Wait{now + most_, most_}).first->second;
    if (now >= wait.until + wait.pause) wait = {now + most_, std::min(2 * wait.pause, kPausesMost * most_)};
    any = any || now < wait.until;
  }
  return any;
}

}  // namespace isthmus::coordinator
