#include "store/s3_vault.h"

#include <curl/curl.h>
#include <sodium.h>

#include <boost/property_tree/ptree.hpp>
#include <boost/property_tree/xml_parser.hpp>
#include <chrono>
#include <cstdlib>
#include <mutex>
#include <sstream>
#include <string_view>
#include <thread>
#include <utility>

#include "base/digest.h"
#include "base/plain_text.h"

namespace isthmus::store {

namespace {

constexpr std::size_t kAnswerBytesMax = 64 << 20;
// Of one list, which a server may make as long as it likes.
constexpr std::size_t kNamesMax = 1'000'000, kPagesMax = 10'000;
constexpr int kDeepest = 8;
constexpr std::size_t kSaidMax = 200;
constexpr long kConnectSeconds = 10;
// A transfer of fewer bytes a second, for so many seconds, has stalled.
constexpr long kSlow = 1000, kSlowSeconds = 20;
constexpr std::chrono::milliseconds kFirstPause{500};
constexpr std::chrono::seconds kTryFor{30}, kTryAtFirst{2};

std::string in_environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

struct Answer {
  long code = 0;
  std::string body;
  std::string trouble;  // there was no answer
  bool found() const { return code == 200 || code == 204; }
  bool passes() const { return code == 0 || code == 429 || code >= 500; }
};

std::size_t take(char* data, std::size_t one, std::size_t count, void* body) {
  auto& text = *static_cast<std::string*>(body);
  if (text.size() + one * count > kAnswerBytesMax) return 0;
  text.append(data, one * count);
  return one * count;
}

std::string sha256_hex(ByteView bytes) {
  std::array<std::uint8_t, crypto_hash_sha256_BYTES> hash;
  crypto_hash_sha256(hash.data(), bytes.data(), bytes.size());
  return to_hex(hash);
}

// An answer is a few elements deep. The reader calls itself for each, so a stranger could use the stack up. Comments,
// types and CDATA could hide elements from this count, and no answer has them.
bool is_shallow(std::string_view xml) {
  int depth = 0;
  for (std::size_t at = xml.find('<'); at != xml.npos; at = xml.find('<', at)) {
    const char next = at + 1 < xml.size() ? xml[at + 1] : '!';
    if (next == '!' || (next != '/' && next != '?' && ++depth > kDeepest)) return false;
    if (next == '/') --depth;
    if (next == '?') {
      at = xml.find("?>", at);
      if (at == xml.npos) return true;
      continue;
    }
    char quote = 0;
    while (++at < xml.size() && (quote != 0 || xml[at] != '>'))
      if (xml[at] == quote)
        quote = 0;
      else if (quote == 0 && (xml[at] == '"' || xml[at] == '\''))
        quote = xml[at];
    if (at < xml.size() && next != '/' && xml[at - 1] == '/') --depth;
  }
  return true;
}

boost::property_tree::ptree read_answer(const std::string& xml) {
  if (!is_shallow(xml)) throw boost::property_tree::ptree_error("it is nested too deep");
  std::istringstream text(xml);
  boost::property_tree::ptree tree;
  boost::property_tree::read_xml(text, tree);
  return tree;
}

// Its errors are XML with a code and a sentence; empty: this is none.
std::string error_code(const Answer& answer) {
  try {
    return read_answer(answer.body).get<std::string>("Error.Code");
  } catch (const boost::property_tree::ptree_error&) {
    return "";
  }
}

// What the server says is wrong.
std::string said(const Answer& answer) {
  if (!answer.trouble.empty()) return answer.trouble;
  const std::string code = error_code(answer);
  if (code.empty()) return fmt::format("status {}", answer.code);
  const auto message = read_answer(answer.body).get<std::string>("Error.Message", "");
  return fmt::format("{} ({})", plain_text(code, kSaidMax), plain_text(message, kSaidMax));
}

// Nothing has that name; without the bucket nobody knows.
bool is_missing(const Answer& answer) { return answer.code == 404 && error_code(answer) != "NoSuchBucket"; }

}  // namespace

Result<S3Account> s3_account_of_environment() {
  S3Account account;
  account.key_id = in_environment("AWS_ACCESS_KEY_ID");
  account.secret = in_environment("AWS_SECRET_ACCESS_KEY");
  account.session_token = in_environment("AWS_SESSION_TOKEN");
  account.region = in_environment("AWS_REGION");
  if (account.region.empty()) account.region = "us-east-1";
  account.endpoint = in_environment("AWS_ENDPOINT_URL_S3");
  if (account.endpoint.empty()) account.endpoint = in_environment("AWS_ENDPOINT_URL");
  if (account.endpoint.empty()) account.endpoint = fmt::format("https://s3.{}.amazonaws.com", account.region);
  while (account.endpoint.ends_with('/')) account.endpoint.pop_back();
  if (account.key_id.empty() || account.secret.empty())
    return fail("{} is not set; a vault in a bucket needs AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
                account.key_id.empty() ? "AWS_ACCESS_KEY_ID" : "AWS_SECRET_ACCESS_KEY");
  if (!account.endpoint.starts_with("https://") && !account.endpoint.starts_with("http://"))
    return fail("AWS_ENDPOINT_URL_S3 is \"{}\"; expected http(s)://HOST[:PORT]", account.endpoint);
  return account;
}

// One connection, kept open between requests.
class S3Vault::Client {
 public:
  explicit Client(S3Account account) : account_(std::move(account)) {
    static std::once_flag once;
    std::call_once(once, [] { curl_global_init(CURL_GLOBAL_DEFAULT); });
    curl_ = curl_easy_init();
  }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;
  ~Client() {
    if (curl_) curl_easy_cleanup(curl_);
  }

  // How long what fails is tried again.
  void be_patient(std::chrono::seconds patience) { patience_ = patience; }
  const std::string& endpoint() const { return account_.endpoint; }

  // `target`: a path and a query, both encoded, the query's words in order.
  Answer ask(const char* method, const std::string& target, ByteView body = {}) {
    const auto give_up = std::chrono::steady_clock::now() + patience_;
    auto pause = kFirstPause;
    while (true) {
      Answer answer = once(method, target, body);
      if (!answer.passes() || std::chrono::steady_clock::now() + pause > give_up) return answer;
      std::this_thread::sleep_for(pause);
      pause *= 2;
    }
  }

 private:
  Answer once(const char* method, const std::string& target, ByteView body) {
    Answer answer;
    if (!curl_) {
      answer.trouble = "libcurl cannot be used";
      return answer;
    }
    curl_easy_reset(curl_);
    curl_slist* headers = curl_slist_append(nullptr, ("x-amz-content-sha256: " + sha256_hex(body)).c_str());
    if (!account_.session_token.empty())
      headers = curl_slist_append(headers, ("x-amz-security-token: " + account_.session_token).c_str());
    headers = curl_slist_append(headers, "Content-Type: application/octet-stream");
    headers = curl_slist_append(headers, "Expect:");
    curl_easy_setopt(curl_, CURLOPT_URL, (account_.endpoint + target).c_str());
    curl_easy_setopt(curl_, CURLOPT_CUSTOMREQUEST, method);
    curl_easy_setopt(curl_, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl_, CURLOPT_AWS_SIGV4, ("aws:amz:" + account_.region + ":s3").c_str());
    curl_easy_setopt(curl_, CURLOPT_USERPWD, (account_.key_id + ":" + account_.secret).c_str());
    curl_easy_setopt(curl_, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl_, CURLOPT_CONNECTTIMEOUT, kConnectSeconds);
    curl_easy_setopt(curl_, CURLOPT_LOW_SPEED_LIMIT, kSlow);
    curl_easy_setopt(curl_, CURLOPT_LOW_SPEED_TIME, kSlowSeconds);
    curl_easy_setopt(curl_, CURLOPT_WRITEFUNCTION, take);
    curl_easy_setopt(curl_, CURLOPT_WRITEDATA, &answer.body);
    // libcurl hashes what is posted, so a body is posted whatever the method. Servers want to know the length of an
    // empty one, too.
    if (std::string_view(method) == "PUT") {
      curl_easy_setopt(curl_, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(body.size()));
      curl_easy_setopt(curl_, CURLOPT_POSTFIELDS, body.empty() ? "" : reinterpret_cast<const char*>(body.data()));
    }
    const CURLcode done = curl_easy_perform(curl_);
    curl_slist_free_all(headers);
    if (done == CURLE_OK)
      curl_easy_getinfo(curl_, CURLINFO_RESPONSE_CODE, &answer.code);
    else
      answer.trouble = curl_easy_strerror(done);
    return answer;
  }

  const S3Account account_;
  std::chrono::seconds patience_ = kTryAtFirst;
  CURL* curl_ = nullptr;
};

S3Vault::S3Vault(std::string place, std::string bucket, std::string prefix, std::unique_ptr<Client> client)
    : place_(std::move(place)), bucket_(std::move(bucket)), prefix_(std::move(prefix)), client_(std::move(client)) {}
S3Vault::~S3Vault() = default;

Result<std::unique_ptr<Vault>> S3Vault::open(const std::string& place) {
  const std::string path = place.substr(std::min(place.size(), std::string("s3://").size()));
  const std::string bucket = path.substr(0, path.find('/'));
  std::string prefix = bucket.size() < path.size() ? path.substr(bucket.size() + 1) : "";
  while (prefix.ends_with('/')) prefix.pop_back();
  if (!place.starts_with("s3://") || !is_vault_name(bucket) || (!prefix.empty() && !is_vault_name(prefix)))
    return fail("\"{}\" is no place in a bucket; expected s3://BUCKET/PREFIX, of letters, digits, '.', '_' and '-'",
                place);
  auto account = s3_account_of_environment();
  if (!account) return tl::unexpected(account.error());
  if (!prefix.empty()) prefix += '/';
  auto vault =
      std::unique_ptr<S3Vault>(new S3Vault(place, bucket, prefix, std::make_unique<Client>(std::move(*account))));
  if (auto there = vault->list("run"); !there) return tl::unexpected(there.error());
  vault->client_->be_patient(kTryFor);
  return std::unique_ptr<Vault>(std::move(vault));
}

std::string S3Vault::path_of(const std::string& name) const { return "/" + bucket_ + "/" + prefix_ + name; }

Status S3Vault::put(const std::string& name, ByteView bytes) {
  if (!is_vault_name(name)) return fail("\"{}\" is no name for a vault", name);
  const Answer answer = client_->ask("PUT", path_of(name), bytes);
  if (answer.found()) return {};
  return fail("cannot put {} into {} at {}: {}", name, place_, client_->endpoint(), said(answer));
}

Result<std::optional<Bytes>> S3Vault::get(const std::string& name) {
  if (!is_vault_name(name)) return fail("\"{}\" is no name for a vault", name);
  const Answer answer = client_->ask("GET", path_of(name));
  if (is_missing(answer)) return std::nullopt;
  if (!answer.found()) return fail("cannot get {} from {} at {}: {}", name, place_, client_->endpoint(), said(answer));
  const ByteView bytes = bytes_of(answer.body);
  return Bytes(bytes.begin(), bytes.end());
}

Result<std::vector<std::string>> S3Vault::list(const std::string& prefix) {
  const auto encoded = [](const std::string& text) {
    char* escaped = curl_easy_escape(nullptr, text.data(), static_cast<int>(text.size()));
    std::string out = escaped ? escaped : "";
    curl_free(escaped);
    return out;
  };
  const auto cannot = [&](const std::string& why) {
    return fail("cannot list {} at {}: {}", place_, client_->endpoint(), why);
  };
  std::vector<std::string> names;
  std::string token;
  for (std::size_t pages = 1;; ++pages) {
    const std::string from = token.empty() ? "" : "continuation-token=" + encoded(token) + "&";
    const Answer answer =
        client_->ask("GET", "/" + bucket_ + "?" + from + "list-type=2&prefix=" + encoded(prefix_ + prefix));
    if (!answer.found()) return cannot(said(answer));
    try {
      const auto tree = read_answer(answer.body);
      for (const auto& [kind, entry] : tree.get_child("ListBucketResult")) {
        if (kind != "Contents") continue;
        const auto key = entry.get<std::string>("Key");
        if (key.starts_with(prefix_ + prefix) && is_vault_name(key.substr(prefix_.size())))
          names.push_back(key.substr(prefix_.size()));
      }
      if (tree.get<std::string>("ListBucketResult.IsTruncated", "false") != "true") break;
      token = tree.get<std::string>("ListBucketResult.NextContinuationToken");
    } catch (const boost::property_tree::ptree_error& error) {
      return cannot(fmt::format("its answer is no list of a bucket: {}", plain_text(error.what(), kSaidMax)));
    }
    if (token.empty()) return cannot("its answer does not say where it goes on");
    if (names.size() > kNamesMax || pages >= kPagesMax)
      return cannot(fmt::format("it does not end; expected at most {} names", kNamesMax));
  }
  std::ranges::sort(names);
  return names;
}

Status S3Vault::remove(const std::string& name) {
  if (!is_vault_name(name)) return fail("\"{}\" is no name for a vault", name);
  const Answer answer = client_->ask("DELETE", path_of(name));
  if (answer.found() || is_missing(answer)) return {};
  return fail("cannot remove {} from {} at {}: {}", name, place_, client_->endpoint(), said(answer));
}

}  // namespace isthmus::store
