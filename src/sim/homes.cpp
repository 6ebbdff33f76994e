#include "sim/homes.h"

#include <fmt/format.h>

#include "base/counter_random.h"

namespace isthmus::sim {

Homes::Homes(std::uint32_t workers, std::uint64_t seed) {
  const CounterRandom random(seed, "homes");
  for (std::uint32_t w = 0; w < workers; ++w) {
    const std::uint64_t kind = homes_.empty() ? random.below(15, w) : random.below(20, w);
    Home home{w, ++addresses_, kind < 5};
    if (kind >= 15) home.address = homes_.back().address;
    if (kind >= 15 && kind < 18) home.house = homes_.back().house;
    homes_.push_back(home);
  }
}

protocol::Location Homes::location(PeerId worker) const {
  const Home& home = of(worker);
  const std::string network = fmt::format("198.51.{}.{}", home.address / 250, home.address % 250);
  if (!home.open) return {network, {}};
  return {network, {fmt::format("tcp://{}:40000", network), fmt::format("tcp://{}:40001", network)}};
}

void Homes::renumber(PeerId worker) {
  const std::uint32_t house = of(worker).house;
  ++addresses_;
  for (Home& home : homes_)
    if (home.house == house) home.address = addresses_;
}

bool Homes::reaches(PeerId from, PeerId to, const protocol::Location& believed, protocol::Way way) const {
  switch (way) {
    case protocol::Way::kNetwork:
      return of(from).house == of(to).house;
    case protocol::Way::kOutside:
      return !believed.outside.empty() && believed.outside == location(to).outside;
    case protocol::Way::kRelay:
      return relay_up_;
  }
  return false;
}

}  // namespace isthmus::sim
