#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "base/time.h"

namespace isthmus::protocol {

// The way between two machines, besides the connection each of them has to the internet.
struct PairLink {
  double bits_per_second = std::numeric_limits<double>::infinity();
  Duration latency{};  // one way
  Duration age{};      // since it was measured; 0: written down by an operator
};

// Links between sites: machines of one site have equal links to all others, so that ten thousand machines need a row
// per place and not one each. Symmetric.
class LinkMatrix {
 public:
  LinkMatrix() = default;
  // Nothing is known yet: no rate of its own, no latency, and older than anything.
  explicit LinkMatrix(std::uint32_t sites)
      : sites_(sites), links_(std::size_t{sites} * sites, PairLink{.age = Duration::max()}) {}

  std::uint32_t sites() const { return sites_; }
  const PairLink& at(std::uint32_t a, std::uint32_t b) const { return links_[std::size_t{a} * sites_ + b]; }
  // For both directions. Of two measurements of a pair the younger one stays.
  void record(std::uint32_t a, std::uint32_t b, const PairLink& link) {
    if (link.age > at(a, b).age) return;
    links_[std::size_t{a} * sites_ + b] = links_[std::size_t{b} * sites_ + a] = link;
    capped_ = capped_ || link.bits_per_second < std::numeric_limits<double>::infinity();
  }
  // Whether some pair has had a rate of its own.
  bool capped() const { return capped_; }

 private:
  std::uint32_t sites_ = 0;
  std::vector<PairLink> links_;
  bool capped_ = false;
};

}  // namespace isthmus::protocol
