#include "store/vault.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>

#include "store/s3_server.h"

namespace isthmus::store {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

Bytes bytes_from(std::string_view text) {
  const ByteView bytes = bytes_of(text);
  return {bytes.begin(), bytes.end()};
}

enum class Kind { kDisk, kS3 };

// What every vault is held to. S3 is a server of its own that checks signatures, one for all tests of a process.
class VaultTest : public ::testing::TestWithParam<Kind> {
 protected:
  static std::string all_folders() { return ::testing::TempDir() + "/isthmus-vault-" + std::to_string(::getpid()); }
  static void TearDownTestSuite() {
    server_.reset();
    fs::remove_all(all_folders());
  }

  void SetUp() override {
    const std::string name = fmt::format("vault-{}", ++vaults_);
    if (GetParam() == Kind::kDisk) {
      place_ = files_ = all_folders() + "/" + name;
    } else {
      if (!S3Server::is_installed()) GTEST_SKIP() << S3Server::kHowToInstall;
      if (!server_) {
        server_ = std::make_unique<S3Server>();
        ASSERT_EQ(server_->start(all_folders() + "/s3", {"bucket"}), "");
      }
      for (const auto& [variable, value] : server_->environment()) ::setenv(variable.c_str(), value.c_str(), 1);
      place_ = "s3://bucket/" + name;
      files_ = all_folders() + "/s3/bucket/" + name;
    }
    vault_ = open();
    ASSERT_TRUE(vault_);
  }

  std::unique_ptr<Vault> open() const {
    auto vault = open_vault(place_);
    EXPECT_TRUE(vault) << vault.error().message;
    return vault ? std::move(*vault) : nullptr;
  }
  void put(const std::string& name, const Bytes& bytes) {
    const auto status = vault_->put(name, bytes);
    ASSERT_TRUE(status) << status.error().message;
  }
  // Nothing: it is not there.
  std::optional<Bytes> get(const std::string& name) {
    auto bytes = vault_->get(name);
    EXPECT_TRUE(bytes) << bytes.error().message;
    return bytes ? *bytes : std::nullopt;
  }
  std::vector<std::string> list(const std::string& prefix) {
    auto names = vault_->list(prefix);
    EXPECT_TRUE(names) << names.error().message;
    return names ? *names : std::vector<std::string>{"none"};
  }

  std::string place_;
  std::string files_;  // where the files are that hold what is put
  std::unique_ptr<Vault> vault_;

 private:
  static inline int vaults_ = 0;
  static inline std::unique_ptr<S3Server> server_;
};

INSTANTIATE_TEST_SUITE_P(Every, VaultTest, ::testing::Values(Kind::kDisk, Kind::kS3),
                         [](const auto& kind) { return kind.param == Kind::kDisk ? "Disk" : "S3"; });

TEST_P(VaultTest, KeepsReplacesAndRemovesWhatIsPut) {
  EXPECT_EQ(get("a/b"), std::nullopt);
  put("a/b", bytes_from("first"));
  EXPECT_EQ(get("a/b"), bytes_from("first"));
  put("a/b", bytes_from("and another"));
  EXPECT_EQ(get("a/b"), bytes_from("and another"));
  put("a/empty", {});
  EXPECT_EQ(get("a/empty"), Bytes());
  put("a/b", {});
  EXPECT_EQ(get("a/b"), Bytes());

  // As long as a block of a checkpoint, with all values that a byte has.
  Bytes large(4 << 20);
  for (std::size_t i = 0; i < large.size(); ++i) large[i] = static_cast<std::uint8_t>(i * 2654435761u >> 13);
  put("large", large);
  EXPECT_TRUE(get("large") == large);

  // Somebody who opens the same place sees the same.
  auto second = open();
  ASSERT_TRUE(second);
  const auto there = second->get("large");
  ASSERT_TRUE(there && *there);
  EXPECT_TRUE(**there == large);
  EXPECT_EQ(second->list(""), std::vector<std::string>({"a/b", "a/empty", "large"}));
  EXPECT_EQ(second->place(), place_);
  ASSERT_TRUE(second->remove("large"));

  EXPECT_EQ(get("large"), std::nullopt);
  EXPECT_TRUE(vault_->remove("large"));
  EXPECT_TRUE(vault_->remove("never/there"));
  EXPECT_TRUE(vault_->remove("a/b"));
  EXPECT_EQ(get("a/b"), std::nullopt);
  EXPECT_THAT(list(""), ElementsAre("a/empty"));
  EXPECT_TRUE(vault_->remove("a/empty"));
  EXPECT_THAT(list(""), IsEmpty());
}

TEST_P(VaultTest, ListsWhatBeginsWithAPrefixInOrder) {
  EXPECT_THAT(list(""), IsEmpty());
  for (const char* name : {"run/b", "run/a-1", "run/a/2", "run/a.0", "runs/x", "Run/x", "r", "run/a/10"})
    put(name, bytes_from(name));
  EXPECT_THAT(list("run/"), ElementsAre("run/a-1", "run/a.0", "run/a/10", "run/a/2", "run/b"));
  EXPECT_THAT(list("run/a/"), ElementsAre("run/a/10", "run/a/2"));
  EXPECT_THAT(list("run/a/1"), ElementsAre("run/a/10"));
  EXPECT_THAT(list("r"), ElementsAre("r", "run/a-1", "run/a.0", "run/a/10", "run/a/2", "run/b", "runs/x"));
  EXPECT_EQ(list("").size(), 8u);
  for (const char* nobody : {"run/a/2/", "x", "run/a 1", "run/&max-keys=1", "../", "%2F"})
    EXPECT_THAT(list(nobody), IsEmpty()) << nobody;
}

TEST_P(VaultTest, RefusesWhatIsNoName) {
  const std::vector<std::string> names = {"",
                                          "../x",
                                          "/x",
                                          "a//b",
                                          ".hidden",
                                          "a/.hidden",
                                          "a/..",
                                          "x/",
                                          "two words",
                                          "a?b",
                                          "a%2Fb",
                                          "a\\b",
                                          "ä",
                                          "a\nb",
                                          std::string("a\0b", 3),
                                          std::string(201, 'x')};
  for (const auto& name : names) {
    EXPECT_FALSE(is_vault_name(name)) << name;
    const auto put = vault_->put(name, bytes_from("x"));
    const auto got = vault_->get(name);
    const auto removed = vault_->remove(name);
    ASSERT_FALSE(put) << name;
    EXPECT_THAT(put.error().message, HasSubstr("no name for a vault"));
    ASSERT_FALSE(got) << name;
    EXPECT_THAT(got.error().message, HasSubstr("no name for a vault"));
    ASSERT_FALSE(removed) << name;
    EXPECT_THAT(removed.error().message, HasSubstr("no name for a vault"));
  }
  EXPECT_THAT(list(""), IsEmpty());
  for (const std::string& name : {std::string("a..b"), std::string("A_z-0.9/b."), std::string(200, 'x')}) {
    put(name, bytes_from(name));
    EXPECT_EQ(get(name), bytes_from(name));
  }
}

// A server of S3 gives a thousand names at once.
TEST_P(VaultTest, ListsMoreNamesThanAreGivenAtOnce) {
  std::vector<std::string> names;
  for (int i = 0; i < 2005; ++i) names.push_back(fmt::format("run/block-{:06}", i));
  put(names.front(), bytes_from("x"));
  // To put all of them would take ten seconds.
  for (const auto& name : names) std::ofstream(files_ + "/" + name) << "x";
  EXPECT_EQ(list("run/"), names);
  EXPECT_EQ(list("run/block-0000").size(), 100u);
}

// A folder is how a name begins, not a name.
TEST_P(VaultTest, DoesNotTakeTheBeginningOfANameForOne) {
  put("run/a/b", bytes_from("x"));
  EXPECT_EQ(get("run/a"), std::nullopt);
  EXPECT_EQ(get("run/a/b/c"), std::nullopt);
  EXPECT_EQ(get("run/a/b"), bytes_from("x"));
}

class DiskVaultTest : public ::testing::Test {
 protected:
  void TearDown() override { fs::remove_all(folder_); }
  static unsigned mode(const fs::path& path) {
    struct stat info {};
    EXPECT_EQ(::stat(path.c_str(), &info), 0) << path;
    return info.st_mode & 07777;
  }
  const std::string folder_ = ::testing::TempDir() + "/isthmus-disk-vault-" + std::to_string(::getpid());
};

TEST_F(DiskVaultTest, IsForItsOwnerOnlyAndLeavesNoEmptyFolders) {
  const auto opened = open_vault(folder_ + "/deep/vault/");
  ASSERT_TRUE(opened) << opened.error().message;
  auto& vault = **opened;
  ASSERT_TRUE(vault.put("a/b/c", bytes_from("x")));
  EXPECT_EQ(mode(folder_ + "/deep/vault"), 0700u);
  EXPECT_EQ(mode(folder_ + "/deep/vault/a/b/c"), 0600u);
  EXPECT_EQ(vault.list(""), std::vector<std::string>({"a/b/c"}));
  EXPECT_TRUE(vault.remove("a/b"));
  EXPECT_TRUE(vault.remove("a/b/c/d"));
  EXPECT_EQ(vault.list(""), std::vector<std::string>({"a/b/c"}));
  ASSERT_TRUE(vault.remove("a/b/c"));
  EXPECT_TRUE(fs::is_empty(folder_ + "/deep/vault"));
}

TEST_F(DiskVaultTest, SaysWhyItCannotBeOpened) {
  fs::create_directories(folder_);
  std::ofstream(folder_ + "/file") << "x";
  for (const std::string& place : {folder_ + "/file", folder_ + "/file/below"}) {
    const auto opened = open_vault(place);
    ASSERT_FALSE(opened);
    EXPECT_THAT(opened.error().message, HasSubstr(place));
  }
  const auto opened = open_vault("ftp://somewhere/else");
  ASSERT_FALSE(opened);
  EXPECT_THAT(opened.error().message, HasSubstr("expected a folder, or s3://BUCKET/PREFIX"));
}

// What cannot be looked at is not what is not there.
TEST_F(DiskVaultTest, SaysWhenItCannotLook) {
  const auto opened = open_vault(folder_);
  ASSERT_TRUE(opened);
  fs::create_symlink("circle", folder_ + "/circle");
  EXPECT_FALSE((*opened)->get("circle"));
  fs::remove_all(folder_);
  const auto listed = (*opened)->list("");
  ASSERT_FALSE(listed);
  EXPECT_THAT(listed.error().message, HasSubstr(folder_));
}

}  // namespace
}  // namespace isthmus::store
