#pragma once

#include <cstdint>
#include <vector>

#include "base/framing.h"
#include "base/ids.h"
#include "base/time.h"
#include "protocol/link_matrix.h"
#include "protocol/operation_costs.h"
#include "protocol/plan.h"
#include "protocol/stage_schedule.h"
#include "spec/run_spec.h"

namespace isthmus::planner {

struct LinkCosts {
  double bits_per_second = 80e6;  // up, and the same down, shared by all of a worker's traffic
  Duration latency{};             // one way
  Duration jitter{};              // uniform in [0, jitter)
  double loss = 0;                // share of chunks sent twice
  std::uint64_t seed = 1;
};
// What [link] of the run file says.
LinkCosts link_costs(const spec::RunSpec::Link& link);

// One worker's connection, shared by all of its traffic; bits per second.
struct WorkerRates {
  double up = 0;
  double down = 0;
};

// Bits on the wire for so many bytes of payload, TCP/IP headers included.
inline double wire_bits(double payload_bytes) { return payload_bytes * kFraming * 8; }

struct StepSimulationInput {
  protocol::Plan plan;
  std::vector<protocol::OperationCosts> costs;  // per worker: in the order of the stages, then of their replicas
  LinkCosts link;
  std::vector<WorkerRates> rates;    // per worker; empty: link.bits_per_second, up and down
  std::vector<std::uint32_t> sites;  // per worker, its row of `pairs`; empty: link.latency between all
  protocol::LinkMatrix pairs;
  // Replicas that a path names for each stage: the one it takes, then those that would be done next; 0: no paths.
  std::uint32_t path_width = 0;
  std::uint32_t evaluation_microbatches = 0;
  Duration commit = std::chrono::milliseconds(2);  // log sync and the like, besides the messages' latency
};

struct Span {
  std::uint32_t worker;
  protocol::Task task;
  Time start;
  Time end;
};

struct WorkerSimulation {
  StageId stage;
  ReplicaId replica;
  std::uint32_t microbatches = 0;  // its share of the step
  std::uint32_t in_flight_max = 0;
  std::uint32_t held_max = 0;  // from the start of F to the end of W
  Duration busy{};             // the device
  std::uint64_t bytes_up = 0;
  Duration uplink_busy{};
  // What the device waited for; with `busy` they add up to the step. On a link: the input was on its way already.
  Duration waited_forward{};
  Duration waited_gradient{};
  Duration waited_link{};
  Duration waited_end{};  // for the others, the combination and the commit, when all of its own work was done
};

// Payload that went from one worker to another at boundaries.
struct LinkUse {
  std::uint32_t from;
  std::uint32_t to;
  std::uint64_t bytes = 0;
};

// Workers by stage: the one that has the microbatch, then the alternates by predicted finish.
using MicrobatchPath = std::vector<std::vector<std::uint32_t>>;

struct StepSimulation {
  Time step{};              // from the view that begins the step to the one that commits it
  double efficiency = 0;    // busy time of the busiest device over the step
  std::vector<Span> spans;  // in order of their start
  std::vector<WorkerSimulation> workers;
  std::vector<LinkUse> links;         // by sender and receiver
  std::vector<MicrobatchPath> paths;  // by microbatch, if asked for
  Duration combination{};             // part of the step: replicas add their sums
};

// Plays one step on a manual clock: the same StageSchedule objects that order a live worker, links that serve chunks
// of 64 KiB with gradients first, next hops by earliest finish, the combination of a stage's sums, the round trips of
// the commit. A chunk passes the sender's uplink, the pair's own rate if it has one, and the receiver's downlink; the
// slowest of them sets its pace, and only an uplink makes others wait behind it. What workers have to measure and guess
// (load and speed of the others) is known here, so this is what a run can at best be. The one predictor of plan, tests
// and, later, placement. Deterministic.
StepSimulation simulate_step(const StepSimulationInput& input);

}  // namespace isthmus::planner
