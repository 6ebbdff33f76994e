#include "wire/keys.h"

#include <fcntl.h>
#include <sodium.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "base/digest.h"

namespace isthmus {

namespace {

bool from_hex(const std::string& hex, std::array<std::uint8_t, 32>& out) {
  std::size_t length = 0;
  return hex.size() == 64 &&
         sodium_hex2bin(out.data(), out.size(), hex.data(), hex.size(), nullptr, &length, nullptr) == 0 &&
         length == out.size();
}

}  // namespace

KeyPair new_key_pair() {
  KeyPair keys;
  crypto_box_keypair(keys.public_key.data(), keys.secret_key.data());
  return keys;
}

Status write_key_file(const std::string& path, const KeyPair& keys) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) return fail("cannot write the key file {}: {}", path, std::strerror(errno));
  const std::string text =
      fmt::format("secret {}\npublic {}\n", to_hex(keys.secret_key), to_hex(keys.public_key));
  const bool written = ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()) && ::fsync(fd) == 0;
  const int error = errno;
  ::close(fd);
  if (written) return {};
  ::unlink(path.c_str());
  return fail("cannot write the key file {}: {}", path, std::strerror(error));
}

Result<KeyPair> read_key_file(const std::string& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) return fail("there is no key file {}: {}", path, std::strerror(errno));
  if ((info.st_mode & 077) != 0)
    return fail("key file {} can be read by others (mode {:o}); chmod 600 it, or make a new key", path,
                info.st_mode & 0777);
  std::ifstream in(path);
  std::string word, secret, word2, open_key;
  in >> word >> secret >> word2 >> open_key;
  KeyPair keys;
  if (word != "secret" || word2 != "public" || !from_hex(secret, keys.secret_key) ||
      !from_hex(open_key, keys.public_key))
    return fail("{} is not a key file: expected 'secret' and 'public', each with 64 hexadecimal digits", path);
  PublicKey derived{};
  crypto_scalarmult_base(derived.data(), keys.secret_key.data());
  if (derived != keys.public_key) return fail("the two keys in {} do not belong together", path);
  return keys;
}

}  // namespace isthmus
