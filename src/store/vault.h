#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace isthmus::store {

// A place where named bytes last longer than any worker's machine: a folder (store/disk_vault.h) or an S3 bucket
// (store/s3_vault.h). It need not be trusted with what it holds (store/sealed_checkpoints.h). Names are words of
// [A-Za-z0-9._-] with '/' between them. One thread at a time; calls wait for the disk or the network.
class Vault {
 public:
  virtual ~Vault() = default;

  // All of it is there afterwards, in place of what was there under the name, or an error and what was there.
  virtual Status put(const std::string& name, ByteView bytes) = 0;
  // Nothing: there is no such name.
  virtual Result<std::optional<Bytes>> get(const std::string& name) = 0;
  // All names that begin with `prefix`, in order.
  virtual Result<std::vector<std::string>> list(const std::string& prefix) = 0;
  // Also of what is not there.
  virtual Status remove(const std::string& name) = 0;
  // Where it is, for people.
  virtual std::string place() const = 0;
};

// FOLDER, or s3://BUCKET/PREFIX, whose keys and endpoint the environment holds (store/s3_vault.h). Errors: nothing of
// that kind, or not to be reached; the message says what was expected.
Result<std::unique_ptr<Vault>> open_vault(const std::string& place);

// Whether it can be the name of something in a vault.
bool is_vault_name(const std::string& name);

}  // namespace isthmus::store
