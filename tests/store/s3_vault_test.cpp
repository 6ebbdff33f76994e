#include "store/s3_vault.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <mutex>
#include <optional>
#include <thread>

#include "store/s3_server.h"

namespace isthmus::store {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

// Answers the requests that come, one connection each, with the answers it was given; the last of them from then on.
class CannedServer {
 public:
  explicit CannedServer(std::vector<std::string> answers)
      : answers_(std::move(answers)), fd_(listen_on_loopback()), thread_([this] { serve(); }) {}
  CannedServer(const CannedServer&) = delete;
  CannedServer& operator=(const CannedServer&) = delete;
  ~CannedServer() {
    ends_ = true;
    thread_.join();
    ::close(fd_);
  }

  std::string endpoint() const { return fmt::format("http://127.0.0.1:{}", port_of(fd_)); }
  // What was asked so far, heads and bodies.
  std::vector<std::string> requests() {
    const std::lock_guard lock(mutex_);
    return requests_;
  }

  static std::string answer(int code, const std::string& body) {
    return fmt::format("HTTP/1.1 {} Canned\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{}", code, body.size(),
                       body);
  }
  static std::string list(const std::string& inside) {
    return answer(200,
                  "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
                  "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">" +
                      inside + "</ListBucketResult>");
  }
  static std::string name(const std::string& key) {
    return "<Contents><Key>" + key + "</Key><ETag>\"x\"</ETag><Size>1</Size></Contents>";
  }

 private:
  void serve() {
    while (!ends_) {
      pollfd ready{fd_, POLLIN, 0};
      if (::poll(&ready, 1, 20) <= 0) continue;
      const int connection = ::accept(fd_, nullptr, nullptr);
      std::string request;
      char some[4096];
      while (!is_whole(request)) {
        const ssize_t n = ::recv(connection, some, sizeof some, 0);
        if (n <= 0) break;
        request.append(some, static_cast<std::size_t>(n));
      }
      std::size_t index;
      {
        const std::lock_guard lock(mutex_);
        index = std::min(requests_.size(), answers_.size() - 1);
        requests_.push_back(request);
      }
      std::string_view left = answers_[index];
      while (!left.empty()) {
        const ssize_t n = ::send(connection, left.data(), left.size(), MSG_NOSIGNAL);
        if (n <= 0) break;
        left.remove_prefix(static_cast<std::size_t>(n));
      }
      ::close(connection);
    }
  }
  static bool is_whole(const std::string& request) {
    const auto head = request.find("\r\n\r\n");
    if (head == std::string::npos) return false;
    const std::string length = "\r\nContent-Length: ";
    const auto at = request.find(length);
    const std::size_t body = at < head ? std::stoul(request.substr(at + length.size())) : 0;
    return request.size() >= head + 4 + body;
  }

  const std::vector<std::string> answers_;
  const int fd_;
  std::atomic<bool> ends_ = false;
  std::mutex mutex_;
  std::vector<std::string> requests_;
  std::thread thread_;
};

class S3VaultTest : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const char* variable : {"AWS_SESSION_TOKEN", "AWS_REGION", "AWS_ENDPOINT_URL"}) ::unsetenv(variable);
    ::setenv("AWS_ACCESS_KEY_ID", "somebody", 1);
    ::setenv("AWS_SECRET_ACCESS_KEY", "a secret", 1);
    ::setenv("NO_PROXY", "127.0.0.1", 1);
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }
  static void use(const std::string& endpoint) { ::setenv("AWS_ENDPOINT_URL_S3", endpoint.c_str(), 1); }
  // What is wrong with the place; empty: nothing.
  static std::string trouble(const std::string& place) {
    const auto vault = S3Vault::open(place);
    return vault ? "" : vault.error().message;
  }
  static std::string no_list(const std::string& body) {
    CannedServer server({CannedServer::answer(200, body)});
    use(server.endpoint());
    const std::string what = trouble("s3://bucket/homes");
    EXPECT_THAT(what, StartsWith("cannot list s3://bucket/homes at " + server.endpoint() + ": "));
    return what;
  }
  const std::string folder_ = ::testing::TempDir() + "/isthmus-s3-vault-" + std::to_string(::getpid());
};

TEST_F(S3VaultTest, SaysWhatTheServerRefuses) {
  if (!S3Server::is_installed()) GTEST_SKIP() << S3Server::kHowToInstall;
  S3Server server;
  ASSERT_EQ(server.start(folder_ + "/s3", {"bucket"}), "");
  for (const auto& [variable, value] : server.environment()) ::setenv(variable.c_str(), value.c_str(), 1);

  EXPECT_EQ(trouble("s3://bucket"), "");
  EXPECT_THAT(trouble("s3://no-bucket/homes"),
              AllOf(StartsWith("cannot list s3://no-bucket/homes at " + server.endpoint() + ": NoSuchBucket")));
  auto vault = S3Vault::open("s3://bucket/homes");
  ASSERT_TRUE(vault);
  ASSERT_TRUE((*vault)->put("run/a", bytes_of("x")));
  // Without the bucket, nobody knows what is not there.
  fs::remove_all(folder_ + "/s3/bucket");
  const auto got = (*vault)->get("run/a");
  ASSERT_FALSE(got);
  EXPECT_THAT(got.error().message,
              StartsWith("cannot get run/a from s3://bucket/homes at " + server.endpoint() + ": NoSuchBucket"));
  EXPECT_FALSE((*vault)->remove("run/a"));
  fs::create_directories(folder_ + "/s3/bucket");

  ::setenv("AWS_SECRET_ACCESS_KEY", "another secret", 1);
  EXPECT_THAT(trouble("s3://bucket/homes"),
              StartsWith("cannot list s3://bucket/homes at " + server.endpoint() + ": SignatureDoesNotMatch"));
  ::setenv("AWS_ACCESS_KEY_ID", "nobody", 1);
  EXPECT_THAT(trouble("s3://bucket/homes"),
              StartsWith("cannot list s3://bucket/homes at " + server.endpoint() + ": InvalidAccessKeyId"));
}

TEST_F(S3VaultTest, SaysWhatIsMissingInTheEnvironment) {
  use("http://127.0.0.1:1");
  ::unsetenv("AWS_SECRET_ACCESS_KEY");
  EXPECT_THAT(trouble("s3://bucket"), StartsWith("AWS_SECRET_ACCESS_KEY is not set"));
  ::unsetenv("AWS_ACCESS_KEY_ID");
  EXPECT_THAT(trouble("s3://bucket"), StartsWith("AWS_ACCESS_KEY_ID is not set"));
  ::setenv("AWS_ACCESS_KEY_ID", "somebody", 1);
  ::setenv("AWS_SECRET_ACCESS_KEY", "a secret", 1);
  for (const char* endpoint : {"127.0.0.1:9000", "ftp://127.0.0.1", "file:///etc"}) {
    use(endpoint);
    EXPECT_EQ(trouble("s3://bucket"),
              fmt::format("AWS_ENDPOINT_URL_S3 is \"{}\"; expected http(s)://HOST[:PORT]", endpoint));
  }
}

TEST_F(S3VaultTest, RefusesWhatIsNoPlaceInABucket) {
  for (const char* place : {"s3://", "s3:///prefix", "s3://buck et", "s3://bucket/../other", "s3://bucket//x",
                            "s3://bucket?x", "s3://.hidden", "s3", "/folder"})
    EXPECT_THAT(trouble(place), AllOf(HasSubstr(fmt::format("\"{}\"", place)), HasSubstr("s3://BUCKET/PREFIX")));
}

TEST_F(S3VaultTest, SaysThatNobodyListens) {
  use(fmt::format("http://127.0.0.1:{}", free_port()));
  EXPECT_THAT(trouble("s3://bucket/homes"),
              AllOf(StartsWith("cannot list s3://bucket/homes at http://127.0.0.1:"), HasSubstr("connect to server")));
}

TEST_F(S3VaultTest, RefusesAnAnswerThatIsNoList) {
  EXPECT_THAT(no_list("\x01 garbage"), HasSubstr("its answer is no list of a bucket"));
  EXPECT_THAT(no_list(""), HasSubstr("its answer is no list of a bucket"));
  EXPECT_THAT(no_list("<html><body>hello</body></html>"), HasSubstr("its answer is no list of a bucket"));
  EXPECT_THAT(no_list("<ListBucketResult><Contents></Contents></ListBucketResult>"), HasSubstr("is no list"));
  EXPECT_THAT(no_list("<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>"), HasSubstr("is no list"));
  EXPECT_THAT(no_list("<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken/></ListBucketResult>"),
              HasSubstr("does not say where it goes on"));
}

// What reads XML calls itself for each element in an element.
TEST_F(S3VaultTest, RefusesAnAnswerThatWouldUseTheStackUp) {
  std::string plain, quoted, hidden, said = "<Error>";
  for (int i = 0; i < 300'000; ++i) {
    plain += "<a>";
    quoted += "<a b='/>'>";
    hidden += "<a><?x </a> <b/> ?>";
    said += "<a>";
  }
  for (const auto* body : {&plain, &quoted, &hidden}) EXPECT_THAT(no_list(*body), HasSubstr("nested too deep"));
  EXPECT_THAT(no_list("<!DOCTYPE a>" + plain), HasSubstr("nested too deep"));
  CannedServer server({CannedServer::answer(403, said)});
  use(server.endpoint());
  EXPECT_THAT(trouble("s3://bucket"), HasSubstr("status 403"));
}

TEST_F(S3VaultTest, TakesNoNamesThatAreNone) {
  CannedServer server({CannedServer::list(""),
                       CannedServer::list(CannedServer::name("homes/run/b") + CannedServer::name("homes/run/a") +
                                          CannedServer::name("homes/run/../../x") + CannedServer::name("other/run/a") +
                                          CannedServer::name("homes/runs") + CannedServer::name("homes/run/a b"))});
  use(server.endpoint());
  auto vault = S3Vault::open("s3://bucket/homes/");
  ASSERT_TRUE(vault) << vault.error().message;
  const auto names = (*vault)->list("run/");
  ASSERT_TRUE(names) << names.error().message;
  EXPECT_THAT(*names, ElementsAre("run/a", "run/b"));
}

TEST_F(S3VaultTest, AsksForTheNextPage) {
  CannedServer server(
      {CannedServer::list(""),
       CannedServer::list(CannedServer::name("a") +
                          "<IsTruncated>true</IsTruncated><NextContinuationToken>1/+=&amp;x</NextContinuationToken>"),
       CannedServer::list(CannedServer::name("b") + "<IsTruncated>false</IsTruncated>")});
  use(server.endpoint());
  auto vault = S3Vault::open("s3://bucket");
  ASSERT_TRUE(vault) << vault.error().message;
  EXPECT_EQ((*vault)->list(""), std::vector<std::string>({"a", "b"}));
  EXPECT_THAT(server.requests().back(),
              StartsWith("GET /bucket?continuation-token=1%2F%2B%3D%26x&list-type=2&prefix= HTTP/1.1\r\n"));
}

// What another answers may be shown to people.
TEST_F(S3VaultTest, ShowsOnlyPlainTextOfAServer) {
  CannedServer server({CannedServer::answer(
      403, "<Error><Code>Odd\x1b[2J</Code><Message>line\nline" + std::string(100'000, 'x') + "</Message></Error>")});
  use(server.endpoint());
  const std::string what = trouble("s3://bucket");
  EXPECT_THAT(what, AllOf(HasSubstr("Odd?[2J (line line"), Not(HasSubstr("\n"))));
  EXPECT_LT(what.size(), 1000u);
}

TEST_F(S3VaultTest, AsksAServerAgainThatIsBusy) {
  CannedServer server({CannedServer::answer(503, "<Error><Code>SlowDown</Code></Error>"), CannedServer::answer(503, ""),
                       CannedServer::list("")});
  use(server.endpoint());
  EXPECT_EQ(trouble("s3://bucket"), "");
  EXPECT_EQ(server.requests().size(), 3u);
}

TEST_F(S3VaultTest, SaysHowLongABodyIsAndSignsAllOfTheRequest) {
  ::setenv("AWS_SESSION_TOKEN", "for an hour", 1);
  ::setenv("AWS_REGION", "north", 1);
  CannedServer server({CannedServer::list(""), CannedServer::answer(200, "")});
  use(server.endpoint() + "/");
  auto vault = S3Vault::open("s3://bucket/homes");
  ASSERT_TRUE(vault) << vault.error().message;
  ASSERT_TRUE((*vault)->put("run/a", bytes_of("four")));
  const std::string full = server.requests().back();
  EXPECT_THAT(full, StartsWith("PUT /bucket/homes/run/a HTTP/1.1\r\n"));
  EXPECT_THAT(full, ::testing::EndsWith("\r\n\r\nfour"));
  EXPECT_THAT(full, HasSubstr("x-amz-security-token: for an hour\r\n"));
  EXPECT_THAT(full, HasSubstr("/north/s3/aws4_request"));
  EXPECT_THAT(full, ::testing::ContainsRegex("SignedHeaders=[^,]*host;x-amz-content-sha256;x-amz-date;"
                                             "x-amz-security-token"));
  EXPECT_THAT(full, Not(HasSubstr("a secret")));
  ASSERT_TRUE((*vault)->put("run/b", {}));
  EXPECT_THAT(server.requests().back(), HasSubstr("\r\nContent-Length: 0\r\n"));
}

}  // namespace
}  // namespace isthmus::store
