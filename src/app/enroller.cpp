#include "app/enroller.h"

#include <algorithm>
#include <thread>
#include <utility>

namespace isthmus::app {

namespace {

constexpr Duration kLookAgain = std::chrono::milliseconds(50);
constexpr Duration kAskAgain = seconds(1);
// A connection that was refused is not made again by itself.
constexpr Duration kDialAgain = seconds(5);

}  // namespace

void Enroller::look_at_file(Time now) {
  if (now < look_again_) return;
  look_again_ = now + kLookAgain;
  auto join = read_join_file(path_);
  if (!join) {
    if (!join_) trouble_ = join.error().message;
    return;
  }
  if (join_ == *join && now - dialled_ < kDialAgain) return;
  join_ = std::move(*join);
  dialled_ = now;
  ask_again_ = now;
  caller_.emplace(join_->invite);
  trouble_ = fmt::format("nobody answers at {}, where {} says that the run's coordinator is", join_->endpoint, path_);
  if (auto dialled = caller_->dial(join_->endpoint, *join_->coordinator_key()); !dialled) {
    trouble_ = dialled.error().message;
    caller_.reset();
  }
}

Enroller::Heard Enroller::listen(Duration longest, Time now) {
  look_at_file(now);
  if (!caller_) {
    std::this_thread::sleep_for(std::min(longest, kLookAgain));
    return {};
  }
  if (now >= ask_again_) {
    ask_again_ = now + kAskAgain;
    caller_->ask(encode_request(request_, {join_->run_id, join_->coordinator, join_->invite.public_key}, identity_));
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
  return std::get<EnrolAnswer>(std::move(*answer));
}

}  // namespace isthmus::app
