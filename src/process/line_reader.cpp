#include "process/line_reader.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

namespace isthmus::process {

LineReader::LineReader(int fd) : fd_(fd), closed_(fd < 0) {
  if (fd_ >= 0) ::fcntl(fd_, F_SETFL, ::fcntl(fd_, F_GETFL) | O_NONBLOCK);
}

std::optional<std::string> LineReader::next() {
  char bytes[512];
  while (!closed_) {
    const ssize_t n = ::read(fd_, bytes, sizeof bytes);
    if (n > 0) {
      buffer_.append(bytes, static_cast<std::size_t>(n));
    } else if (n < 0 && errno == EINTR) {
      continue;
    } else {
      closed_ = n == 0 || (errno != EAGAIN && errno != EWOULDBLOCK);
      break;
    }
  }
  const auto end = buffer_.find('\n');
  if (end == std::string::npos) return std::nullopt;
  std::string line = buffer_.substr(0, end);
  buffer_.erase(0, end + 1);
  return line;
}

}  // namespace isthmus::process
