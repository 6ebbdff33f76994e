#include "app/export_folder.h"

#include <fcntl.h>

#include <algorithm>
#include <cstdio>
#include <iterator>
#include <string>
#include <system_error>

namespace isthmus::app {

namespace {

namespace fs = std::filesystem;

constexpr const char* kExportedNames[] = {
    "config.json",     "generation_config.json", "model.safetensors.index.json", "modeling_isthmus.py",
    "tokenizer.model", "tokenizer.json",         "tokenizer_config.json"};

// Whether an export has made this file.
bool is_exported(const fs::directory_entry& entry) {
  std::error_code error;
  const std::string name = entry.path().filename();
  if (entry.symlink_status(error).type() != fs::file_type::regular) return false;
  return (name.starts_with("model") && name.ends_with(".safetensors")) ||
         std::ranges::find(kExportedNames, name) != std::end(kExportedNames);
}

}  // namespace

Status check_holds_export(const fs::path& folder) {
  std::error_code error;
  fs::directory_iterator entry(folder, error);
  for (; !error && entry != fs::directory_iterator(); entry.increment(error))
    if (!is_exported(*entry))
      return fail("{} holds {}, which no export has written; choose another folder, or remove it", folder.string(),
                  entry->path().filename().string());
  if (error) return fail("cannot look into the folder {}: {}", folder.string(), error.message());
  return {};
}

Result<Placed> place_export(const fs::path& beside, const fs::path& target, Existing existing) {
  std::error_code error;
  fs::rename(beside, target, error);
  if (!error) return Placed::kNew;
  const auto failed = fail("cannot rename {} to {}: {}", beside.string(), target.string(), error.message());
  if (existing == Existing::kRefused) return failed;
  const auto exchange = [&] {
    return ::renameat2(AT_FDCWD, beside.c_str(), AT_FDCWD, target.c_str(), RENAME_EXCHANGE) == 0;
  };
  // Somebody may have put something there since it was looked at, and may do so until it is out of the way.
  if (auto checked = check_holds_export(target); !checked) return tl::unexpected(checked.error());
  if (!exchange()) return failed;
  auto checked = check_holds_export(beside);
  if (checked || !exchange()) return Placed::kExchanged;
  return fail("something was put into {} while it was replaced; choose another folder", target.string());
}

}  // namespace isthmus::app
