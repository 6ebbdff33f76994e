#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "base/bytes.h"
#include "base/ids.h"
#include "relay/pass.h"

namespace isthmus::relay {

// What is said over a TCP stream to a relay before it is joined to another. All integers are little-endian.
//
//   relay → client   greeting: "ISTR", version, three zeros, nonce of 16 bytes; the client's address as the relay sees
//                    it: IPv6, or an IPv4 one as ::ffff:1.2.3.4 (16), and its port (2)
//   client → relay   hello: "ISTR", version, kind, lane, zero; run id (8), from (4), to (4), call (8), expiry (8);
//   proof
//                    (32): BLAKE2b of the nonce and the 40 bytes before it, with the pass's secret as its key
//   relay → client   verdict: one byte
//
// Behind a welcome to `register` the relay sends rings, and both send a byte or a ring of zeros now and then so that
// routers on the way do not forget the connection. Behind one to `call` or `accept` the stream is the other's.
inline constexpr std::uint8_t kVersion = 1;
inline constexpr std::size_t kNonceBytes = 16, kGreetingBytes = 42, kHelloBytes = 72, kRingBytes = 16;
using Nonce = std::array<std::uint8_t, kNonceBytes>;

enum class Kind : std::uint8_t {
  kRegister = 1,  // calls for `from` may be told over this stream
  kCall = 2,      // join me to `to`
  kAccept = 3,    // join me to the call with this number
};
enum class Verdict : std::uint8_t {
  kWelcome = 0,
  kOtherVersion = 1,
  kNoProof = 2,
  kExpired = 3,
  kTooMany = 4,
  kAbsent = 5,  // nobody has registered as `to`
  kGone = 6,    // there is no such call any more
};
// For people.
const char* sentence(Verdict verdict);

struct Hello {
  Kind kind = Kind::kRegister;
  std::uint8_t lane = 0;  // which of the peer's two sockets: 0 control, 1 bulk
  std::uint64_t run_id = 0;
  PeerId from;
  PeerId to;
  std::uint64_t call = 0;
  std::uint64_t expires_s = 0;
  friend bool operator==(const Hello&, const Hello&) = default;
};

struct Greeting {
  Nonce nonce{};
  std::array<std::uint8_t, 16> address{};
  std::uint16_t port = 0;
  friend bool operator==(const Greeting&, const Greeting&) = default;
};
Bytes encode_greeting(const Greeting& greeting);
// Nothing: this is no relay, or one of another version.
std::optional<Greeting> decode_greeting(ByteView bytes);

Bytes encode_hello(const Hello& hello, const Pass& pass, const Nonce& nonce);
// The hello, if whoever sent it holds the pass that it names; a verdict otherwise.
struct Checked {
  Verdict verdict = Verdict::kWelcome;
  Hello hello{};
};
Checked check_hello(ByteView bytes, const Key& key, const Nonce& nonce, std::uint64_t now_s);

// Somebody calls: a new stream with `accept` and this number is joined to it. Number 0: nobody does.
struct Ring {
  std::uint8_t lane = 0;
  PeerId from;
  std::uint64_t call = 0;
  friend bool operator==(const Ring&, const Ring&) = default;
};
Bytes encode_ring(const Ring& ring);
// Nothing: those bytes are none.
std::optional<Ring> decode_ring(ByteView bytes);

}  // namespace isthmus::relay
