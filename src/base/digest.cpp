#include "base/digest.h"

#include <fmt/format.h>
#include <sodium.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <new>

namespace isthmus {

static_assert(sizeof(crypto_generichash_state) <= 384 && crypto_generichash_BYTES == 32);

Digest::Digest() {
  crypto_generichash_init(reinterpret_cast<crypto_generichash_state*>(state_.data()), nullptr, 0,
                          crypto_generichash_BYTES);
}

void Digest::update(ByteView bytes) {
  crypto_generichash_update(reinterpret_cast<crypto_generichash_state*>(state_.data()), bytes.data(), bytes.size());
}

std::array<std::uint8_t, 32> Digest::bytes() {
  std::array<std::uint8_t, 32> out;
  crypto_generichash_final(reinterpret_cast<crypto_generichash_state*>(state_.data()), out.data(), out.size());
  return out;
}

std::string Digest::hex() { return to_hex(bytes()); }

bool is_digest_hex(std::string_view text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

std::string digest_hex(ByteView bytes) {
  Digest digest;
  digest.update(bytes);
  return digest.hex();
}

std::uint64_t checksum(ByteView bytes, std::uint64_t seed) {
  return XXH3_64bits_withSeed(bytes.data(), bytes.size(), seed);
}

static_assert(sizeof(XXH3_state_t) <= 576 && alignof(XXH3_state_t) <= 64);

Checksum::Checksum() { XXH3_64bits_reset(new (state_.data()) XXH3_state_t); }

void Checksum::update(ByteView bytes) {
  XXH3_64bits_update(reinterpret_cast<XXH3_state_t*>(state_.data()), bytes.data(), bytes.size());
}

std::uint64_t Checksum::value() const {
  return XXH3_64bits_digest(reinterpret_cast<const XXH3_state_t*>(state_.data()));
}

std::string to_hex(ByteView bytes) {
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const auto b : bytes) fmt::format_to(std::back_inserter(out), "{:02x}", b);
  return out;
}

}  // namespace isthmus
