#pragma once

#include <string>

#include "scheduler/planner/step_simulation.h"

namespace isthmus::planner {

// "2", or "2.1" of a stage with several replicas.
std::string worker_name(const protocol::Plan& plan, const WorkerSimulation& worker);

// One row per worker: what its device does for most of each slice of the step (F, I, W, · idle). Of a large fleet, the
// busiest replica of each stage.
std::string step_grid(const StepSimulation& simulation, const protocol::Plan& plan);

// "1.50 GB", "20.0 MB", "3.1 kB"
std::string size_text(double bytes);
// Three figures at least, in a unit that shows them.
std::string time_text(double seconds);

}  // namespace isthmus::planner
