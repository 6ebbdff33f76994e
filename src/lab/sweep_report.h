#pragma once

#include <string>

#include "lab/sweep_results.h"

namespace isthmus::lab {

// A page that needs nothing else: validation loss against tokens, bytes and predicted seconds, training loss against
// the reference's, the gap of every row against its bytes, and the table. Charts are inline SVG; names and figures show
// on hover, and there is no script.
std::string sweep_report(const SweepResults& results);

}  // namespace isthmus::lab
