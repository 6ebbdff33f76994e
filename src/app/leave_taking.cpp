#include "app/leave_taking.h"

#include <spdlog/spdlog.h>

namespace isthmus::app {

namespace {

constexpr int kInterrupted = 130;

}  // namespace

std::optional<int> LeaveTaking::turn(Life life, Time now) {
  const auto leave = [&] {
    begin(life, now);
    return life.steps ? life.steps->stays_for() : std::string("gives its seat back, then leaves");
  };
  const auto wish = course_.desk.look(life.state, leave);
  if (wish == HomeDesk::Wish::kStay) return std::nullopt;
  if (wish == HomeDesk::Wish::kLeaveAtOnce) {
    if (life.steps) life.carry_out(life.steps->leave_at_once(now));
    return kInterrupted;
  }
  begin(life, now);
  if (exit_code_) return exit_code_;
  const std::string stays = life.steps->stays_for();
  if (stays != told_)
    spdlog::info("worker {}: {}{}", self_, stays, told_.empty() ? "; Ctrl-C again to go at once" : "");
  told_ = stays;
  return std::nullopt;
}

// Once. Before its stage is made nobody waits for it: the coordinator's door is told, and it goes.
void LeaveTaking::begin(Life& life, Time now) {
  if (exit_code_) return;
  course_.leaves = true;
  if (!life.steps)
    exit_code_ = course_.enroller.say_good_bye() ? 0 : kInterrupted;
  else if (!life.steps->is_leaving())
    life.carry_out(life.steps->say_good_bye(now));
}

}  // namespace isthmus::app
