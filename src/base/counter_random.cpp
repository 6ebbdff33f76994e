#include "base/counter_random.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace isthmus {

CounterRandom::CounterRandom(std::uint64_t seed, std::string_view stream) {
  const std::uint64_t key = XXH64(stream.data(), stream.size(), seed);
  key0_ = static_cast<std::uint32_t>(key);
  key1_ = static_cast<std::uint32_t>(key >> 32);
}

std::array<std::uint32_t, 4> CounterRandom::words(std::uint64_t counter) const {
  std::uint32_t c0 = static_cast<std::uint32_t>(counter);
  std::uint32_t c1 = static_cast<std::uint32_t>(counter >> 32);
  std::uint32_t c2 = 0, c3 = 0, k0 = key0_, k1 = key1_;
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53} * c0;
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57} * c2;
    c0 = static_cast<std::uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<std::uint32_t>(p1);
    c2 = static_cast<std::uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<std::uint32_t>(p0);
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  return {c0, c1, c2, c3};
}

std::uint64_t CounterRandom::bits(std::uint64_t counter) const {
  const auto w = words(counter);
  return (std::uint64_t{w[1]} << 32) | w[0];
}

std::uint64_t CounterRandom::below(std::uint64_t limit, std::uint64_t counter) const {
  __extension__ using Wide = unsigned __int128;
  return static_cast<std::uint64_t>((static_cast<Wide>(bits(counter)) * limit) >> 64);
}

double CounterRandom::normal(std::uint64_t counter) const {
  std::uint32_t sum = 0;
  for (const std::uint32_t w : words(counter)) sum += (w & 0xFFFF) + (w >> 16);
  // Eight uniforms on {0 … 65535}: mean 4 · 65535, variance 8 · (65536² − 1) / 12; its root is 53509.91992145008.
  constexpr double kInverseDeviation = 1.0 / 53509.91992145008;
  return (static_cast<double>(sum) - 4.0 * 65535.0) * kInverseDeviation;
}

}  // namespace isthmus
