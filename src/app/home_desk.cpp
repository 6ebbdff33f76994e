#include "app/home_desk.h"

#include <algorithm>
#include <utility>

#include "process/signals.h"

namespace isthmus::app {

using nlohmann::json;

namespace {

constexpr std::size_t kWaitersMax = 16;

std::string line_of(const json& said) { return said.dump(-1, ' ', false, json::error_handler_t::replace); }

}  // namespace

Result<HomeDesk> HomeDesk::open(const std::string& home) {
  auto socket = process::AdminSocket::listen(home);
  if (!socket) return tl::unexpected(socket.error());
  return HomeDesk(std::move(*socket));
}

HomeDesk::Wish HomeDesk::look(const std::function<json()>& state, const std::function<std::string()>& leave) {
  const int signals = process::signal_count();
  for (auto& request : socket_.poll()) {
    const json asked = json::parse(request.line, nullptr, false);
    const std::string what = asked.is_object() && asked.contains("ask") && asked["ask"].is_string()
                                 ? asked["ask"].get<std::string>()
                                 : std::string();
    if (what == "status") {
      socket_.answer(request, line_of(state()));
    } else if (what == "leave") {
      const bool at_once = asked.contains("at_once") && asked["at_once"] == true;
      asked_ = std::max(asked_, at_once ? Wish::kLeaveAtOnce : Wish::kLeave);
      socket_.answer(request, line_of({{"done", at_once ? "leaves at once" : leave()}}));
    } else if (what == "end" && wait_for_end_.size() < kWaitersMax) {
      wait_for_end_.push_back(std::move(request));
    } else {
      socket_.answer(request,
                     line_of({{"error", "this worker does not know what was asked; is it of another version?"}}));
    }
  }
  const Wish by_signal = signals == 0 ? Wish::kStay : signals == 1 ? Wish::kLeave : Wish::kLeaveAtOnce;
  return std::max(asked_, by_signal);
}

void HomeDesk::say_last_words(const std::string& words) {
  for (const auto& request : wait_for_end_) socket_.answer(request, line_of({{"done", words}}));
  wait_for_end_.clear();
}

}  // namespace isthmus::app
