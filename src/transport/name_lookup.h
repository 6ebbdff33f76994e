#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "transport/address.h"

namespace isthmus::transport {

// Asks the system for the addresses of a name, in a thread of its own: without a network that takes many seconds. An
// answer that nobody waits for any more is dropped.
class NameLookup {
 public:
  explicit NameLookup(const Address& name);
  // Addresses in the order in which to try them, once they are there; at least one.
  std::optional<Result<std::vector<Address>>> poll() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace isthmus::transport
