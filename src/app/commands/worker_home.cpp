#include "app/commands/worker_home.h"

#include <cstdlib>

namespace isthmus::app {

void add_home(CLI::App& command, record::WorkerHome& home, const std::string& what) {
  command.add_option("--home", home.path, what + " (default: ~/.local/share/isthmus)");
}

Status find_home(record::WorkerHome& home) {
  if (!home.path.empty()) return {};
  const char* data = std::getenv("XDG_DATA_HOME");
  const char* user = std::getenv("HOME");
  if (data && *data == '/')
    home.path = std::string(data) + "/isthmus";
  else if (user && *user == '/')
    home.path = std::string(user) + "/.local/share/isthmus";
  else
    return fail("this user has no home folder; say where to keep identity and checkpoints: --home DIR");
  return {};
}

}  // namespace isthmus::app
