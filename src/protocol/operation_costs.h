#pragma once

#include "base/time.h"

namespace isthmus::protocol {

// Time one device needs for one microbatch.
struct OperationCosts {
  Duration forward{};
  Duration input_gradient{};
  Duration weight_gradient{};
  Duration total() const { return forward + input_gradient + weight_gradient; }
  OperationCosts operator*(double factor) const {
    return {seconds(to_seconds(forward) * factor), seconds(to_seconds(input_gradient) * factor),
            seconds(to_seconds(weight_gradient) * factor)};
  }
  friend bool operator==(const OperationCosts&, const OperationCosts&) = default;
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit("forward", self.forward);
    visit("input_gradient", self.input_gradient);
    visit("weight_gradient", self.weight_gradient);
  }
};

}  // namespace isthmus::protocol
