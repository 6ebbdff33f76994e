#include "store/vault.h"

#include <algorithm>

#include "store/disk_vault.h"
#include "store/s3_vault.h"

namespace isthmus::store {

Result<std::unique_ptr<Vault>> open_vault(const std::string& place) {
  if (place.starts_with("s3://")) return S3Vault::open(place);
  if (place.find("://") != std::string::npos)
    return fail("\"{}\" is no place for a vault; expected a folder, or s3://BUCKET/PREFIX", place);
  return DiskVault::open(place);
}

bool is_vault_name(const std::string& name) {
  constexpr std::size_t kMost = 200;
  const auto fits = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
           c == '-' || c == '/';
  };
  if (name.empty() || name.size() > kMost || !std::ranges::all_of(name, fits)) return false;
  // No word is empty or begins with a dot, so none leads elsewhere.
  return ("/" + name + "/").find("//") == std::string::npos && ("/" + name).find("/.") == std::string::npos;
}

}  // namespace isthmus::store
