#include "base/identity.h"

#include <fcntl.h>
#include <sodium.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <sstream>

#include "base/digest.h"
#include "base/input_file.h"

namespace isthmus {

namespace {

constexpr std::uint64_t kIdentityFileBytesMax = 4096;

// Beside the file and then linked to its name: never half of one, and never over one that is there.
Status write_new(const std::string& path, const std::string& text) {
  const std::string beside = fmt::format("{}.{}.new", path, ::getpid());
  const int fd = ::open(beside.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) return fail("cannot write the identity file {}: {}", path, std::strerror(errno));
  bool written = ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()) && ::fsync(fd) == 0;
  int error = errno;
  ::close(fd);
  if (written && ::link(beside.c_str(), path.c_str()) != 0 && errno != EEXIST) {
    written = false;
    error = errno;
  }
  ::unlink(beside.c_str());
  if (!written) return fail("cannot write the identity file {}: {}", path, std::strerror(error));
  return {};
}

}  // namespace

Identity Identity::from_seed(const Seed& seed) {
  Identity identity;
  identity.seed_ = seed;
  crypto_sign_ed25519_seed_keypair(identity.key_.data(), identity.secret_.data(), seed.data());
  return identity;
}

Identity Identity::fresh() {
  Seed seed;
  randombytes_buf(seed.data(), seed.size());
  return from_seed(seed);
}

Result<Identity> Identity::keep(const std::string& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) {
    if (errno != ENOENT) return fail("cannot read the identity file {}: {}", path, std::strerror(errno));
    const Identity made = fresh();
    const std::string text = fmt::format("seed {}\npublic {}\n", to_hex(made.seed_), to_hex(made.key_));
    if (auto written = write_new(path, text); !written) return tl::unexpected(written.error());
  }
  return read(path);
}

Result<Identity> Identity::read(const std::string& path) {
  const auto text = read_secret(path, "an identity file", kIdentityFileBytesMax);
  if (!text) return tl::unexpected(text.error());
  std::istringstream in(*text);
  std::string word, seed_hex, word2, key_hex;
  in >> word >> seed_hex >> word2 >> key_hex;
  Seed seed;
  IdentityKey key;
  if (word != "seed" || word2 != "public" || !from_hex(seed_hex, seed) || !from_hex(key_hex, key))
    return fail(
        "{} is not an identity file: expected 'seed' and 'public', each with 64 hexadecimal digits; restore it, or "
        "remove it to become somebody new",
        path);
  const Identity identity = from_seed(seed);
  if (identity.key() != key) return fail("the two halves in the identity file {} do not belong together", path);
  return identity;
}

Signature Identity::sign(ByteView message) const {
  Signature signature;
  crypto_sign_ed25519_detached(signature.data(), nullptr, message.data(), message.size(), secret_.data());
  return signature;
}

std::array<std::uint8_t, 32> Identity::curve_secret() const {
  std::array<std::uint8_t, 32> secret;
  crypto_sign_ed25519_sk_to_curve25519(secret.data(), secret_.data());
  return secret;
}

bool signed_by(const IdentityKey& key, ByteView message, const Signature& signature) {
  return crypto_sign_ed25519_verify_detached(signature.data(), message.data(), message.size(), key.data()) == 0;
}

Result<std::array<std::uint8_t, 32>> curve_key_of(const IdentityKey& key) {
  std::array<std::uint8_t, 32> curve;
  if (crypto_sign_ed25519_pk_to_curve25519(curve.data(), key.data()) != 0)
    return fail("{} is not an Ed25519 key", to_hex(key));
  return curve;
}

template <std::size_t n>
bool from_hex(std::string_view hex, std::array<std::uint8_t, n>& out) {
  std::size_t length = 0;
  return hex.size() == 2 * n && sodium_hex2bin(out.data(), n, hex.data(), hex.size(), nullptr, &length, nullptr) == 0 &&
         length == n;
}
template bool from_hex<32>(std::string_view, std::array<std::uint8_t, 32>&);
template bool from_hex<64>(std::string_view, std::array<std::uint8_t, 64>&);

}  // namespace isthmus
