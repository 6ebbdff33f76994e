#include "router/link_probe.h"

#include <algorithm>
#include <utility>

namespace isthmus::router {

namespace {

constexpr std::uint32_t kSmallRounds = 8;
constexpr std::uint32_t kRounds = kSmallRounds + 2 * protocol::kSoundings;
constexpr Duration kEchoPatience = seconds(5);
constexpr std::uint32_t kMissedMax = 4;
// A large message is what the uplink moves in this time, so that no slow link is filled for long.
constexpr double kBulkSeconds = 0.25;
constexpr std::uint64_t kBulkBytesMin = 8 * 1024;
// Share of the uplink that answers may take.
constexpr double kAnswerShare = 0.1;

SharedBytes zeros(std::uint64_t bytes) { return share(Bytes(bytes, 0)); }

bool goes_out(std::uint32_t round) { return round >= kSmallRounds && round < kSmallRounds + protocol::kSoundings; }
bool comes_back(std::uint32_t round) { return round >= kSmallRounds + protocol::kSoundings; }

void keep_shorter(std::optional<Duration>& best, Duration time) { best = best ? std::min(*best, time) : time; }

}  // namespace

// Members out of reach are not in the view but for this.
const protocol::Member* LinkProbe::partner(SessionId session) const {
  const auto at = std::ranges::find(context_.view.partners, session, &protocol::Member::session);
  return at == context_.view.partners.end() ? nullptr : &*at;
}

std::uint64_t LinkProbe::bulk_bytes() const {
  return std::clamp(static_cast<std::uint64_t>(kBulkSeconds * context_.identity.bytes_per_second), kBulkBytesMin,
                    protocol::kSoundingBytes);
}

void LinkProbe::view_changed(Time now) {
  const protocol::LinkOrder& order = context_.view.measure;
  const protocol::Member* other =
      order.number != 0 && context_.live() && order.to != context_.session ? partner(order.to) : nullptr;
  if (!other) {
    under_way_.reset();
    return;
  }
  if (under_way_ && under_way_->order == order && under_way_->from == context_.session) return;
  under_way_.reset();
  if (done_.order == order) return;
  under_way_ = UnderWay{.order = order, .from = context_.session, .peer = other->peer};
  connections_.dial(*other, now);
  ask(now);
}

void LinkProbe::ask(Time now) {
  UnderWay& u = *under_way_;
  u.asked = now;
  u.ask_again = now + kEchoPatience;
  protocol::Sounding message{context_.session, u.order.to, ++serial_, 0, {}};
  if (goes_out(u.round)) message.tensor.values = zeros(bulk_bytes());
  if (comes_back(u.round)) message.reply_bytes = bulk_bytes();
  context_.run(protocol::SendMessage{u.peer, std::move(message)});
}

bool LinkProbe::received(const protocol::Sounding& message, PeerId from, Time now) {
  const protocol::Member* asker = partner(message.from);
  if (message.to != context_.session || !context_.live() || !asker || asker->peer != from) return false;
  allowance_ = std::min<double>(
      protocol::kSoundings * protocol::kSoundingBytes,
      allowance_ + to_seconds(now - allowed_since_) * kAnswerShare * context_.identity.bytes_per_second);
  allowed_since_ = now;
  if (static_cast<double>(message.reply_bytes) > allowance_) return false;
  allowance_ -= static_cast<double>(message.reply_bytes);
  protocol::Echo echo{context_.session, message.from, message.serial, {}};
  if (message.reply_bytes > 0) echo.tensor.values = zeros(message.reply_bytes);
  context_.run(protocol::SendMessage{from, std::move(echo)});
  return true;
}

bool LinkProbe::received(const protocol::Echo& message, PeerId from, Time now) {
  if (message.to != context_.session) return false;
  // An answer to what was asked before: it took too long.
  if (!under_way_ || from != under_way_->peer || message.from != under_way_->order.to || message.serial != serial_)
    return true;
  UnderWay& u = *under_way_;
  const std::uint64_t bytes = message.tensor.values->size();
  if (bytes != (comes_back(u.round) ? bulk_bytes() : 0)) return false;
  keep_shorter(goes_out(u.round) ? u.out : comes_back(u.round) ? u.back : u.small, now - u.asked);
  if (++u.round == kRounds)
    finish();
  else
    ask(now);
  return true;
}

void LinkProbe::tick(Time now) {
  if (!under_way_ || now < under_way_->ask_again) return;
  if (++under_way_->missed > kMissedMax)
    finish();
  else
    ask(now);
}

void LinkProbe::finish() {
  const UnderWay& u = *under_way_;
  done_ = {.order = u.order};
  if (u.back) {
    done_.latency = *u.small / 2;
    const auto rate = [&](Duration whole) {
      // What is left once the way there and back is taken off; on a fast link that is within the noise of both.
      const Duration moving = std::max({whole - *u.small, whole / 100, Duration(std::chrono::microseconds(10))});
      return static_cast<double>(bulk_bytes()) * 8 / to_seconds(moving);
    };
    done_.sent_bits_per_second = rate(*u.out);
    done_.received_bits_per_second = rate(*u.back);
    // In one home it goes past the uplink.
    const protocol::Member* self = context_.view.find(context_.session);
    const protocol::Member* other = partner(u.order.to);
    if (self && other && self->location.network != other->location.network)
      context_.uplink.measured(done_.sent_bits_per_second / 8);
  }
  under_way_.reset();
}

}  // namespace isthmus::router
