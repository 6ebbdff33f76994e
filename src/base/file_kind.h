#pragma once

#include <sys/stat.h>

namespace isthmus {

// What people call a file of this mode (stat(2)).
inline const char* file_kind(mode_t mode) {
  switch (mode & S_IFMT) {
    case S_IFREG:
      return "a regular file";
    case S_IFDIR:
      return "a folder";
    case S_IFIFO:
      return "a named pipe";
    case S_IFSOCK:
      return "a socket";
    case S_IFCHR:
    case S_IFBLK:
      return "a device";
    default:
      return "a file of another kind";
  }
}

}  // namespace isthmus
