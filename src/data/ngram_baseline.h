#pragma once

#include <string>

#include "base/result.h"

namespace isthmus::data {

// Mean loss in nats per byte, on `validation`, of a trigram byte model with add-one smoothing fitted on `train`:
// p(c | a b) = (n(abc) + 1) / (n(ab) + 256). The first two bytes are not scored. Refuses
// shards whose ids are not bytes.
Result<double> trigram_loss(const std::string& train, const std::string& validation);

}  // namespace isthmus::data
