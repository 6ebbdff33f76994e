#pragma once

#include <string>
#include <string_view>

namespace isthmus {

// Whether a stranger's text can be shown and logged as it is: well-formed UTF-8 without control characters (C0, DEL,
// C1) and without those that turn the direction of the text around them.
bool is_plain_text(std::string_view text);
// The beginning of `text`, at most so many bytes, with a space for each line break or tab and '?' for what else is not
// plain.
std::string plain_text(std::string_view text, std::size_t most);

}  // namespace isthmus
