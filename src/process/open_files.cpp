#include "process/open_files.h"

#include <sys/resource.h>

#include <algorithm>
#include <cstdint>

namespace isthmus::process {

namespace {

// Files, libraries, threads' wake-ups; ZeroMQ's own.
constexpr std::uint64_t kOwn = 64;
// Two lanes, each a connection, its socket and two watchers of it.
constexpr std::uint64_t kPerWorker = 8;

std::uint64_t files_allowed() {
  rlimit files{};
  return ::getrlimit(RLIMIT_NOFILE, &files) == 0 ? files.rlim_cur : UINT64_MAX;
}

}  // namespace

std::uint64_t open_files_of(std::uint64_t workers) { return kOwn + kPerWorker * workers; }

std::uint64_t allow_most_open_files() {
  constexpr std::uint64_t kLeast = 256;
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) != 0) return kLeast;
  files.rlim_cur = files.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &files);
  return std::max<std::uint64_t>(files.rlim_max, kLeast);
}

Status allow_open_files(std::uint64_t needed) {
  if (allow_most_open_files(); needed > files_allowed())
    return fail("this run needs {} open files in each of its processes, and {} are allowed; ulimit -n {} allows them",
                needed, files_allowed(), needed);
  return {};
}

}  // namespace isthmus::process
