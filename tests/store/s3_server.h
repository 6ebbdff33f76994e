#pragma once

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace isthmus::store {

// A socket that listens on a free port of 127.0.0.1.
inline int listen_on_loopback() {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 && ::listen(fd, 16) == 0) return fd;
  ::close(fd);
  return -1;
}
inline std::uint16_t port_of(int fd) {
  sockaddr_in address{};
  socklen_t size = sizeof address;
  ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
  return ntohs(address.sin_port);
}
// A port that was free a moment ago.
inline std::uint16_t free_port() {
  const int fd = listen_on_loopback();
  const std::uint16_t port = port_of(fd);
  ::close(fd);
  return port;
}

// nanio, a server of S3 that keeps buckets in a folder and checks the signatures of all requests, on 127.0.0.1. It goes
// with the object, and with the test.
class S3Server {
 public:
  static constexpr const char* kProgram = ISTHMUS_S3_SERVER;
  static constexpr const char* kHowToInstall =
      "there is no S3 server at " ISTHMUS_S3_SERVER
      "; `python3 -m venv .venv && .venv/bin/pip install nanio==0.1.7` in the repository installs it";
  static bool is_installed() { return ::access(kProgram, X_OK) == 0; }

  S3Server() = default;
  S3Server(const S3Server&) = delete;
  S3Server& operator=(const S3Server&) = delete;
  ~S3Server() { stop(); }

  // Begins to serve what is in `folder`, with these buckets, new or there already. What went wrong; empty: nothing.
  std::string start(const std::string& folder, const std::vector<std::string>& buckets) {
    stop();
    for (const auto& bucket : buckets) std::filesystem::create_directories(folder + "/" + bucket);
    // Somebody may have taken the port meanwhile; the server ends then.
    for (int tries = 0; tries < 3; ++tries) {
      port_ = free_port();
      run(folder);
      const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(60);
      while (::waitpid(pid_, nullptr, WNOHANG) == 0) {
        if (answers()) return {};
        if (std::chrono::steady_clock::now() > give_up) return "nanio did not listen within a minute";
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
      }
      pid_ = -1;
    }
    return "nanio ends as soon as it has begun; its output is " + log_of(folder);
  }

  void stop() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }

  std::string endpoint() const { return "http://127.0.0.1:" + std::to_string(port_); }
  // What makes programs use it. A proxy would not know the way.
  std::vector<std::pair<std::string, std::string>> environment() const {
    return {{"AWS_ACCESS_KEY_ID", kKey},
            {"AWS_SECRET_ACCESS_KEY", kSecret},
            {"AWS_ENDPOINT_URL_S3", endpoint()},
            {"AWS_REGION", "us-east-1"},
            {"NO_PROXY", "127.0.0.1"}};
  }

 private:
  static constexpr const char* kKey = "isthmus-test";
  static constexpr const char* kSecret = "a secret, of 26 characters";

  static std::string log_of(const std::string& folder) { return folder + ".log"; }

  void run(const std::string& folder) {
    const std::string port = std::to_string(port_);
    const std::string log = log_of(folder);
    std::vector<std::string> words = {kProgram,         "serve", "--data-dir", folder,      "--host",      "127.0.0.1",
                                      "--port",         port,    "--region",   "us-east-1", "--log-level", "warning",
                                      "--no-access-log"};
    std::vector<std::string> settings = {std::string("NANIO_ACCESS_KEY=") + kKey,
                                         std::string("NANIO_SECRET_KEY=") + kSecret};
    const char* path = std::getenv("PATH");
    settings.push_back(std::string("PATH=") + (path ? path : "/usr/bin:/bin"));
    std::vector<char*> argv, envp;
    for (auto& word : words) argv.push_back(word.data());
    for (auto& setting : settings) envp.push_back(setting.data());
    argv.push_back(nullptr);
    envp.push_back(nullptr);
    const pid_t parent = ::getpid();
    pid_ = ::fork();
    if (pid_ != 0) return;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(1);
    const int out = ::open(log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    ::dup2(out, 1);
    ::dup2(out, 2);
    ::execve(kProgram, argv.data(), envp.data());
    ::_exit(127);
  }

  bool answers() const {
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port_);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const bool answered = ::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
    ::close(fd);
    return answered;
  }

  pid_t pid_ = -1;
  std::uint16_t port_ = 0;
};

}  // namespace isthmus::store
