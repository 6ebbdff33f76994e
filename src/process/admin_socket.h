#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/time.h"

namespace isthmus::process {

// How a person at this machine talks to a process that serves a folder: a Unix socket FOLDER/admin (0600), one line to
// it, one line back, closed. Whoever may open the socket may say anything. Never blocks. One thread.
class AdminSocket {
 public:
  // Takes the place of one that a killed process left behind. REQUIRES: the folder is the process's own.
  static Result<AdminSocket> listen(const std::string& folder);
  AdminSocket(AdminSocket&& other) noexcept;
  AdminSocket& operator=(AdminSocket&&) = delete;
  ~AdminSocket();

  struct Request {
    int client = -1;  // for answer()
    std::string line;
  };
  // At most a line of each client, of at most 64 KiB; more is hung up on.
  std::vector<Request> poll();
  void answer(const Request& request, const std::string& line);
  // Readable when poll() has something to do.
  std::vector<int> descriptors() const;

 private:
  explicit AdminSocket(std::string path, int listener) : path_(std::move(path)), listener_(listener) {}

  std::string path_;
  int listener_ = -1;
  std::map<int, std::string> clients_;  // what each has said so far
};

// Says `line` to whoever serves the folder, `who` for people ("coordinator"), and returns what comes back. Errors:
// nobody serves it; it hung up, or gave no answer in time.
Result<std::string> ask_admin(const std::string& folder, const std::string& who, const std::string& line,
                              Duration longest);

}  // namespace isthmus::process
