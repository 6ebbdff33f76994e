#include "store/disk_journal.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace isthmus::store {
namespace {

namespace fs = std::filesystem;

class DiskJournalTest : public ::testing::Test {
 protected:
  void TearDown() override { fs::remove_all(folder_); }
  DiskJournal open(std::uint64_t limit = 1 << 20) const { return std::move(*DiskJournal::open(folder_, limit)); }
  static Journal::Key key(std::uint64_t step, std::uint32_t m, bool gradient = false) {
    return {StepId(step), 1, MicrobatchId(m), gradient};
  }
  static compress::EncodedTensor tensor(std::uint64_t step, std::uint32_t m) {
    compress::EncodedTensor tensor{share(Bytes(100, static_cast<std::uint8_t>(step * 16 + m))),
                                   share(Bytes(10, static_cast<std::uint8_t>(m))),
                                   {.codec = 3, .era = m}};
    compress::seal(tensor);
    return tensor;
  }
  static void write(DiskJournal& journal, std::uint64_t step, std::uint32_t microbatches) {
    for (std::uint32_t m = 0; m < microbatches; ++m) ASSERT_TRUE(journal.append(key(step, m), tensor(step, m)));
    ASSERT_TRUE(journal.sync());
  }
  static bool has(const DiskJournal& journal, std::uint64_t step, std::uint32_t m) {
    const auto found = journal.find(key(step, m));
    if (!found) return false;
    EXPECT_EQ(found->values, tensor(step, m).values);
    EXPECT_EQ(found->tokens, tensor(step, m).tokens);
    EXPECT_EQ(found->header, tensor(step, m).header);
    EXPECT_TRUE(compress::check_seal(*found));
    return true;
  }
  std::string file(std::uint64_t step) const { return fmt::format("{}/step-{:08}", folder_, step); }
  const std::string folder_ = ::testing::TempDir() + "/isthmus-journal-" + std::to_string(::getpid());
};

TEST_F(DiskJournalTest, FindsWhatAnEarlierLifeWrote) {
  {
    auto journal = open();
    write(journal, 1, 3);
    write(journal, 2, 2);
  }
  const auto again = open();
  for (std::uint32_t m = 0; m < 3; ++m) EXPECT_TRUE(has(again, 1, m));
  EXPECT_TRUE(has(again, 2, 1));
  EXPECT_FALSE(again.find(key(2, 2)));
  EXPECT_FALSE(again.find(key(1, 0, true)));
  EXPECT_FALSE(again.find({StepId(1), 2, MicrobatchId(0), false})) << "another attempt's";
}

TEST_F(DiskJournalTest, LeavesOutATornEntryAndGoesOnBehindTheWholeOnes) {
  {
    auto journal = open();
    write(journal, 1, 3);
  }
  fs::resize_file(file(1), fs::file_size(file(1)) - 1);
  auto again = open();
  EXPECT_TRUE(has(again, 1, 1));
  EXPECT_FALSE(has(again, 1, 2));
  ASSERT_TRUE(again.append(key(1, 2), tensor(1, 2)));
  ASSERT_TRUE(again.sync());
  EXPECT_TRUE(has(again, 1, 2));
  EXPECT_TRUE(has(open(), 1, 2));
}

TEST_F(DiskJournalTest, GivesOutNothingThatChangedOnTheDisk) {
  auto journal = open();
  write(journal, 1, 2);
  const auto size = fs::file_size(file(1));
  std::string bytes(size, '\0');
  std::ifstream(file(1), std::ios::binary).read(bytes.data(), static_cast<std::streamsize>(size));
  bytes[size - 5] ^= 1;
  std::ofstream(file(1), std::ios::binary) << bytes;
  EXPECT_FALSE(journal.find(key(1, 1)));
  EXPECT_TRUE(has(journal, 1, 0));
}

TEST_F(DiskJournalTest, SaysThatTheDiskDidNotTakeIt) {
  fs::create_directories(folder_);
  fs::create_symlink("/dev/null", file(1));  // takes everything and keeps nothing
  auto journal = open();
  ASSERT_TRUE(journal.append(key(1, 0), tensor(1, 0)));
  EXPECT_FALSE(journal.sync());
  ASSERT_TRUE(journal.append(key(2, 0), tensor(2, 0)));
  EXPECT_TRUE(journal.sync());
}

TEST_F(DiskJournalTest, StaysWithinItsLimitAndKeepsTheNewest) {
  auto journal = open(1000);
  for (std::uint64_t step = 1; step <= 20; ++step) {
    write(journal, step, 2);
    EXPECT_LE(journal.bytes(), 1000u);
  }
  EXPECT_FALSE(has(journal, 1, 0));
  EXPECT_TRUE(has(journal, 20, 1));
  std::uint64_t on_disk = 0;
  for (const auto& entry : fs::directory_iterator(folder_)) on_disk += fs::file_size(entry.path());
  EXPECT_EQ(on_disk, journal.bytes());
}

TEST_F(DiskJournalTest, ForgetsStepsThatNobodyCanAskForAnyMore) {
  auto journal = open();
  for (std::uint64_t step = 1; step <= 4; ++step) write(journal, step, 1);
  journal.trim(2);
  EXPECT_FALSE(has(journal, 2, 0));
  EXPECT_TRUE(has(journal, 3, 0));
  EXPECT_FALSE(fs::exists(file(1)));
}

}  // namespace
}  // namespace isthmus::store
