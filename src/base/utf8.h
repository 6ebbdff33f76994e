#pragma once

#include "base/bytes.h"

namespace isthmus {

// Bytes of the code point that `text` begins with; 0 if that is none (RFC 3629: nothing overlong, no surrogates).
// REQUIRES: text is not empty.
std::size_t code_point_bytes(ByteView text);

}  // namespace isthmus
