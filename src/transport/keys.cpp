#include "transport/keys.h"

#include <fcntl.h>
#include <sodium.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <sstream>

#include "base/digest.h"
#include "base/input_file.h"

namespace isthmus::transport {

namespace {

constexpr std::uint64_t kKeyFileBytesMax = 4096;

}  // namespace

KeyPair new_key_pair() {
  KeyPair keys;
  crypto_box_keypair(keys.public_key.data(), keys.secret_key.data());
  return keys;
}

KeyPair key_pair_of(const std::array<std::uint8_t, 32>& secret_key) {
  KeyPair keys{{}, secret_key};
  crypto_scalarmult_base(keys.public_key.data(), keys.secret_key.data());
  return keys;
}

KeyPair key_pair_of(const Identity& identity) { return key_pair_of(identity.curve_secret()); }

Status write_key_file(const std::string& path, const KeyPair& keys) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) return fail("cannot write the key file {}: {}", path, std::strerror(errno));
  const std::string text = fmt::format("secret {}\npublic {}\n", to_hex(keys.secret_key), to_hex(keys.public_key));
  const bool written = ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()) && ::fsync(fd) == 0;
  const int error = errno;
  ::close(fd);
  if (written) return {};
  ::unlink(path.c_str());
  return fail("cannot write the key file {}: {}", path, std::strerror(error));
}

Result<KeyPair> read_key_file(const std::string& path) {
  const auto text = read_secret(path, "a key file", kKeyFileBytesMax);
  if (!text) return tl::unexpected(text.error());
  std::istringstream in(*text);
  std::string word, secret, word2, open_key;
  in >> word >> secret >> word2 >> open_key;
  KeyPair keys;
  if (word != "secret" || word2 != "public" || !from_hex(secret, keys.secret_key) ||
      !from_hex(open_key, keys.public_key))
    return fail("{} is not a key file: expected 'secret' and 'public', each with 64 hexadecimal digits", path);
  if (key_pair_of(keys.secret_key).public_key != keys.public_key)
    return fail("the two keys in {} do not belong together", path);
  return keys;
}

}  // namespace isthmus::transport
