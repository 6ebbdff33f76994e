#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "transport/keys.h"

namespace isthmus::transport {

inline constexpr std::size_t kRequestBytesMax = 1024;
inline constexpr std::size_t kAnswerPartMax = 64 * 1024;
inline constexpr std::size_t kAnswerPartsMax = 64;

// Where those who are no peers yet ask to become one: a ROUTER of its own with CURVE and the ZAP domain `enrol`. It
// lets in the keys of invites, not of identities. Requests are small, and of one key and one address only so many a
// second are taken; the others are dropped and counted, and whoever sent them asks again. Knows no message. One thread.
class Door {
 public:
  struct Options {
    KeyPair keys;
    std::string host = "127.0.0.1";
    std::uint32_t port = 0;  // 0: any
    // Requests of one key, and of one address: so many at once, and one more each time.
    std::int64_t burst = 1000;
    Duration request_every = std::chrono::milliseconds(5);
  };
  // Binds; errors name address, port and what to do.
  static Result<std::unique_ptr<Door>> open(Options options);
  ~Door();

  // "tcp://address:port"
  std::string endpoint() const;
  void let_in(const protocol::PublicKey& invite);

  struct Request {
    std::string route;  // for answer()
    protocol::PublicKey invite{};
    std::string text;
  };
  std::vector<Request> poll(Time now);
  // Parts of at most kAnswerPartMax bytes, kAnswerPartsMax of them. Whoever has gone gets nothing.
  void answer(const std::string& route, const std::vector<std::string>& parts);

  // Readable when poll() may have something to do. It says so once: look at ready() before waiting.
  std::vector<int> descriptors() const;
  bool ready() const;
  // Connections with a key that nobody invited, and requests above the budget or too many bytes.
  std::uint64_t refused() const;

 private:
  class Impl;
  explicit Door(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Asks at a Door. One thread.
class Caller {
 public:
  // `invite`: a key pair that the Door lets in.
  explicit Caller(const KeyPair& invite);
  ~Caller();

  // Dials anew, whatever was under way.
  Status dial(const std::string& endpoint, const protocol::PublicKey& door);
  // Leaves as soon as there is a connection.
  void ask(const std::string& text);
  // Waits for an answer; empty: none came in time, or the wait was interrupted by a signal.
  std::vector<std::string> answer(Duration longest);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace isthmus::transport
