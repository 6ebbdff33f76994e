#pragma once

#include <optional>

#include "app/worker_course.h"
#include "app/worker_process.h"
#include "protocol/plan.h"
#include "spec/run_config.h"
#include "transport/keys.h"

namespace isthmus::app {

// One life of a worker in one place: where the course says that it was seated or has moved to. Returns the process's
// exit code, or nothing: it goes on at course.moved.
std::optional<int> live(const spec::RunConfig& run, const protocol::Plan& plan, const WorkerOptions& options,
                        const transport::KeyPair& keys, WorkerCourse& course);

}  // namespace isthmus::app
