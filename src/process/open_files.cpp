#include "process/open_files.h"

#include <sys/resource.h>

namespace isthmus::process {

namespace {

// Files, libraries, threads' wake-ups; ZeroMQ's own.
constexpr std::uint64_t kOwn = 64;
// Two lanes, each a connection, its socket and two watchers of it.
constexpr std::uint64_t kPerWorker = 8;

}  // namespace

std::uint64_t open_files_of(std::uint64_t workers) { return kOwn + kPerWorker * workers; }

Status allow_open_files(std::uint64_t needed) {
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) != 0) return {};
  files.rlim_cur = files.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &files);
  if (files.rlim_max >= needed) return {};
  return fail("this run needs {} open files in each of its processes, and {} are allowed; ulimit -n {} allows them",
              needed, files.rlim_max, needed);
}

}  // namespace isthmus::process
