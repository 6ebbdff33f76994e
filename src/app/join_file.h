#pragma once

#include <cstdint>
#include <string>

#include "base/identity.h"
#include "base/result.h"
#include "transport/keys.h"

namespace isthmus::app {

// What lets somebody ask to take part in a run: OUT/join (0600), which the coordinator writes as soon as it can be
// asked. Whoever can read it may join.
struct JoinFile {
  std::uint64_t run_id = 0;
  IdentityKey coordinator{};
  std::string endpoint;         // where to ask (transport/door.h), "tcp://address:port"
  transport::KeyPair invite{};  // lets in at that door; no identity

  // The CURVE key of the door, and of the coordinator's other sockets.
  Result<protocol::PublicKey> coordinator_key() const { return curve_key_of(coordinator); }
  friend bool operator==(const JoinFile& a, const JoinFile& b) {
    return a.run_id == b.run_id && a.coordinator == b.coordinator && a.endpoint == b.endpoint &&
           a.invite.secret_key == b.invite.secret_key;
  }
};

Status write_join_file(const std::string& path, const JoinFile& join);
// Refuses a file that others may read: its secret is no secret any more.
Result<JoinFile> read_join_file(const std::string& path);

}  // namespace isthmus::app
