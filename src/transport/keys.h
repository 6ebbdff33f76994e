#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "base/identity.h"
#include "base/result.h"
#include "protocol/endpoints.h"

namespace isthmus::transport {

// A CURVE key pair (Curve25519), raw bytes.
struct KeyPair {
  protocol::PublicKey public_key{};
  std::array<std::uint8_t, 32> secret_key{};
};

KeyPair new_key_pair();
// The pair that this secret half belongs to.
KeyPair key_pair_of(const std::array<std::uint8_t, 32>& secret_key);
// An identity's own pair, by which its connections are known.
KeyPair key_pair_of(const Identity& identity);
// A text file, secret key first, readable by its owner only (0600). An existing file is never overwritten.
Status write_key_file(const std::string& path, const KeyPair& keys);
// Refuses a file that others may read, and one whose halves do not belong together.
Result<KeyPair> read_key_file(const std::string& path);

}  // namespace isthmus::transport
