#pragma once

namespace isthmus {

// Of all headers that this code was compiled with, in hex. Two libraries that differ in it do not agree on their types.
const char* headers_digest();

}  // namespace isthmus
