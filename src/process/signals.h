#pragma once

namespace isthmus::process {

// SIGINT, SIGTERM and SIGHUP are noted, not obeyed: the process's own loop ends it in order. They interrupt no call of
// any library, because they are blocked and read from a descriptor. Writing to a closed pipe or past a file size limit
// is an error value, not a signal. Call before threads are started.
void catch_signals();
// In a process that was forked and is about to become another program.
void release_signals();
// The last of them, or 0.
int received_signal();
// How many came so far: the second one means "now".
int signal_count();
// Readable when one has come that was not asked for yet; -1 before catch_signals().
int signal_descriptor();

}  // namespace isthmus::process
