#include "relay/joint.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/write.hpp>
#include <utility>

namespace isthmus::relay {

namespace {

namespace asio = boost::asio;
using Failure = boost::system::error_code;

constexpr std::size_t kBufferBytes = 64 * 1024;
constexpr int kIdleSeconds = 20, kProbeSeconds = 5, kProbes = 3, kUnheardMs = 30'000;

}  // namespace

void set_options(asio::ip::tcp::socket& socket) {
  const auto set = [&](int level, int name, int value) {
    ::setsockopt(socket.native_handle(), level, name, &value, sizeof value);
  };
  set(IPPROTO_TCP, TCP_NODELAY, 1);
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, kIdleSeconds);
  set(IPPROTO_TCP, TCP_KEEPINTVL, kProbeSeconds);
  set(IPPROTO_TCP, TCP_KEEPCNT, kProbes);
  set(IPPROTO_TCP, TCP_USER_TIMEOUT, kUnheardMs);
}

Joint::Joint(Socket a, Socket b, std::atomic<std::uint64_t>& bytes, std::shared_ptr<Allowance> allowance,
             std::function<void()> ended)
    : a_(std::move(a)),
      b_(std::move(b)),
      ways_{Way{a_, b_, std::vector<std::uint8_t>(kBufferBytes), asio::steady_timer(a_.get_executor())},
            Way{b_, a_, std::vector<std::uint8_t>(kBufferBytes), asio::steady_timer(a_.get_executor())}},
      bytes_(bytes),
      allowance_(std::move(allowance)),
      ended_(std::move(ended)) {}

void Joint::start() {
  read(0);
  read(1);
}

void Joint::read(std::size_t way) {
  Way& w = ways_[way];
  w.from.async_read_some(asio::buffer(w.buffer), [self = shared_from_this(), way](Failure error, std::size_t count) {
    if (error)
      self->end(way, error != asio::error::eof);
    else
      self->write(way, count);
  });
}

void Joint::write(std::size_t way, std::size_t count) {
  Way& w = ways_[way];
  asio::async_write(w.to, asio::buffer(w.buffer, count),
                    [self = shared_from_this(), way](Failure error, std::size_t written) {
                      self->bytes_ += written;
                      if (error) return self->end(way, true);
                      const auto wait = self->owed(written);
                      if (wait.count() <= 0) return self->read(way);
                      auto& rest = self->ways_[way].rest;
                      rest.expires_after(wait);
                      rest.async_wait([self, way](Failure stopped) {
                        if (!stopped) self->read(way);
                      });
                    });
}

std::chrono::steady_clock::duration Joint::owed(std::size_t count) {
  if (!allowance_ || allowance_->bytes_per_second <= 0) return {};
  const auto now = std::chrono::steady_clock::now();
  const double passed = std::chrono::duration<double>(now - allowance_->since).count();
  // A second's worth may be saved up.
  allowance_->left = std::min(allowance_->bytes_per_second, allowance_->left + passed * allowance_->bytes_per_second);
  allowance_->since = now;
  allowance_->left -= static_cast<double>(count);
  if (allowance_->left >= 0) return {};
  return std::chrono::duration_cast<std::chrono::steady_clock::duration>(
      std::chrono::duration<double>(-allowance_->left / allowance_->bytes_per_second));
}

void Joint::end(std::size_t way, bool broken) {
  Failure ignored;
  if (!broken) ways_[way].to.shutdown(Socket::shutdown_send, ignored);
  if (--open_ == 0 || broken) close();
}

void Joint::close() {
  Failure ignored;
  a_.close(ignored);
  b_.close(ignored);
  for (Way& way : ways_) way.rest.cancel();
  if (const auto ended = std::exchange(ended_, {})) ended();
}

}  // namespace isthmus::relay
