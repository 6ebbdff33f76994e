// The command line. Results on stdout, logs on stderr; exit codes: 0 ok, 1 failed, 2 usage, 78 bad run file,
// 130 interrupted.

#include <fcntl.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>

#include "app/commands/command_line.h"

namespace {

constexpr char kNoMemory[] = "error: not enough memory; close other programs, or raise the limit (ulimit -v)\n";

// Whoever started this may have closed its standard streams: then the next file or socket that is opened would be one
// of them, and get what is printed.
void keep_standard_streams() {
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
    if (::fcntl(fd, F_GETFD) < 0 && ::open("/dev/null", O_RDWR) != fd) std::_Exit(1);
}

// Allocates nothing.
[[noreturn]] void end_without_memory() {
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, kNoMemory, sizeof kNoMemory - 1);
  std::_Exit(1);
}

// For what nobody catches: in another thread, or before main().
[[noreturn]] void end_uncaught() {
  if (std::current_exception()) try {
      throw;
    } catch (const std::bad_alloc&) {
      end_without_memory();
    } catch (const std::exception& error) {
      std::fprintf(stderr, "error: %s\n", error.what());
    } catch (...) {
    }
  std::abort();
}

// Before the libraries are set up.
void before_libraries(int, char**, char**) { std::set_terminate(end_uncaught); }
__attribute__((section(".preinit_array"), used)) void (*const kBeforeLibraries)(int, char**, char**) = before_libraries;

int carry_out(int argc, char** argv) {
  try {
    spdlog::set_default_logger(spdlog::stderr_color_mt("isthmus"));
    spdlog::set_pattern("%^%l%$: %v");
    return isthmus::app::CommandLine().run(argc, argv);
  } catch (const std::bad_alloc&) {
    end_without_memory();
  } catch (const std::exception& error) {
    spdlog::error("{}", error.what());
    return 1;
  }
}

// A result that did not reach its reader is none.
int after_output(int code) {
  const bool lost = std::ferror(stdout) != 0;
  const bool written = std::fclose(stdout) == 0;
  if (written && !lost) return code;
  spdlog::error("cannot write the output: {}", written ? "some of it is lost" : std::strerror(errno));
  return code == 0 ? 1 : code;
}

}  // namespace

int main(int argc, char** argv) {
  keep_standard_streams();
  const int code = after_output(carry_out(argc, argv));
#ifdef ISTHMUS_ADDRESS_SANITIZER
  return code;  // leaks are looked for on the way out
#else
  // Nothing is left to write, and libtorch, where it was loaded, would take a tenth of a second to take itself apart.
  std::fflush(nullptr);
  std::_Exit(code);
#endif
}
