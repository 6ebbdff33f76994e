#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/time.h"
#include "protocol/report.h"
#include "transport/dial_back.h"
#include "transport/keys.h"

namespace isthmus::app {

// Where each worker is, for the coordinator: on which network it is seen, and whether it can be dialled there. Who is
// seen on loopback is on this machine, and nobody is dialled back. One thread.
class Whereabouts {
 public:
  // `keys`: the coordinator's.
  explicit Whereabouts(const transport::KeyPair& keys) : keys_(keys) {}

  // It was there when the log was written: so it counts until more is known.
  void remember(const protocol::Member& member);
  // It has dialled, from this numeric address.
  void seen(PeerId peer, const std::string& address);
  // A report from a place that is known.
  struct Located {
    PeerId peer;
    protocol::Location location;
    protocol::Report report;
  };
  // Its sockets are these, by its own word, on its own network. Where that is, if it is known; otherwise it is being
  // found out, and poll() gives the newest report back. Nothing ever for whoever has not dialled.
  std::optional<Located> reported(PeerId peer, const protocol::Report& report, const protocol::PublicKey& key,
                                  Time now);
  std::vector<Located> poll(Time now);
  Time next_due(Time now) const { return dial_back_ ? dial_back_->next_due(now) : kNever; }
  void forget(PeerId peer) { known_.erase(peer); }

 private:
  struct Known {
    std::string address;
    protocol::Endpoints said;
    std::optional<protocol::Location> location;
    std::optional<protocol::Report> held;  // the newest, until there is a location
    Time look_again{};                     // not before: whoever names other ports all the time gains nothing
  };
  void look(PeerId peer, Known& known, const protocol::PublicKey& key, Time now);

  const transport::KeyPair keys_;
  std::map<PeerId, Known> known_;
  std::optional<transport::DialBack> dial_back_;  // once anybody is to be dialled
};

}  // namespace isthmus::app
