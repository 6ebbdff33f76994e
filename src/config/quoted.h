#pragma once

#include <string>

namespace isthmus::config {

// A foreign text for a message: in quotes, in ASCII, without what a terminal would obey, and only
// its size if long.
std::string quoted(const std::string& text);

}  // namespace isthmus::config
