#include "process/admin_socket.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "process/clock.h"

namespace isthmus::process {

namespace {

constexpr std::size_t kLineMax = 64 * 1024;
constexpr std::size_t kClientsMax = 16;
constexpr int kAnswerBytes = 8 << 20;  // of a run with thousands of peers

// An address of a socket has room for 107 characters; a folder may have a longer name, but not its descriptor.
class Address {
 public:
  explicit Address(const std::string& folder) : folder_(::open(folder.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)) {
    address_.sun_family = AF_UNIX;
    std::snprintf(address_.sun_path, sizeof address_.sun_path, "/proc/self/fd/%d/admin", folder_);
  }
  ~Address() {
    if (folder_ >= 0) ::close(folder_);
  }
  Address(const Address&) = delete;
  Address& operator=(const Address&) = delete;
  bool good() const { return folder_ >= 0; }
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&address_); }

 private:
  int folder_;
  sockaddr_un address_{};
};

}  // namespace

Result<AdminSocket> AdminSocket::listen(const std::string& folder) {
  const Address address(folder);
  const std::string path = folder + "/admin";
  const auto failed = [&] { return fail("cannot listen at {}: {}", path, std::strerror(errno)); };
  const int listener = ::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (listener < 0 || !address.good()) {
    const auto error = failed();
    if (listener >= 0) ::close(listener);
    return error;
  }
  AdminSocket socket("", listener);
  struct stat there {};
  if (::lstat(path.c_str(), &there) == 0 && S_ISSOCK(there.st_mode)) ::unlink(path.c_str());
  // Nobody else for a moment either.
  const mode_t before = ::umask(0177);
  const int bound = ::bind(listener, address.get(), sizeof(sockaddr_un));
  ::umask(before);
  if (bound != 0) return failed();
  socket.path_ = path;  // only what was made here is removed at the end
  if (::listen(listener, kClientsMax) != 0) return failed();
  return socket;
}

AdminSocket::AdminSocket(AdminSocket&& other) noexcept
    : path_(std::exchange(other.path_, {})),
      listener_(std::exchange(other.listener_, -1)),
      clients_(std::exchange(other.clients_, {})) {}

AdminSocket::~AdminSocket() {
  for (const auto& [client, said] : clients_) ::close(client);
  if (listener_ < 0) return;
  ::close(listener_);
  if (!path_.empty()) ::unlink(path_.c_str());
}

std::vector<AdminSocket::Request> AdminSocket::poll() {
  while (clients_.size() < kClientsMax) {
    const int client = ::accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (client < 0) break;
    ::setsockopt(client, SOL_SOCKET, SO_SNDBUF, &kAnswerBytes, sizeof kAnswerBytes);
    clients_.emplace(client, std::string());
  }
  std::vector<Request> requests;
  for (auto at = clients_.begin(); at != clients_.end();) {
    auto& [client, said] = *at;
    char bytes[4096];
    ssize_t n = 0;
    while (said.size() <= kLineMax && said.find('\n') == std::string::npos &&
           (n = ::recv(client, bytes, sizeof bytes, 0)) > 0)
      said.append(bytes, static_cast<std::size_t>(n));
    const auto end = said.find('\n');
    if (end != std::string::npos && end <= kLineMax) {
      requests.push_back({client, said.substr(0, end)});
      at = clients_.erase(at);  // answer() hangs up
    } else if (said.size() > kLineMax || n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
      ::close(client);
      at = clients_.erase(at);
    } else {
      ++at;
    }
  }
  return requests;
}

// What does not fit into the socket's buffer is lost: whoever asks reads at once, or has gone.
void AdminSocket::answer(const Request& request, const std::string& line) {
  const std::string text = line + "\n";
  [[maybe_unused]] const ssize_t n = ::send(request.client, text.data(), text.size(), MSG_NOSIGNAL);
  ::close(request.client);
}

std::vector<int> AdminSocket::descriptors() const {
  std::vector<int> all = {clients_.size() < kClientsMax ? listener_ : -1};
  for (const auto& [client, said] : clients_) all.push_back(client);
  return all;
}

Result<std::string> ask_admin(const std::string& folder, const std::string& who, const std::string& line,
                              Duration longest) {
  const Address address(folder);
  if (!address.good()) return fail("cannot open the folder {}: {}", folder, std::strerror(errno));
  const int socket = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (socket < 0) return fail("cannot make a socket: {}", std::strerror(errno));
  const auto close_and = [&](auto result) {
    ::close(socket);
    return result;
  };
  if (::connect(socket, address.get(), sizeof(sockaddr_un)) != 0) {
    const int why = errno;
    if (why == ENOENT || why == ECONNREFUSED)
      return close_and(Result<std::string>(fail("no {} serves {} at this moment", who, folder)));
    return close_and(Result<std::string>(fail("cannot reach {}/admin: {}", folder, std::strerror(why))));
  }
  const std::string text = line + "\n";
  std::string answer;
  if (::send(socket, text.data(), text.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(text.size())) {
    const Time until = monotonic_now() + longest;
    char bytes[65536];
    for (Time now = monotonic_now(); now < until && !answer.ends_with('\n'); now = monotonic_now()) {
      pollfd readable{socket, POLLIN, 0};
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - now).count();
      if (::poll(&readable, 1, static_cast<int>(left) + 1) <= 0) continue;
      const ssize_t n = ::recv(socket, bytes, sizeof bytes, 0);
      if (n <= 0) break;
      answer.append(bytes, static_cast<std::size_t>(n));
    }
  }
  if (!answer.ends_with('\n'))
    return close_and(Result<std::string>(fail("the {} of {} does not answer; is it stopped?", who, folder)));
  answer.pop_back();
  return close_and(Result<std::string>(std::move(answer)));
}

}  // namespace isthmus::process
