#include "base/identity.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace isthmus {
namespace {

namespace fs = std::filesystem;

class IdentityTest : public ::testing::Test {
 protected:
  void SetUp() override { fs::create_directories(folder_); }
  void TearDown() override { fs::remove_all(folder_); }
  const std::string folder_ = ::testing::TempDir() + "/isthmus-identity-" + std::to_string(::getpid());
  const std::string path_ = folder_ + "/identity.key";
};

TEST_F(IdentityTest, IsMadeOnceAndKept) {
  const auto first = Identity::keep(path_);
  ASSERT_TRUE(first) << first.error().message;
  struct stat info {};
  ASSERT_EQ(::stat(path_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  const auto again = Identity::keep(path_);
  ASSERT_TRUE(again);
  EXPECT_EQ(again->key(), first->key());
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), {}), 1);
  const auto other = Identity::keep(folder_ + "/other.key");
  ASSERT_TRUE(other);
  EXPECT_NE(other->key(), first->key());
}

TEST_F(IdentityTest, SignsWhatNobodyElseCan) {
  const Identity one = Identity::fresh(), other = Identity::fresh();
  const auto signature = one.sign(bytes_of("what was said"));
  EXPECT_TRUE(signed_by(one.key(), bytes_of("what was said"), signature));
  EXPECT_FALSE(signed_by(one.key(), bytes_of("what was not"), signature));
  EXPECT_FALSE(signed_by(other.key(), bytes_of("what was said"), signature));
}

TEST_F(IdentityTest, RefusesAFileThatOthersMayReadOrThatIsNone) {
  ASSERT_TRUE(Identity::keep(path_));
  fs::permissions(path_, fs::perms::others_read, fs::perm_options::add);
  EXPECT_FALSE(Identity::keep(path_));
  fs::permissions(path_, fs::perms::others_read, fs::perm_options::remove);
  ASSERT_TRUE(Identity::keep(path_));
  std::ofstream(path_, std::ios::trunc) << "seed 12\n";
  const auto broken = Identity::keep(path_);
  ASSERT_FALSE(broken);
  EXPECT_NE(broken.error().message.find("is not an identity file"), std::string::npos) << broken.error().message;
  EXPECT_FALSE(Identity::read(folder_ + "/none.key"));
  EXPECT_FALSE(Identity::keep(folder_));
}

}  // namespace
}  // namespace isthmus
