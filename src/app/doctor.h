#pragma once

#include <optional>
#include <string>
#include <vector>

#include "app/invite.h"

namespace isthmus::app {

// What there is to say about a machine that is to take part in a run, one line each.
struct Finding {
  enum class Kind { kGood, kNote, kBad };
  Kind kind = Kind::kGood;
  std::string about;   // "disk", "clock", …
  std::string what;    // as it is
  std::string advice;  // what to do; empty: nothing
};

// Looks at this machine, at `home`, and, with an invite, at the way to the run's coordinator, without enrolling: no use
// of the invite is used up. Takes a few seconds where nobody answers.
std::vector<Finding> examine(const std::string& home, const std::optional<Invite>& invite);

}  // namespace isthmus::app
