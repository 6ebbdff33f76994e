#include "stage/available_memory.h"

#include <fstream>
#include <string>

namespace isthmus::stage {

std::uint64_t available_memory() {
  std::ifstream in("/proc/meminfo");
  for (std::string key; in >> key;) {
    std::uint64_t kibibytes = 0;
    if (key == "MemAvailable:" && in >> kibibytes) return kibibytes * 1024;
  }
  return 0;
}

}  // namespace isthmus::stage
