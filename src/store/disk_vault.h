#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "store/vault.h"

namespace isthmus::store {

// A vault in a folder: one file a name, of mode 0600.
class DiskVault : public Vault {
 public:
  // Makes the folder (0700) if there is none.
  static Result<std::unique_ptr<Vault>> open(const std::string& folder);

  Status put(const std::string& name, ByteView bytes) override;
  Result<std::optional<Bytes>> get(const std::string& name) override;
  Result<std::vector<std::string>> list(const std::string& prefix) override;
  Status remove(const std::string& name) override;
  std::string place() const override { return folder_; }

 private:
  explicit DiskVault(std::string folder) : folder_(std::move(folder)) {}
  const std::string folder_;
};

}  // namespace isthmus::store
