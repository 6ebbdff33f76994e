#include "app/signals.h"

#include <signal.h>

namespace isthmus {

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
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);
}

int received_signal() { return last_signal; }
int signal_count() { return count; }

}  // namespace isthmus
