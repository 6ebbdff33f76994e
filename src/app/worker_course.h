#pragma once

#include <fmt/format.h>

#include <optional>
#include <string>
#include <utility>

#include "app/enroller.h"
#include "app/enrolment.h"
#include "app/home_desk.h"
#include "app/invite.h"
#include "app/worker_trace.h"
#include "protocol/view.h"
#include "router/worker_steps.h"
#include "transport/port_mapping.h"

namespace isthmus::app {

// What a worker keeps when it moves to another stage.
struct WorkerCourse {
  WorkerCourse(const InviteSource& source, const Identity& identity, const EnrolRequest& request, HomeDesk at_home,
               bool traced)
      : enroller(source, identity, request), desk(std::move(at_home)), trace(traced) {}

  // What the run has of it, for people.
  std::string gave() const {
    return fmt::format("it gave {} step{} and {} microbatch{}", given.steps, given.steps == 1 ? "" : "s",
                       given.microbatches, given.microbatches == 1 ? "" : "es");
  }

  Enroller enroller;
  HomeDesk desk;
  Invite invite;  // as it was when the worker was let in
  EnrolAnswer enrolled;
  std::optional<protocol::Place> moved;  // where it serves now, if not where it was seated
  router::WorkerSteps::Given given;      // by the lives before
  bool leaves = false;                   // it was asked to
  WorkerTrace trace;
  std::optional<transport::PortMapping> ports;  // once it is behind a router
};

}  // namespace isthmus::app
