#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/result.h"
#include "process/admin_socket.h"

namespace isthmus::app {

// What a person at this machine says to a worker: a signal (Ctrl-C), or a line to HOME/admin (process/admin_socket.h),
// one JSON object there, one back:
//
//   {"ask": "status"}                     what the worker is and does
//   {"ask": "leave", "at_once": false}    {"done": what it does now}
//   {"ask": "end"}                        {"done": its last words}, once it ends
//
// One thread.
class HomeDesk {
 public:
  // REQUIRES: the home is this process's own.
  static Result<HomeDesk> open(const std::string& home);

  enum class Wish { kStay, kLeave, kLeaveAtOnce };
  // `state`: the worker as it is now, one JSON object. `leave` begins to leave, and returns what the worker does until
  // it has, for people.
  Wish look(const std::function<nlohmann::json()>& state, const std::function<std::string()>& leave);
  // To those that wait for its end. Called once.
  void say_last_words(const std::string& words);
  // Readable when look() has something to do.
  std::vector<int> descriptors() const { return socket_.descriptors(); }

 private:
  explicit HomeDesk(process::AdminSocket socket) : socket_(std::move(socket)) {}

  process::AdminSocket socket_;
  Wish asked_ = Wish::kStay;  // over the socket
  std::vector<process::AdminSocket::Request> wait_for_end_;
};

}  // namespace isthmus::app
