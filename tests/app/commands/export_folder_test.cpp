#include "app/export_folder.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace isthmus::app {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class ExportFolderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    write("new/config.json");
    write("old/config.json");
  }
  void TearDown() override { fs::remove_all(folder_); }
  fs::path path(const std::string& name) const { return folder_ / name; }
  void write(const std::string& name) const {
    fs::create_directories(path(name).parent_path());
    std::ofstream(path(name)) << name;
  }
  std::string read(const std::string& name) const {
    std::ifstream in(path(name));
    return {std::istreambuf_iterator<char>(in), {}};
  }
  const fs::path folder_ = fs::path(::testing::TempDir()) / ("isthmus-export-" + std::to_string(::getpid()));
};

TEST_F(ExportFolderTest, TakesThePlaceOfAnExport) {
  EXPECT_FALSE(place_export(path("new"), path("old"), Existing::kRefused));
  EXPECT_EQ(read("old/config.json"), "old/config.json");
  EXPECT_EQ(place_export(path("new"), path("old"), Existing::kReplaced), Placed::kExchanged);
  EXPECT_EQ(read("old/config.json"), "new/config.json");
  EXPECT_EQ(read("new/config.json"), "old/config.json");
  EXPECT_EQ(place_export(path("new"), path("newer"), Existing::kRefused), Placed::kNew);
}

TEST_F(ExportFolderTest, TakesThePlaceOfNothingElse) {
  write("old/notes");
  const auto placed = place_export(path("new"), path("old"), Existing::kReplaced);
  ASSERT_FALSE(placed);
  EXPECT_THAT(placed.error().message, HasSubstr("old holds notes, which no export has written"));
  EXPECT_EQ(read("old/notes"), "old/notes");
  EXPECT_EQ(read("new/config.json"), "new/config.json");
}

// A folder that cannot be looked into is not an empty one.
TEST_F(ExportFolderTest, FailsWhereItCannotLook) {
  const auto checked = check_holds_export(path("old/config.json"));
  ASSERT_FALSE(checked);
  EXPECT_THAT(checked.error().message, HasSubstr("cannot look into the folder"));
  EXPECT_TRUE(check_holds_export(path("old")));
}

}  // namespace
}  // namespace isthmus::app
