#include "app/front_desk.h"

#include <algorithm>
#include <utility>

namespace isthmus::app {

namespace {

constexpr Duration kHold = seconds(5);

}  // namespace

FrontDesk::FrontDesk(std::unique_ptr<transport::Door> door, const EnrolTerms& terms, std::size_t expected)
    : door_(std::move(door)), terms_(terms), expected_(expected), open_(expected <= 1) {}

std::vector<FrontDesk::Ask> FrontDesk::poll(Time now) {
  std::vector<Ask> asks;
  for (auto& request : door_->poll(now)) {
    EnrolTerms terms = terms_;
    terms.invite = request.invite;
    auto asked = check_request(request.text, terms);
    if (!asked) {
      ++refused_;
      door_->answer(request.route, encode_refusal(asked.error().message));
      continue;
    }
    Ask ask{std::move(request.route), std::move(*asked)};
    if (ask.asked.leaves) held_.erase(ask.asked.enrolment.identity);
    if (open_ || ask.asked.leaves) {
      asks.push_back(std::move(ask));
    } else {
      if (!hold_until_) hold_until_ = now + kHold;
      held_.insert_or_assign(ask.asked.enrolment.identity, std::move(ask));
    }
  }
  if (!open_ && hold_until_ && (held_.size() >= expected_ || now >= *hold_until_))
    for (auto& ask : release()) asks.push_back(std::move(ask));
  return asks;
}

std::vector<FrontDesk::Ask> FrontDesk::release() {
  open_ = true;
  std::vector<Ask> asks;
  for (auto& [identity, ask] : held_) asks.push_back(std::move(ask));
  held_.clear();
  // worker-2 before worker-10
  std::ranges::stable_sort(asks, {}, [](const Ask& ask) {
    const std::string& name = ask.asked.enrolment.name;
    return std::pair(name.size(), name);
  });
  return asks;
}

Time FrontDesk::next_due() const {
  if (door_->ready()) return Time{};
  return open_ ? kNever : hold_until_.value_or(kNever);
}

}  // namespace isthmus::app
