#pragma once

#include <functional>
#include <string>
#include <vector>

#include "app/admin.h"
#include "app/front_desk.h"
#include "app/invite.h"
#include "base/time.h"
#include "protocol/plan.h"
#include "record/run_record.h"
#include "scheduler/coordinator/coordinator.h"
#include "spec/run_config.h"

namespace isthmus::app {

// Answers what the owner asks of a run through OUT/admin: invites, who takes part, how it goes, who is to go. One
// thread; what it is made of outlives it.
class OwnerDesk {
 public:
  struct Run {
    const spec::RunConfig& config;
    const protocol::Plan& plan;
    const record::RunRecord& record;
    coordinator::Coordinator& coordinator;
    FrontDesk& front_desk;
    Invite invite;                          // what every invite says
    std::function<std::string()> progress;  // of the vault, for people; empty: nothing is under way
    // False: the log cannot be written any more.
    std::function<bool(std::vector<coordinator::CoordinatorEffect>)> carry_out;
  };
  explicit OwnerDesk(Run run) : run_(std::move(run)) {}

  // One line there, one back.
  std::string asked(const std::string& line, Time now);

 private:
  std::string answer(const AskInvite& ask, Time now);
  std::string answer(const AskWithdraw& ask, Time now);
  std::string answer(const AskPeers& ask, Time now);
  std::string answer(const AskStatus& ask, Time now);
  std::string answer(const AskRevoke& ask, Time now);
  std::string if_written(bool written, const std::string& key, const std::string& text) const;

  Run run_;
};

}  // namespace isthmus::app
