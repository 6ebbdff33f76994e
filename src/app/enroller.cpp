#include "app/enroller.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "process/clock.h"

namespace isthmus::app {

namespace {

constexpr std::size_t kReasonMax = 300;  // bytes, of a request of 1,024
constexpr Duration kLookAgain = std::chrono::milliseconds(50);
constexpr Duration kAskAgain = seconds(1);
constexpr Duration kGoodBye = seconds(1);
// A connection that was refused is not made again by itself.
constexpr Duration kDialAgain = seconds(5);

}  // namespace

void Enroller::look(Time now) {
  if (now < look_again_) return;
  look_again_ = now + kLookAgain;
  auto invite = source_.look();
  if (!invite) {
    if (!invite_) trouble_ = invite.error().message;
    return;
  }
  const bool same = invite_ == *invite;
  if (same && now - dialled_ < kDialAgain) return;
  dials_ = same ? dials_ + 1 : 0;
  invite_ = std::move(*invite);
  dialled_ = now;
  ask_again_ = now;
  caller_.reset();
  lookup_.reset();
  const std::string& door = invite_->doors[dials_ % invite_->doors.size()];
  trouble_ = fmt::format(
      "nobody answers at {}, where {} says that the run's coordinator is: it is down, nothing gets through to it, or "
      "somebody else is there by now, whom the invite does not fit",
      door, source_.name());
  const auto address = transport::read_address(door);
  if (!address) {
    trouble_ = fmt::format("'{}', where {} says that the run's coordinator is, is no address", door, source_.name());
  } else if (address->is_numeric()) {
    dialled_at_ = *address;
    dial();
  } else {
    lookup_.emplace(*address);
  }
}

void Enroller::dial() {
  caller_.emplace(invite_->key);
  if (auto dialled = caller_->dial(dialled_at_.endpoint(), *invite_->coordinator_key()); !dialled) {
    trouble_ = dialled.error().message;
    caller_.reset();
  }
}

bool Enroller::say_good_bye(const std::string& why) {
  request_.leaves = why.substr(0, kReasonMax);
  ask_again_ = Time{};
  const Time until = process::monotonic_now() + kGoodBye;
  for (Time now = until - kGoodBye; now < until; now = process::monotonic_now())
    if (std::holds_alternative<EnrolRefusal>(listen(until - now, now))) return true;  // it is out
  return false;
}

Enroller::Heard Enroller::listen(Duration longest, Time now) {
  look(now);
  if (lookup_)
    if (const auto found = lookup_->poll()) {
      if (*found) {
        // Another one the next time.
        dialled_at_ = (**found)[dials_ / invite_->doors.size() % (*found)->size()];
        dial();
      } else {
        trouble_ = found->error().message;
      }
      lookup_.reset();
    }
  if (!caller_) {
    std::this_thread::sleep_for(std::min(longest, kLookAgain));
    return {};
  }
  if (now >= ask_again_) {
    ask_again_ = now + kAskAgain;
    caller_->ask(encode_request(request_, {invite_->run_id, invite_->coordinator, invite_->key.public_key}, identity_));
  }
  const auto parts = caller_->answer(std::min(longest, kLookAgain));
  if (parts.empty()) return {};
  dialled_ = now;
  auto answer = decode_answer(parts);
  if (!answer) {
    trouble_ = answer.error().message;
    return {};
  }
  if (auto* refusal = std::get_if<EnrolRefusal>(&*answer)) return std::move(*refusal);
  auto& let_in = std::get<EnrolAnswer>(*answer);
  if (auto seen = see_from(let_in, dialled_at_); !seen) {
    trouble_ = seen.error().message;
    return {};
  }
  return std::move(let_in);
}

}  // namespace isthmus::app
