#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

namespace isthmus::store {

// A checkpoint's manifest, which may come from a stranger. Discarded if it is none: "files" is an object of objects,
// "timeline", where there is one, a number. It is a few levels deep, whatever the text is: json copies itself, and
// prints itself, level by level on the stack.
nlohmann::json parse_manifest(std::string_view text);

}  // namespace isthmus::store
