#include "store/disk_vault.h"

#include <algorithm>
#include <filesystem>

#include "base/input_file.h"
#include "base/output_file.h"

namespace isthmus::store {

namespace fs = std::filesystem;

namespace {

constexpr std::uint64_t kFileBytesMax = std::uint64_t{1} << 30;

// Whether something has that name; a folder is only the beginning of names. What cannot be looked at is an error.
Result<bool> holds(const std::string& path) {
  std::error_code error;
  const auto type = fs::status(path, error).type();
  if (type == fs::file_type::none) return fail("cannot look for {}: {}", path, error.message());
  return type != fs::file_type::not_found && type != fs::file_type::directory;
}

}  // namespace

Result<std::unique_ptr<Vault>> DiskVault::open(const std::string& folder) {
  std::error_code error;
  const bool there = fs::is_directory(folder, error);
  if (!there && !fs::create_directories(folder, error))
    return fail("cannot make the vault's folder {}: {}", folder, error ? error.message() : "a file has that name");
  if (!there) fs::permissions(folder, fs::perms::owner_all, error);
  return std::unique_ptr<Vault>(new DiskVault(folder));
}

Status DiskVault::put(const std::string& name, ByteView bytes) {
  if (!is_vault_name(name)) return fail("\"{}\" is no name for a vault", name);
  return write_output(folder_ + "/" + name, bytes, Existing::kReplaced, 0600);
}

Result<std::optional<Bytes>> DiskVault::get(const std::string& name) {
  if (!is_vault_name(name)) return fail("\"{}\" is no name for a vault", name);
  const std::string path = folder_ + "/" + name;
  const auto there = holds(path);
  if (!there) return tl::unexpected(there.error());
  if (!*there) return std::nullopt;
  const auto text = read_input(path, "a file of the vault", kFileBytesMax);
  if (!text) return tl::unexpected(text.error());
  const ByteView bytes = bytes_of(*text);
  return Bytes(bytes.begin(), bytes.end());
}

Result<std::vector<std::string>> DiskVault::list(const std::string& prefix) {
  const std::string root = fs::path(folder_) / "";
  std::vector<std::string> names;
  std::error_code error;
  for (auto at = fs::recursive_directory_iterator(folder_, error); at != fs::recursive_directory_iterator();
       at.increment(error)) {
    if (error) break;
    const std::string name = at->path().string().substr(root.size());
    if (at->is_regular_file(error) && name.starts_with(prefix) && is_vault_name(name)) names.push_back(name);
  }
  if (error) return fail("cannot read the vault's folder {}: {}", folder_, error.message());
  std::ranges::sort(names);
  return names;
}

Status DiskVault::remove(const std::string& name) {
  if (!is_vault_name(name)) return fail("\"{}\" is no name for a vault", name);
  const auto there = holds(folder_ + "/" + name);
  if (!there) return tl::unexpected(there.error());
  if (!*there) return {};
  std::error_code error;
  fs::remove(folder_ + "/" + name, error);
  if (error) return fail("cannot remove {} from the vault in {}: {}", name, folder_, error.message());
  // Folders that became empty; one that is not stays.
  for (fs::path folder = fs::path(name).parent_path(); !folder.empty(); folder = folder.parent_path())
    if (!fs::remove(fs::path(folder_) / folder, error)) break;
  return {};
}

}  // namespace isthmus::store
