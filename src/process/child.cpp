#include "process/child.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "process/signals.h"

namespace isthmus::process {

Result<Child> Child::start(const std::string& name, const std::vector<std::string>& arguments, Options options) {
  const bool listen = options.listen;
  int in[2] = {-1, -1}, out[2] = {-1, -1};
  if (::pipe2(in, O_CLOEXEC) != 0 || (listen && ::pipe2(out, O_CLOEXEC) != 0))
    return fail("cannot start the {}: {}", name, std::strerror(errno));
  std::vector<char*> argv;
  std::string self = "isthmus";
  argv.push_back(self.data());
  std::vector<std::string> copies = arguments;
  for (auto& argument : copies) argv.push_back(argument.data());
  argv.push_back(nullptr);
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid < 0) return fail("cannot start the {}: {}", name, std::strerror(errno));
  if (pid == 0) {
    ::setpgid(0, 0);
    release_signals();
    if (options.when_orphaned != 0) {
      ::prctl(PR_SET_PDEATHSIG, options.when_orphaned);
      if (::getppid() != parent) ::_exit(1);
    }
    ::dup2(in[0], 0);
    if (listen) ::dup2(out[1], 3);
    ::execv("/proc/self/exe", argv.data());
    ::_exit(127);
  }
  ::close(in[0]);
  if (listen) ::close(out[1]);
  Child child;
  child.name_ = name;
  child.pid_ = pid;
  child.to_child_ = in[1];
  child.from_child_ = out[0];
  return child;
}

Child::Child(Child&& other) noexcept
    : name_(std::move(other.name_)),
      pid_(std::exchange(other.pid_, -1)),
      to_child_(std::exchange(other.to_child_, -1)),
      from_child_(std::exchange(other.from_child_, -1)),
      ended_(other.ended_),
      exit_code_(other.exit_code_),
      ending_(std::move(other.ending_)) {}

Child::~Child() {
  if (to_child_ >= 0) ::close(to_child_);
  if (from_child_ >= 0) ::close(from_child_);
  if (pid_ > 0 && !ended()) {
    signal(SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
}

void Child::say(const std::string& line) {
  const std::string text = line + "\n";
  [[maybe_unused]] const auto n = ::write(to_child_, text.data(), text.size());
}

std::optional<std::string> Child::read_line() {
  std::string line;
  for (char c; ::read(from_child_, &c, 1) == 1;) {
    if (c == '\n') return line;
    line += c;
  }
  return std::nullopt;
}

void Child::signal(int number) {
  if (pid_ > 0 && !ended_) ::kill(pid_, number);
}

bool Child::ended() {
  if (ended_ || pid_ <= 0) return true;
  int status = 0;
  if (::waitpid(pid_, &status, WNOHANG) != pid_) return false;
  ended_ = true;
  if (WIFSIGNALED(status)) {
    exit_code_ = 128 + WTERMSIG(status);
    ending_ = fmt::format("was killed by signal {} ({})", WTERMSIG(status), ::strsignal(WTERMSIG(status)));
  } else {
    exit_code_ = WEXITSTATUS(status);
    ending_ = fmt::format("exited with code {}", exit_code_);
  }
  return true;
}

}  // namespace isthmus::process
