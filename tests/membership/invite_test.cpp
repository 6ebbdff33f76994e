#include "app/invite.h"

#include <gmock/gmock.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace isthmus::app {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

Invite some_invite() {
  return {0xabc,
          Identity::fresh().key(),
          transport::new_key_pair(),
          1'800'000'000,
          StageId(3),
          {"127.0.0.1:4002", "[2001:db8::1]:4002"}};
}

TEST(InviteTest, ComesBackFromItsText) {
  for (const bool plain : {false, true}) {
    Invite invite = some_invite();
    if (plain) invite.stage.reset(), invite.expires_s = 0, invite.doors.resize(1);
    const std::string text = invite_text(invite);
    EXPECT_TRUE(text.starts_with("isthmus1"));
    EXPECT_EQ(text.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"),
              std::string::npos);
    EXPECT_LT(text.size(), 220u);
    const auto back = read_invite("  " + text + " \r\n");
    ASSERT_TRUE(back) << back.error().message;
    EXPECT_TRUE(*back == invite);
    EXPECT_EQ(back->key.public_key, invite.key.public_key);
  }
}

TEST(InviteTest, IsRefusedWhenCutChangedOrSomethingElse) {
  const std::string text = invite_text(some_invite());
  for (std::size_t size = 0; size < text.size(); ++size) {
    const auto cut = read_invite(text.substr(0, size));
    ASSERT_FALSE(cut) << size;
    EXPECT_FALSE(cut.error().message.empty());
  }
  for (std::size_t at = 8; at < text.size(); ++at) {
    std::string changed = text;
    changed[at] = changed[at] == 'A' ? 'B' : 'A';
    EXPECT_FALSE(read_invite(changed)) << at;
  }
  EXPECT_THAT(read_invite(text + "AAAA").error().message, HasSubstr("copy it again"));
  EXPECT_THAT(read_invite("hello").error().message, HasSubstr("one begins with isthmus1"));
  EXPECT_THAT(read_invite("isthmus2" + text.substr(8)).error().message, HasSubstr("install the version"));
  EXPECT_THAT(read_invite("isthmus1" + std::string(5000, 'A')).error().message, HasSubstr("longer than"));
}

class InviteFileTest : public ::testing::Test {
 protected:
  void SetUp() override { fs::create_directories(folder_); }
  void TearDown() override { fs::remove_all(folder_); }
  const std::string folder_ = ::testing::TempDir() + "/isthmus-join-" + std::to_string(::getpid());
  const std::string path_ = folder_ + "/join";
};

TEST_F(InviteFileTest, ComesBackAndOnlyItsOwnerMayReadIt) {
  const Invite invite = some_invite();
  EXPECT_FALSE(read_invite_file(path_));
  EXPECT_FALSE(read_invite_file(folder_));
  ASSERT_TRUE(write_invite_file(path_, invite));
  struct stat info {};
  ASSERT_EQ(::stat(path_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  const auto back = read_invite_file(path_);
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_TRUE(*back == invite);
  fs::permissions(path_, fs::perms(0644));
  EXPECT_FALSE(read_invite_file(path_));
  fs::permissions(path_, fs::perms(0600));
  for (const std::string& other : {std::string(), std::string(5000, 'x'), invite_text(invite).substr(0, 60)}) {
    std::ofstream(path_) << other;
    EXPECT_FALSE(read_invite_file(path_)) << other;
  }
}

}  // namespace
}  // namespace isthmus::app
