#pragma once

#include <map>
#include <optional>
#include <vector>

#include "router/worker_context.h"

namespace isthmus::router {

// Sums the gradients of a stage's replicas ("exact" mode; docs/protocol.md, "Combination"): reduce-scatter, then
// all-gather. Slice j of the parameters belongs to the j-th live replica, which adds up everybody's part in the order
// of the replicas, so that all hold the same bits. One object per worker, used again for every epoch: any change of
// membership voids what was combined, and the accumulators stay untouched until the commit.
class Combination {
 public:
  explicit Combination(WorkerContext& context) : context_(context) {}

  // A new epoch, step or life: forgets everything.
  void reset();
  // The view says preparing and owners[me] is what I have done.
  void start(Time now);
  bool started() const { return started_; }

  void closed(const protocol::CloseDone& done, Time now);
  void received(const protocol::Part& part, Time now);
  void received(const protocol::Total& total, Time now);
  void added(const protocol::AddDone& done);
  // Connections may have lost parts.
  void resend(Time now);
  Time resend_due() const { return resend_due_; }

  // The whole stage's sum, slice by slice, once prepared; empty before. For those that join.
  std::vector<SharedBytes> totals() const;

 private:
  std::size_t index_of(SessionId session) const;
  void send_part(std::size_t slice);
  void send_total(SessionId to);
  void add_if_complete();
  void prepare_if_complete();
  void schedule_resend(Time now);
  SharedBytes part(std::size_t slice) const;
  bool complete() const { return totals_.size() == replicas_ && replicas_ > 0; }

  WorkerContext& context_;
  bool started_ = false;
  bool adding_ = false;
  bool prepared_ = false;
  std::size_t replicas_ = 0;
  std::size_t self_ = 0;
  SharedBytes sum_;
  bool finite_ = true;
  std::map<std::size_t, SharedBytes> parts_;  // of my slice, by replica
  std::map<std::size_t, bool> part_finite_;
  std::map<std::size_t, SharedBytes> totals_;  // by slice
  bool total_finite_ = true;
  Time resend_due_ = kNever;
};

}  // namespace isthmus::router
