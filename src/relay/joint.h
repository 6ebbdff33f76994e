#pragma once

#include <array>
#include <atomic>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

namespace isthmus::relay {

// So that a connection whose other end has vanished is found out within half a minute, and small frames do not wait.
void set_options(boost::asio::ip::tcp::socket& socket);

// What one peer's streams may move together; refilled as time goes by.
struct Allowance {
  double bytes_per_second = 0;  // 0: as much as comes
  double left = 0;
  std::chrono::steady_clock::time_point since{};
};

// Two TCP streams as one: what comes in here goes out there, either way, until one of them ends. The end of a direction
// is passed on by itself, and when both have ended, or one breaks, `ended` is called once. Stays alive by itself for as
// long. Lives in the executor of its sockets.
class Joint : public std::enable_shared_from_this<Joint> {
 public:
  using Socket = boost::asio::ip::tcp::socket;
  // `bytes` counts what came through; `allowance` may be null. Both outlive it.
  Joint(Socket a, Socket b, std::atomic<std::uint64_t>& bytes, std::shared_ptr<Allowance> allowance,
        std::function<void()> ended);
  void start();
  void close();

 private:
  struct Way {
    Socket& from;
    Socket& to;
    std::vector<std::uint8_t> buffer;
    boost::asio::steady_timer rest;
  };
  void read(std::size_t way);
  void write(std::size_t way, std::size_t count);
  void end(std::size_t way, bool broken);
  // How long to wait before the next bytes are taken.
  std::chrono::steady_clock::duration owed(std::size_t count);

  Socket a_, b_;
  std::array<Way, 2> ways_;
  std::atomic<std::uint64_t>& bytes_;
  std::shared_ptr<Allowance> allowance_;
  std::function<void()> ended_;
  int open_ = 2;
};

}  // namespace isthmus::relay
