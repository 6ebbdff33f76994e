#pragma once

#include <optional>
#include <string>
#include <vector>

namespace isthmus::config {

// The known word nearest to a misspelt one by edit distance; nothing if none is near enough to be
// meant.
std::optional<std::string> nearest(const std::string& word, const std::vector<std::string>& known);

}  // namespace isthmus::config
