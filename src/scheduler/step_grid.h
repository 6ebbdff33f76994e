#pragma once

#include <string>

#include "scheduler/step_simulation.h"

namespace isthmus {

// "2", or "2.1" of a stage with several replicas.
std::string worker_name(const Plan& plan, const WorkerSimulation& worker);

// One row per worker: what its device does for most of each slice of the step (F, I, W, · idle). Of a large fleet, the
// busiest replica of each stage.
std::string step_grid(const StepSimulation& simulation, const Plan& plan);

// "1.50 GB", "20.0 MB", "3.1 kB"
std::string size_text(double bytes);

}  // namespace isthmus
