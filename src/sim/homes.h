#pragma once

#include <cstdint>
#include <vector>

#include "base/ids.h"
#include "protocol/endpoints.h"

namespace isthmus::sim {

// Where a run's workers live. Most stand behind a router that lets nobody in, some can be dialled from anywhere, some
// share a home with the one before, and some only its address, as customers of one provider do. From a seed. A relay
// joins whom nobody can dial, while it is up.
class Homes {
 public:
  Homes(std::uint32_t workers, std::uint64_t seed);

  // As the coordinator finds out.
  protocol::Location location(PeerId worker) const;
  // The worker's home gets another address.
  void renumber(PeerId worker);
  void set_relay(bool up) { relay_up_ = up; }
  // Whether a dial gets to the other's sockets, by one who takes it to be there.
  bool reaches(PeerId from, PeerId to, const protocol::Location& believed, protocol::Way way) const;

 private:
  struct Home {
    std::uint32_t house = 0;
    std::uint32_t address = 0;
    bool open = false;
  };
  const Home& of(PeerId worker) const { return homes_.at(worker.value - 1); }

  std::vector<Home> homes_;  // by worker
  std::uint32_t addresses_ = 0;
  bool relay_up_ = true;
};

}  // namespace isthmus::sim
