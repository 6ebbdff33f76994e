#include "app/join_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace isthmus::app {
namespace {

namespace fs = std::filesystem;

class JoinFileTest : public ::testing::Test {
 protected:
  void SetUp() override { fs::create_directories(folder_); }
  void TearDown() override { fs::remove_all(folder_); }
  const std::string folder_ = ::testing::TempDir() + "/isthmus-join-" + std::to_string(::getpid());
  const std::string path_ = folder_ + "/join";
  const JoinFile join_{0xabc, Identity::fresh().key(), "tcp://127.0.0.1:4000", transport::new_key_pair()};
};

TEST_F(JoinFileTest, ComesBackAndOnlyItsOwnerMayReadIt) {
  ASSERT_TRUE(write_join_file(path_, join_));
  struct stat info {};
  ASSERT_EQ(::stat(path_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  const auto back = read_join_file(path_);
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_TRUE(*back == join_);
  EXPECT_EQ(back->invite.public_key, join_.invite.public_key);
}

TEST_F(JoinFileTest, IsRefusedIfOthersMayReadItOrItIsSomethingElse) {
  EXPECT_FALSE(read_join_file(path_));
  EXPECT_FALSE(read_join_file(folder_));
  ASSERT_TRUE(write_join_file(path_, join_));
  std::ifstream in(path_);
  const std::string text((std::istreambuf_iterator<char>(in)), {});
  fs::permissions(path_, fs::perms(0644));
  EXPECT_FALSE(read_join_file(path_));
  fs::permissions(path_, fs::perms(0600));
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string other = text;
    return other.replace(other.find(from), from.size(), to);
  };
  for (const std::string& other :
       {std::string(), std::string(5000, 'x'), text.substr(0, 60), with("join 1", "join 2"), with("tcp://", "ipc://"),
        with("run 0", "run x"), with("seed ", "seed 1"), with("coordinator ", "coordinator z")}) {
    std::ofstream(path_) << other;
    EXPECT_FALSE(read_join_file(path_)) << other;
  }
}

}  // namespace
}  // namespace isthmus::app
