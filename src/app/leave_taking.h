#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "app/worker_course.h"
#include "base/ids.h"
#include "base/time.h"
#include "protocol/effects.h"
#include "router/worker_steps.h"

namespace isthmus::app {

// How one life of a worker ends because somebody at its machine wants it to (app/home_desk.h): it finishes what it has
// begun, says so, and goes once the coordinator lets it. One thread.
class LeaveTaking {
 public:
  LeaveTaking(WorkerCourse& course, PeerId self) : course_(course), self_(self) {}

  struct Life {
    std::optional<router::WorkerSteps>& steps;  // nothing: its stage is still being made
    std::function<void(std::vector<protocol::WorkerEffect>)> carry_out;
    std::function<nlohmann::json()> state;  // for whoever asks
  };
  // Call every turn. The process's exit code if it is to end now.
  std::optional<int> turn(Life life, Time now);

 private:
  void begin(Life& life, Time now);

  WorkerCourse& course_;
  const PeerId self_;
  std::optional<int> exit_code_;
  std::string told_;  // what it does before it goes
};

}  // namespace isthmus::app
