#pragma once

namespace isthmus::process {

// SIGINT, SIGTERM and SIGHUP are noted, not obeyed: the process's own loop ends it in order. Writing to a closed pipe
// or past a file size limit is an error value, not a signal.
void catch_signals();
// The last of them, or 0. Stays until asked again after the next one.
int received_signal();
// How many came so far: the second one means "now".
int signal_count();

}  // namespace isthmus::process
