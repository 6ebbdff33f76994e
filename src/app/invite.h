#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/identity.h"
#include "base/ids.h"
#include "base/result.h"
#include "transport/keys.h"

namespace isthmus::app {

// All that somebody needs who wants to take part in a run. Whoever has it may ask: it is a secret.
struct Invite {
  std::uint64_t run_id = 0;
  IdentityKey coordinator{};
  transport::KeyPair key{};          // lets in at the coordinator's door; no identity
  std::uint64_t expires_s = 0;       // seconds since 1970; 0: never
  std::optional<StageId> stage{};    // where it serves, if that is open
  std::vector<std::string> doors{};  // where to ask (transport/door.h), one to three of "ADDRESS:PORT"

  // The CURVE key of the door, and of the coordinator's other sockets.
  Result<protocol::PublicKey> coordinator_key() const { return curve_key_of(coordinator); }
  friend bool operator==(const Invite& a, const Invite& b) {
    return a.run_id == b.run_id && a.coordinator == b.coordinator && a.key.secret_key == b.key.secret_key &&
           a.expires_s == b.expires_s && a.stage == b.stage && a.doors == b.doors;
  }
};

inline constexpr std::size_t kDoorsMax = 3;

// "isthmus1" and base64url, without line breaks, of: flags (1 byte; 1: a stage follows), run (8), coordinator (32),
// seed of the key (32), expiry (8), stage (4, if there is one), number of doors (1), each with its length (1); a
// checksum of all that (BLAKE2b, 4). Integers are little-endian.
std::string invite_text(const Invite& invite);
// Space around it, as copying may bring, is no harm. Errors: cut short, changed, of another form; with what to do.
Result<Invite> read_invite(std::string_view text);

// A file that holds one: OUT/join (0600), which the coordinator writes as soon as it can be asked.
Status write_invite_file(const std::string& path, const Invite& invite);
// Refuses a file that others may read: its secret is no secret any more.
Result<Invite> read_invite_file(const std::string& path);

}  // namespace isthmus::app
