#pragma once

#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>

// CHECK(condition, "format", values...): a broken invariant of our own making ends the process in every build.
// Nothing that comes from a file, a flag or a socket may reach one: such errors are values (base/result.h).
#define CHECK(condition, ...)                                                         \
  do {                                                                                \
    if (!(condition)) [[unlikely]]                                                    \
      ::isthmus::check_failed(#condition, __FILE__, __LINE__, ::fmt::format("" __VA_ARGS__)); \
  } while (false)

namespace isthmus {

[[noreturn]] inline void check_failed(const char* condition, const char* file, int line,
                                      const std::string& message) {
  std::fprintf(stderr, "%s:%d: CHECK(%s) failed. %s\n", file, line, condition, message.c_str());
  std::abort();
}

}  // namespace isthmus
