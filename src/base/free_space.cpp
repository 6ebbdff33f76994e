#include "base/free_space.h"

#include <sys/statvfs.h>

#include <filesystem>

namespace isthmus {

double free_space(const std::string& folder) {
  namespace fs = std::filesystem;
  std::error_code none;
  fs::path there = fs::absolute(folder, none);
  while (!fs::exists(there, none) && there != there.root_path()) there = there.parent_path();
  struct statvfs space {};
  if (::statvfs(there.c_str(), &space) != 0) return -1;
  return static_cast<double>(space.f_bavail) * static_cast<double>(space.f_frsize);
}

}  // namespace isthmus
