#include "process/signals.h"

#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <atomic>

namespace isthmus::process {

namespace {

std::atomic<int> descriptor = -1, last_signal = 0, count = 0;

void look() {
  signalfd_siginfo info{};
  while (descriptor >= 0 && ::read(descriptor, &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {
    last_signal = static_cast<int>(info.ssi_signo);
    ++count;
  }
}

}  // namespace

void catch_signals() {
  sigset_t ours;
  sigemptyset(&ours);
  sigaddset(&ours, SIGINT);
  sigaddset(&ours, SIGTERM);
  // The terminal was closed. Under nohup it is ignored, and stays so.
  struct sigaction before {};
  if (sigaction(SIGHUP, nullptr, &before) == 0 && before.sa_handler != SIG_IGN) sigaddset(&ours, SIGHUP);
  pthread_sigmask(SIG_BLOCK, &ours, nullptr);
  descriptor = ::signalfd(descriptor, &ours, SFD_NONBLOCK | SFD_CLOEXEC);
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);
}

void release_signals() {
  sigset_t none;
  sigemptyset(&none);
  pthread_sigmask(SIG_SETMASK, &none, nullptr);
}

int received_signal() {
  look();
  return last_signal;
}

int signal_count() {
  look();
  return count;
}

int signal_descriptor() { return descriptor; }

}  // namespace isthmus::process
