#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"

namespace isthmus {

using IdentityKey = std::array<std::uint8_t, 32>;  // Ed25519, the public half
using Signature = std::array<std::uint8_t, 64>;

// Who somebody is, for as long as they keep the file: an Ed25519 key made from a seed that never leaves this machine.
class Identity {
 public:
  using Seed = std::array<std::uint8_t, 32>;
  static Identity from_seed(const Seed& seed);
  static Identity fresh();
  // Made on first use: a text file readable by its owner only (0600), written whole or not at all. Refuses one that
  // others may read, or that is something else. Two processes that begin at once end up with the same one.
  static Result<Identity> keep(const std::string& path);
  // As keep(), but an error if there is none.
  static Result<Identity> read(const std::string& path);

  const IdentityKey& key() const { return key_; }
  Signature sign(ByteView message) const;
  // The same identity as an X25519 key pair, for CURVE (libsodium's conversion).
  std::array<std::uint8_t, 32> curve_secret() const;

 private:
  Identity() = default;
  Seed seed_{};
  IdentityKey key_{};
  std::array<std::uint8_t, 64> secret_{};
};

bool signed_by(const IdentityKey& key, ByteView message, const Signature& signature);
// The CURVE key that belongs to an identity; an error for 32 bytes that are no such key.
Result<std::array<std::uint8_t, 32>> curve_key_of(const IdentityKey& key);

// Lower- or upper-case hexadecimal of exactly so many bytes; false if it is anything else.
template <std::size_t n>
bool from_hex(std::string_view hex, std::array<std::uint8_t, n>& out);
extern template bool from_hex<32>(std::string_view, std::array<std::uint8_t, 32>&);
extern template bool from_hex<64>(std::string_view, std::array<std::uint8_t, 64>&);

}  // namespace isthmus
