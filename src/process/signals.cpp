#include "process/signals.h"

#include <signal.h>

namespace isthmus::process {

namespace {

// The handler may touch nothing else.
volatile sig_atomic_t last_signal = 0;
volatile sig_atomic_t count = 0;

void note(int signal) {
  last_signal = signal;
  count = count + 1;
}

}  // namespace

void catch_signals() {
  struct sigaction action {};
  action.sa_handler = note;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  // The terminal was closed. Under nohup it is ignored, and stays so.
  struct sigaction before {};
  if (sigaction(SIGHUP, nullptr, &before) == 0 && before.sa_handler != SIG_IGN) sigaction(SIGHUP, &action, nullptr);
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);
}

int received_signal() { return last_signal; }
int signal_count() { return count; }

}  // namespace isthmus::process
