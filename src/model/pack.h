#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace isthmus {

struct PackOptions {
  std::vector<std::string> files;  // joined in this order
  std::string train;
  std::string validation;
  double validation_share = 0.02;  // of the text, from its end; in (0, 1)
};

// Text files to two byte shards. Never overwrites an input.
Status pack(const PackOptions& options);

}  // namespace isthmus
