#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "app/enrolment.h"
#include "base/time.h"
#include "transport/door.h"

namespace isthmus::app {

// The coordinator's end of its door: takes requests, refuses what is wrong with them at once, hands on the others.
//
// Those that come first are held until as many identities have asked as are expected, for a few seconds at most, and
// are then handed on in the order of their names: who gets which number and seat does not depend on whose process was
// faster. One thread.
class FrontDesk {
 public:
  FrontDesk(std::unique_ptr<transport::Door> door, const EnrolTerms& terms, std::size_t expected);

  struct Ask {
    std::string route;
    EnrolAsked asked;
  };
  std::vector<Ask> poll(Time now);
  void answer(const Ask& ask, const std::vector<std::string>& parts) { door_->answer(ask.route, parts); }

  void let_in(const protocol::PublicKey& invite) { door_->let_in(invite); }

  // When poll() has something to do even if nothing arrives.
  Time next_due() const;
  std::vector<int> descriptors() const { return door_->descriptors(); }
  // Requests and connections that were refused.
  std::uint64_t refused() const { return refused_ + door_->refused(); }

 private:
  std::vector<Ask> release();

  std::unique_ptr<transport::Door> door_;
  const EnrolTerms terms_;
  const std::size_t expected_;
  bool open_ = false;                // nobody is held any more
  std::map<IdentityKey, Ask> held_;  // the newest request of each
  std::optional<Time> hold_until_;
  std::uint64_t refused_ = 0;
};

}  // namespace isthmus::app
