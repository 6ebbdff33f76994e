#include "base/input_file.h"

#include <gmock/gmock.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace isthmus {
namespace {

namespace fs = std::filesystem;

class InputFileTest : public ::testing::Test {
 protected:
  void SetUp() override { fs::create_directories(folder_); }
  void TearDown() override { fs::remove_all(folder_); }
  std::string path(const std::string& name) const { return folder_ + "/" + name; }
  void write(const std::string& name, const std::string& text) const { std::ofstream(path(name)) << text; }
  std::string refusal(const std::string& file, std::uint64_t bytes_max = 100) const {
    const auto text = read_input(file, "a recipe", bytes_max);
    return text ? "none, it reads " + *text : text.error().message;
  }
  const std::string folder_ = ::testing::TempDir() + "/isthmus-input-" + std::to_string(::getpid());
};

TEST_F(InputFileTest, ReadsARegularFile) {
  write("a", "flour");
  fs::create_symlink("a", path("link"));
  EXPECT_EQ(read_input(path("a"), "a recipe", 5), "flour");
  EXPECT_EQ(read_input(path("link"), "a recipe", 100), "flour");
  write("empty", "");
  EXPECT_EQ(read_input(path("empty"), "a recipe", 0), "");
}

// Nobody writes into the pipe: opening it as a file would never end.
TEST_F(InputFileTest, RefusesWhatIsNone) {
  ASSERT_EQ(::mkfifo(path("pipe").c_str(), 0600), 0);
  EXPECT_EQ(refusal(path("pipe")), path("pipe") + ": this is a named pipe, expected a recipe");
  EXPECT_EQ(refusal(folder_), folder_ + ": this is a folder, expected a recipe");
  EXPECT_EQ(refusal("/dev/zero"), "/dev/zero: this is a device, expected a recipe");
  EXPECT_EQ(refusal(path("none")), path("none") + ": there is no such file, expected a recipe");
  EXPECT_EQ(refusal("/proc/self/mem/x"),
            "/proc/self/mem/x: the file cannot be opened (Not a directory), expected a recipe");
}

TEST_F(InputFileTest, RefusesMoreThanItsUseAllows) {
  write("a", "flour");
  EXPECT_EQ(refusal(path("a"), 4), path("a") + ": the file is too large, expected a recipe of at most 4 bytes");
  // A file that says it is empty and is not.
  EXPECT_EQ(refusal("/proc/self/status", 4),
            "/proc/self/status: the file is too large, expected a recipe of at most 4 bytes");
}

TEST_F(InputFileTest, RefusesASecretThatIsNone) {
  write("key", "pepper");
  fs::permissions(path("key"), fs::perms(0640));
  const auto shown = read_secret(path("key"), "a key file", 100);
  ASSERT_FALSE(shown);
  EXPECT_EQ(shown.error().message, path("key") +
                                       ": it can be read by others (mode 640), expected a key file that only its owner "
                                       "can read; chmod 600 " +
                                       path("key"));
  fs::permissions(path("key"), fs::perms(0600));
  EXPECT_EQ(read_secret(path("key"), "a key file", 100), "pepper");
}

}  // namespace
}  // namespace isthmus
