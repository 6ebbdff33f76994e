#pragma once

#include <memory>
#include <string>
#include <vector>

#include "store/vault.h"

namespace isthmus::store {

// Who may use a bucket, and where it is.
struct S3Account {
  std::string endpoint;  // http(s)://HOST[:PORT]
  std::string region;
  std::string key_id;
  std::string secret;
  std::string session_token;  // of temporary keys; empty: none
};
// What the environment says, by the names that all tools for S3 know: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
// AWS_SESSION_TOKEN, AWS_REGION (us-east-1) and AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL (Amazon's own). The error names
// what is missing.
Result<S3Account> s3_account_of_environment();

// A vault in an S3 bucket, any provider's, by libcurl, which signs requests (Signature Version 4, "AWS4-HMAC-SHA256").
// The bucket is a part of the path, as every server allows. What fails for a while is tried again for half a minute.
class S3Vault : public Vault {
 public:
  // `place`: s3://BUCKET or s3://BUCKET/PREFIX. Asks whether the bucket is there and may be listed.
  static Result<std::unique_ptr<Vault>> open(const std::string& place);
  ~S3Vault() override;

  Status put(const std::string& name, ByteView bytes) override;
  Result<std::optional<Bytes>> get(const std::string& name) override;
  Result<std::vector<std::string>> list(const std::string& prefix) override;
  Status remove(const std::string& name) override;
  std::string place() const override { return place_; }

 private:
  class Client;
  S3Vault(std::string place, std::string bucket, std::string prefix, std::unique_ptr<Client> client);
  std::string path_of(const std::string& name) const;

  const std::string place_;
  const std::string bucket_;
  const std::string prefix_;  // empty, or ends with '/'
  const std::unique_ptr<Client> client_;
};

}  // namespace isthmus::store
