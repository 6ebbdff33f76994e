#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <set>

#include "base/ids.h"
#include "protocol/plan.h"

namespace isthmus::protocol {

// F: layers forward. I: gradient with respect to the stage's input. W: gradients of the weights (zero-bubble split,
// Qi et al., arXiv 2401.10241). At the tail F includes the loss and I needs no input.
enum class Operation : std::uint8_t { kForward, kInputGradient, kWeightGradient };

struct Task {
  Operation operation;
  MicrobatchId microbatch;
  friend bool operator==(const Task&, const Task&) = default;
};

// Which operation one stage replica runs next. The same object orders a live worker's device (router) and the
// predictor's (step_simulation), so that a plan shows what a run does. Pure; one thread.
//
// Order: I of the oldest microbatch; F of the oldest training microbatch if fewer than `credits` are in flight; F of
// an evaluation microbatch; W. In 1F1B a W goes before everything, so it is never apart from its I.
//
// The deep schedule never forces a W: at the tail every forced one delays the gradients that all other stages wait for
// (P = 8, M = 32, 100 ms, 80 Mb/s: efficiency .91 without a limit, .83 with a limit of 4). What a waiting W holds was
// held for its I already, so at most a step's microbatches are held, which is what the plan counts.
class StageSchedule {
 public:
  StageSchedule(ScheduleKind kind, std::uint32_t credits);

  // The input of F is here. Evaluation microbatches take no credit: no gradient will come.
  void forward_ready(MicrobatchId m, bool training);
  // The gradient of the stage's output is here. A microbatch stays in flight until its I has finished.
  void gradient_ready(MicrobatchId m);
  // Takes the next task, or nothing if there is none to run now. After an I the caller reports input_gradient_done.
  std::optional<Task> next();
  // I has finished: frees the credit and queues W.
  void input_gradient_done(MicrobatchId m);
  // Forgets a microbatch whose F has not started (cancelled). False if there is none.
  bool cancel_forward(MicrobatchId m);

  bool waits_for_credit() const { return !forward_.empty() && in_flight_ >= credits_; }
  std::uint32_t in_flight() const { return in_flight_; }
  std::uint32_t queued() const {
    return static_cast<std::uint32_t>(forward_.size() + evaluation_.size() + gradient_.size() + weight_.size());
  }

 private:
  std::uint32_t credits_;
  bool weight_first_;
  std::uint32_t in_flight_ = 0;
  std::set<MicrobatchId> forward_;
  std::set<MicrobatchId> evaluation_;
  std::set<MicrobatchId> gradient_;
  std::deque<MicrobatchId> weight_;
};

}  // namespace isthmus::protocol
