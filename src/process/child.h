#pragma once

#include <signal.h>
#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

namespace isthmus::process {

// A process of this program, started by `isthmus train` or a sweep, in its own process group, so that Ctrl-C reaches
// the parent alone, which ends the run in order.
class Child {
 public:
  struct Options {
    bool listen = false;  // the child's descriptor 3 is a pipe that output() reads from
    // The kernel sends it to the child if the parent dies; 0: none, it finds out and decides itself.
    int when_orphaned = SIGKILL;
  };
  // Runs this program with `arguments`. The child reads its standard input from a pipe that say() writes to.
  static Result<Child> start(const std::string& name, const std::vector<std::string>& arguments, Options options);

  Child(Child&& other) noexcept;
  Child& operator=(Child&&) = delete;
  ~Child();

  const std::string& name() const { return name_; }
  pid_t pid() const { return pid_; }
  void say(const std::string& line);
  // Waits for one line; nothing if the child ended without one.
  std::optional<std::string> read_line();
  // What read_line() reads from, for a reader that must not wait; -1 without `listen`. Stays the child's.
  int output() const { return from_child_; }
  void signal(int number);
  // Does not wait. True once the process has ended; how is then in exit_code() and ending().
  bool ended();
  int exit_code() const { return exit_code_; }
  // "exited with code 1", "was killed by signal 9".
  const std::string& ending() const { return ending_; }

 private:
  Child() = default;
  std::string name_;
  pid_t pid_ = -1;
  int to_child_ = -1;
  int from_child_ = -1;
  bool ended_ = false;
  int exit_code_ = 0;
  std::string ending_;
};

}  // namespace isthmus::process
