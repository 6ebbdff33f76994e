#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace isthmus {

// Counter-based random numbers: the n-th number of a stream is a pure function of (seed, stream, n), so any
// participant can compute any part of U, E, an initial weight or the data order without the rest, and gets the same
// bits on every machine. Philox 4x32 with 10 rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
// SC 2011), 64-bit key = seed mixed with the stream's name. Only integer and IEEE 754 add/multiply: no libm.
class CounterRandom {
 public:
  CounterRandom(std::uint64_t seed, std::string_view stream);

  // Four independent 32-bit words for this counter.
  std::array<std::uint32_t, 4> words(std::uint64_t counter) const;
  // Uniform in [0, 2^64).
  std::uint64_t bits(std::uint64_t counter) const;
  // Uniform in [0, limit), by multiplication (bias below limit / 2^64). REQUIRES: limit > 0.
  std::uint64_t below(std::uint64_t limit, std::uint64_t counter) const;
  // Mean 0, variance 1: the scaled sum of eight 16-bit uniforms (Irwin-Hall), so |x| < 4.9. Exact in double.
  double normal(std::uint64_t counter) const;

 private:
  std::uint32_t key0_;
  std::uint32_t key1_;
};

}  // namespace isthmus
