#include "app/admin.h"

#include <gmock/gmock.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "process/admin_socket.h"

namespace isthmus::app {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

TEST(AdminTest, WhatIsAskedComesBack) {
  const auto invite = decode_ask(encode_ask(AskInvite{3, 60, StageId(2)}));
  ASSERT_TRUE(invite) << invite.error().message;
  EXPECT_EQ(std::get<AskInvite>(*invite).uses, 3u);
  EXPECT_EQ(std::get<AskInvite>(*invite).expires_in_s, 60u);
  EXPECT_EQ(std::get<AskInvite>(*invite).stage, StageId(2));
  const auto revoke = decode_ask(encode_ask(AskRevoke{PeerId(7), "it lies", true}));
  ASSERT_TRUE(revoke) << revoke.error().message;
  EXPECT_EQ(std::get<AskRevoke>(*revoke).reason, "it lies");
  EXPECT_TRUE(decode_ask(encode_ask(AskPeers{})));
}

TEST(AdminTest, AnythingElseIsRefused) {
  for (const char* line : {"", "{", "[]", "{}", R"({"ask":3})", R"({"ask":"dance"})", R"({"ask":"peers","more":1})",
                           R"({"ask":"revoke","peer":-1,"reason":"","ban":false})", R"({"ask":"invite","uses":1})",
                           R"({"ask":"invite","uses":"many","expires_in_s":0,"stage":null})"}) {
    const auto ask = decode_ask(line);
    EXPECT_FALSE(ask) << line;
  }
}

class AdminSocketTest : public ::testing::Test {
 protected:
  // Longer than an address of a socket may be.
  void SetUp() override { fs::create_directories(folder_); }
  void TearDown() override { fs::remove_all(folder_); }
  const std::string folder_ =
      ::testing::TempDir() + "/isthmus-admin-" + std::to_string(::getpid()) + "/" + std::string(120, 'x');
};

TEST_F(AdminSocketTest, AnswersALineAndOnlyItsOwnerMayAsk) {
  EXPECT_THAT(process::ask_admin(folder_, "coordinator", "hello", seconds(1)).error().message,
              HasSubstr("no coordinator serves"));
  auto socket = process::AdminSocket::listen(folder_);
  ASSERT_TRUE(socket) << socket.error().message;
  struct stat info {};
  ASSERT_EQ(::stat((folder_ + "/admin").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  Result<std::string> answer = "";
  std::thread owner([&] { answer = process::ask_admin(folder_, "coordinator", "hello", seconds(60)); });
  for (bool answered = false; !answered;)
    for (const auto& request : socket->poll()) {
      EXPECT_EQ(request.line, "hello");
      socket->answer(request, std::string(100'000, 'a'));
      answered = true;
    }
  owner.join();
  ASSERT_TRUE(answer) << answer.error().message;
  EXPECT_EQ(answer->size(), 100'000u);
  // A line that never ends is hung up on.
  std::atomic<bool> over = false;
  std::thread flood([&] {
    answer = process::ask_admin(folder_, "coordinator", std::string(1 << 20, 'x'), seconds(60));
    over = true;
  });
  while (!over) EXPECT_TRUE(socket->poll().empty());
  flood.join();
  EXPECT_FALSE(answer);
  { const auto gone = std::move(*socket); }
  EXPECT_FALSE(fs::exists(folder_ + "/admin"));
}

TEST_F(AdminSocketTest, TakesThePlaceOfOneThatAKilledProcessLeft) {
  const fs::path place = fs::path(folder_).parent_path();
  const int left = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  (place / "admin").string().copy(address.sun_path, sizeof address.sun_path - 1);
  ASSERT_EQ(::bind(left, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  ::close(left);
  EXPECT_THAT(process::ask_admin(place, "coordinator", "hello", seconds(1)).error().message,
              HasSubstr("no coordinator serves"));
  EXPECT_TRUE(process::AdminSocket::listen(place));
  fs::remove(place / "admin");
  // What is no socket is somebody's, and stays.
  std::ofstream(place / "admin") << "mine";
  EXPECT_FALSE(process::AdminSocket::listen(place));
  EXPECT_EQ(fs::file_size(place / "admin"), 4u);
}

}  // namespace
}  // namespace isthmus::app
