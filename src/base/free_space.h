#pragma once

#include <string>

namespace isthmus {

// Bytes that this process may still write where the folder is, or would be; negative: not known.
double free_space(const std::string& folder);

}  // namespace isthmus
