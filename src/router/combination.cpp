#include "router/combination.h"

#include <algorithm>

namespace isthmus::router {

namespace {

constexpr Duration kResendMin = std::chrono::milliseconds(500);

}  // namespace

void Combination::reset() {
  started_ = adding_ = prepared_ = false;
  replicas_ = 0;
  sum_ = nullptr;
  finite_ = total_finite_ = true;
  parts_.clear();
  part_finite_.clear();
  totals_.clear();
  resend_due_ = kNever;
}

std::size_t Combination::index_of(SessionId session) const {
  const auto members = context_.own_stage();
  return static_cast<std::size_t>(std::ranges::find(members, session, &protocol::Member::session) - members.begin());
}

void Combination::start(Time now) {
  if (started_) return;
  started_ = true;
  replicas_ = context_.own_stage().size();
  self_ = index_of(context_.session);
  schedule_resend(now);
  context_.run(protocol::RunClose{context_.job_tag(), context_.view.epoch});
}

// Twice what the slowest direction of the exchange takes, so that what is on its way is not sent again.
void Combination::schedule_resend(Time now) {
  const double bytes =
      static_cast<double>(context_.stage_plan().parameters) * (context_.plan.part_width + context_.plan.total_width);
  resend_due_ = now + std::max<Duration>(kResendMin, context_.identity.ask_after) +
                seconds(2 * bytes / context_.identity.bytes_per_second);
}

SharedBytes Combination::part(std::size_t slice) const {
  const protocol::Slice range = protocol::slice_of(context_.stage_plan().parameters, slice, replicas_);
  const auto width = context_.plan.part_width;
  return sum_.part(range.first * width, range.size() * width);
}

void Combination::closed(const protocol::CloseDone& done, Time now) {
  if (!started_ || done.tag != context_.job_tag() || done.epoch != context_.view.epoch) return;
  sum_ = done.sum;
  finite_ = done.finite;
  parts_[self_] = part(self_);
  part_finite_[self_] = finite_;
  for (std::size_t slice = 0; slice < replicas_; ++slice)
    if (slice != self_) send_part(slice);
  schedule_resend(now);
  add_if_complete();
}

void Combination::send_part(std::size_t slice) {
  const SessionId owner = context_.own_stage()[slice]->session;
  context_.send_to(
      owner,
      protocol::Part{context_.tag_to(owner), static_cast<std::uint32_t>(slice), finite_, {part(slice), nullptr}});
}

void Combination::send_total(SessionId to) {
  context_.send_to(
      to, protocol::Total{
              context_.tag_to(to), static_cast<std::uint32_t>(self_), total_finite_, {totals_.at(self_), nullptr}});
}

// May come before this worker has seen that the step is being prepared: the epoch says that it counts.
void Combination::received(const protocol::Part& part, Time) {
  const auto members = context_.own_stage();
  const std::size_t self = index_of(context_.session);
  const protocol::Slice range = protocol::slice_of(context_.stage_plan().parameters, self, members.size());
  const std::uint64_t bytes = part.tensor.values->size();
  if (part.slice != self || bytes != range.size() * context_.plan.part_width) return;
  if (started_ && totals_.contains(self_)) {
    send_total(part.tag.from);  // it missed the total
    return;
  }
  const std::size_t sender = index_of(part.tag.from);
  parts_.try_emplace(sender, part.tensor.values);
  part_finite_.try_emplace(sender, part.finite);
  add_if_complete();
}

void Combination::add_if_complete() {
  if (!started_ || !sum_ || adding_ || parts_.size() != replicas_) return;
  adding_ = true;
  protocol::RunAdd add{context_.job_tag(), context_.view.epoch, {}};
  for (const auto& [replica, bytes] : parts_) add.parts.push_back(bytes);
  context_.run(std::move(add));
}

void Combination::added(const protocol::AddDone& done) {
  if (!adding_ || done.tag != context_.job_tag() || done.epoch != context_.view.epoch) return;
  bool finite = true;
  for (const auto& [replica, f] : part_finite_) finite = finite && f;
  total_finite_ = total_finite_ && finite;
  totals_[self_] = done.total;
  parts_.clear();
  for (const protocol::Member* member : context_.own_stage())
    if (member->session != context_.session) send_total(member->session);
  prepare_if_complete();
}

void Combination::received(const protocol::Total& total, Time) {
  if (!started_) return;  // its sender has our part only after we started
  const protocol::Slice range = protocol::slice_of(context_.stage_plan().parameters, total.slice, replicas_);
  const std::uint64_t bytes = total.tensor.values->size();
  if (total.slice >= replicas_ || total.slice != index_of(total.tag.from) ||
      bytes != range.size() * context_.plan.total_width)
    return;
  total_finite_ = total_finite_ && total.finite;
  totals_.try_emplace(total.slice, total.tensor.values);
  prepare_if_complete();
}

void Combination::prepare_if_complete() {
  if (prepared_ || !complete()) return;
  prepared_ = true;
  resend_due_ = kNever;
  protocol::RunPrepare prepare{context_.job_tag(), context_.view.epoch, {}, total_finite_, false};
  for (const auto& [slice, bytes] : totals_) prepare.totals.push_back(bytes);
  context_.run(std::move(prepare));
}

void Combination::resend(Time now) {
  schedule_resend(now);
  if (!started_ || prepared_ || !sum_) return;
  for (std::size_t slice = 0; slice < replicas_; ++slice)
    if (slice != self_ && !totals_.contains(slice)) send_part(slice);
}

std::vector<SharedBytes> Combination::totals() const {
  std::vector<SharedBytes> all;
  if (complete())
    for (const auto& [slice, bytes] : totals_) all.push_back(bytes);
  return all;
}

}  // namespace isthmus::router
