#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "app/worker_course.h"
#include "base/time.h"
#include "protocol/view.h"
#include "relay/tunnel.h"
#include "router/worker_steps.h"

namespace isthmus::app {

// What a worker is and does, for whoever asks at its machine (app/home_desk.h): one JSON object. Pure.

// While it has no seat. `waits`: for what, for people; `heard`: when the coordinator answered last; nothing: never.
nlohmann::json waiting_state(const std::string& name, const std::string& waits, std::optional<Time> heard, Time now);

struct LifeTimes {
  Time began{};  // it was given its place
  Time heard{};  // of the coordinator
  Time now{};
};
// While it serves `place` of the run, or is about to. `steps`: nothing while its stage is being made.
nlohmann::json serving_state(const WorkerCourse& course, const std::string& run, protocol::Place place,
                             const std::optional<router::WorkerSteps>& steps, const LifeTimes& times);

// How others reach it, for people. Nothing: it asked no router; it has no relays.
std::string reach_text(const std::optional<std::string>& router, const std::optional<relay::Tunnel::Figures>& relays);

}  // namespace isthmus::app
