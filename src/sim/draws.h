#pragma once

#include <cstdint>
#include <string>

#include "base/counter_random.h"

namespace isthmus::sim {

// The dice of a simulation, one after the other: equal seeds, equal throws.
class Draws {
 public:
  Draws(std::uint64_t seed, const std::string& name) : random_(seed, name) {}
  std::uint64_t below(std::uint64_t limit) { return random_.below(limit, drawn_++); }
  // Throws only where it can matter, so that it changes nothing elsewhere.
  bool chance(double p) { return p > 0 && static_cast<double>(below(1'000'000)) < p * 1e6; }

 private:
  const CounterRandom random_;
  std::uint64_t drawn_ = 0;
};

}  // namespace isthmus::sim
