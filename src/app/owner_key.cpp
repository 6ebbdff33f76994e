#include "app/owner_key.h"

#include <filesystem>

#include "base/digest.h"
#include "record/line_file.h"
#include "transport/keys.h"

namespace isthmus::app {

namespace {

std::string public_half(const transport::KeyPair& keys) { return fmt::format("public {}\n", to_hex(keys.public_key)); }

}  // namespace

Status make_owner_key(const record::RunFolder& folder, const std::string& key_file) {
  std::error_code error;
  if (std::filesystem::exists(folder.owner_public_key(), error)) return {};
  if (!key_file.empty()) {
    const auto own = transport::read_key_file(key_file);
    if (!own) return tl::unexpected(own.error());
    return record::write_whole(folder.owner_public_key(), public_half(*own));
  }
  // The key file comes first: without it nobody could ever be the owner.
  transport::KeyPair keys = transport::new_key_pair();
  if (std::filesystem::exists(folder.owner_key(), error)) {
    const auto there = transport::read_key_file(folder.owner_key());
    if (!there) return tl::unexpected(there.error());
    keys = *there;
  } else if (auto written = transport::write_key_file(folder.owner_key(), keys); !written) {
    return written;
  }
  return record::write_whole(folder.owner_public_key(), public_half(keys));
}

Result<store::VaultSecret> vault_secret(const record::RunFolder& folder, const std::string& key_file) {
  const auto keys = transport::read_key_file(key_file.empty() ? folder.owner_key() : key_file);
  if (!keys) return tl::unexpected(keys.error());
  Digest digest;
  digest.update(bytes_of("isthmus vault secret"));
  digest.update(keys->secret_key);
  return digest.bytes();
}

Status check_owner(const record::RunFolder& folder, const std::string& key_file) {
  const auto expected = record::read_whole(folder.owner_public_key(), record::kSummaryBytesMax);
  if (!expected)
    return fail(
        "the run in {} has no owner: {}; it was begun by an older version, `isthmus train --resume` gives it one",
        folder.path, expected.error().message);
  const std::string path = key_file.empty() ? folder.owner_key() : key_file;
  const auto keys = transport::read_key_file(path);
  if (!keys)
    return fail(
        "only its owner may put the stages of the run in {} together: {}; --owner-key FILE names the owner.key that "
        "was "
        "written when the run began",
        folder.path, keys.error().message);
  if (public_half(*keys) != *expected)
    return fail(
        "{} is not the key of the owner of the run in {}: its public half is {}, {} says {}; --owner-key FILE names "
        "the "
        "owner.key that was written when the run began",
        path, folder.path, to_hex(keys->public_key), folder.owner_public_key(),
        expected->substr(0, expected->find('\n')));
  return {};
}

}  // namespace isthmus::app
