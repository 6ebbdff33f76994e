#include "store/sealed_checkpoints.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <set>

#include "base/counter_random.h"
#include "base/digest.h"
#include "store/disk_vault.h"

namespace isthmus::store {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr std::size_t kBlock = SealedCheckpoints::kBlockBytes;
constexpr StageId kStage(1);

// An archive, as long as two blocks and a half.
struct Archive {
  Bytes bytes;
  CheckpointFacts facts;
  ByteView block(std::uint32_t index) const {
    const std::size_t from = index * kBlock;
    return ByteView(bytes).subspan(from, std::min(kBlock, bytes.size() - from));
  }
};
Archive archive_of(std::uint64_t version, std::uint32_t seed = 1, std::size_t size = 2 * kBlock + kBlock / 2) {
  Archive archive;
  archive.bytes.resize(size);
  // Nothing that repeats itself.
  std::uint64_t state = seed * 1000 + version;
  for (auto& byte : archive.bytes) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    byte = static_cast<std::uint8_t>(state >> 56);
  }
  archive.facts = {version, 3, size, digest_hex(archive.bytes)};
  return archive;
}

// A vault that cannot be read for a while.
class LostVault : public Vault {
 public:
  explicit LostVault(std::unique_ptr<Vault> vault) : vault_(std::move(vault)) {}
  Status put(const std::string& name, ByteView bytes) override { return vault_->put(name, bytes); }
  Result<std::optional<Bytes>> get(const std::string&) override { return fail("the network is gone"); }
  Result<std::vector<std::string>> list(const std::string& prefix) override { return vault_->list(prefix); }
  Status remove(const std::string& name) override { return vault_->remove(name); }
  std::string place() const override { return vault_->place(); }

 private:
  std::unique_ptr<Vault> vault_;
};

class SealedCheckpointsTest : public ::testing::Test {
 protected:
  void SetUp() override { fs::remove_all(folder_); }
  void TearDown() override { fs::remove_all(folder_); }

  std::unique_ptr<Vault> disk() const {
    auto vault = DiskVault::open(folder_);
    EXPECT_TRUE(vault);
    return std::move(*vault);
  }
  SealedCheckpoints open(std::uint8_t secret = 7, const std::string& run = "run") const {
    VaultSecret bytes;
    bytes.fill(secret);
    return {disk(), run, bytes};
  }
  static void put(SealedCheckpoints& vault, const Archive& archive, StageId stage, std::uint32_t from,
                  std::uint32_t end) {
    for (std::uint32_t i = from; i < end; ++i) {
      const auto status = vault.put(stage, archive.facts, i, archive.block(i));
      ASSERT_TRUE(status) << status.error().message;
    }
  }
  static void keep(SealedCheckpoints& vault, const Archive& archive, StageId stage = kStage) {
    ASSERT_EQ(vault.begin(stage, archive.facts), 0u);
    put(vault, archive, stage, 0, SealedCheckpoints::blocks_of(archive.facts));
    ASSERT_TRUE(vault.finish(stage, archive.facts));
  }
  // What is wrong with a block; empty: nothing. Bytes that are not the archive's are never given.
  static std::string trouble(SealedCheckpoints vault, const Archive& archive, std::uint32_t index,
                             StageId stage = kStage) {
    const auto block = vault.block(stage, archive.facts, index);
    if (!block) return block.error().message;
    EXPECT_TRUE(std::ranges::equal(*block, archive.block(index)));
    return "";
  }
  std::string file(const std::string& name, std::uint64_t version = 20, std::uint32_t stage = 1,
                   const std::string& run = "run") const {
    return fmt::format("{}/{}/stage-{}/step-{:08}/{}", folder_, run, stage, version, name);
  }
  static std::string read(const fs::path& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  static void write(const fs::path& path, const std::string& bytes) {
    fs::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << bytes;
  }
  const std::string folder_ = ::testing::TempDir() + "/isthmus-sealed-" + std::to_string(::getpid());
};

TEST_F(SealedCheckpointsTest, GivesBackWhatItKeeps) {
  const Archive archive = archive_of(20), exact = archive_of(30, 1, kBlock), tiny = archive_of(40, 1, 1);
  EXPECT_EQ(SealedCheckpoints::blocks_of(archive.facts), 3u);
  EXPECT_EQ(SealedCheckpoints::blocks_of(exact.facts), 1u);
  EXPECT_EQ(SealedCheckpoints::blocks_of(tiny.facts), 1u);
  {
    auto vault = open();
    EXPECT_EQ(vault.kept(), std::vector<SealedCheckpoints::Kept>());
    EXPECT_EQ(vault.facts(kStage, 20), std::nullopt);
    for (const auto* each : {&archive, &exact, &tiny}) keep(vault, *each);
  }
  auto vault = open();
  for (const auto* each : {&archive, &exact, &tiny}) {
    EXPECT_EQ(vault.facts(kStage, each->facts.version), each->facts);
    for (std::uint32_t i = 0; i < SealedCheckpoints::blocks_of(each->facts); ++i)
      EXPECT_EQ(trouble(open(), *each, i), "");
  }
  // There are no more.
  EXPECT_THAT(trouble(open(), archive, 3), HasSubstr("has lost run/stage-1/step-00000020/block-000003"));
  EXPECT_EQ(vault.place(), folder_);
}

TEST_F(SealedCheckpointsTest, ListsOnlyWholeOnesOfItsRun) {
  auto vault = open();
  const Archive small = archive_of(8, 1, 10);
  keep(vault, archive_of(100'000'000, 1, 10), StageId(0));
  keep(vault, small, StageId(12));
  keep(vault, small, StageId(2));
  keep(vault, archive_of(7, 1, 10), StageId(2));
  const Archive begun = archive_of(9, 1, 10);
  ASSERT_TRUE(vault.begin(StageId(0), begun.facts));
  put(vault, begun, StageId(0), 0, 1);
  auto others = open(7, "run-2");
  keep(others, small, StageId(5));
  // Names that only look like it.
  for (const char* name : {"run/stage-3/step-x/whole", "run/stage-3/step-00000001/whole/x", "run/stage--3/step-1/whole",
                           "run/stage-03/step-00000001/whole", "run/stage-3/step-1/whole", "run/whole",
                           "run/stage-99999999999/step-00000001/whole", "run/stage-4/step-00000001/wholes"})
    write(folder_ + "/" + name, "x");
  using Kept = SealedCheckpoints::Kept;
  EXPECT_EQ(vault.kept(),
            std::vector<Kept>({{StageId(0), 100'000'000}, {StageId(2), 7}, {StageId(2), 8}, {StageId(12), 8}}));
  EXPECT_EQ(vault.facts(StageId(0), 9), std::nullopt);

  ASSERT_TRUE(vault.remove(StageId(2), 7));
  ASSERT_TRUE(vault.remove(StageId(2), 999));
  EXPECT_FALSE(fs::exists(folder_ + "/run/stage-2/step-00000007"));
  EXPECT_EQ(vault.kept(), std::vector<Kept>({{StageId(0), 100'000'000}, {StageId(2), 8}, {StageId(12), 8}}));
  EXPECT_EQ(others.kept(), std::vector<Kept>({{StageId(5), 8}}));
}

TEST_F(SealedCheckpointsTest, GoesOnAfterACrash) {
  const Archive archive = archive_of(20);
  {
    auto vault = open();
    EXPECT_EQ(vault.begin(kStage, archive.facts), 0u);
  }
  {
    auto vault = open();
    EXPECT_EQ(vault.begin(kStage, archive.facts), 0u);
    put(vault, archive, kStage, 0, 2);
  }
  {
    auto vault = open();
    EXPECT_EQ(vault.begin(kStage, archive.facts), 2u);
    put(vault, archive, kStage, 2, 3);
  }
  // One that was lost meanwhile: only those before it count.
  fs::rename(file("block-000001"), folder_ + "/aside");
  EXPECT_EQ(open().begin(kStage, archive.facts), 1u);
  fs::rename(folder_ + "/aside", file("block-000001"));
  auto vault = open();
  EXPECT_EQ(vault.begin(kStage, archive.facts), 3u);
  EXPECT_EQ(vault.facts(kStage, 20), std::nullopt);
  ASSERT_TRUE(vault.finish(kStage, archive.facts));
  EXPECT_EQ(vault.facts(kStage, 20), archive.facts);
  for (std::uint32_t i = 0; i < 3; ++i) EXPECT_EQ(trouble(open(), archive, i), "");
}

TEST_F(SealedCheckpointsTest, BeginsAnotherOfTheSameVersionWithNothing) {
  const Archive archive = archive_of(20), other = archive_of(20, 2);
  auto later = archive.facts;
  later.timeline = 4;
  auto vault = open();
  keep(vault, archive);
  keep(vault, archive_of(10, 1, 100));
  for (const auto& facts : {other.facts, later}) {
    EXPECT_EQ(vault.begin(kStage, facts), 0u);
    EXPECT_FALSE(fs::exists(file("block-000000")));
    EXPECT_EQ(vault.facts(kStage, 20), std::nullopt);
    put(vault, archive, kStage, 0, 1);
  }
  EXPECT_EQ(vault.begin(kStage, other.facts), 0u);
  // What says so is damaged: it is sent again.
  put(vault, other, kStage, 0, 1);
  EXPECT_EQ(vault.begin(kStage, other.facts), 1u);
  write(file("begun"), "damaged");
  EXPECT_EQ(vault.begin(kStage, other.facts), 0u);
  EXPECT_TRUE(vault.facts(kStage, 10).value());
}

// A network that is away for a moment is no reason to throw away what is there.
TEST_F(SealedCheckpointsTest, RemovesNothingWhenItCannotLook) {
  const Archive archive = archive_of(20, 1, 100), other = archive_of(20, 2, 100);
  auto vault = open();
  keep(vault, archive);
  VaultSecret secret;
  secret.fill(7);
  SealedCheckpoints lost(std::make_unique<LostVault>(disk()), "run", secret);
  for (const auto* each : {&archive, &other}) {
    const auto begun = lost.begin(kStage, each->facts);
    ASSERT_FALSE(begun);
    EXPECT_EQ(begun.error().message, "the network is gone");
  }
  EXPECT_FALSE(lost.facts(kStage, 20));
  EXPECT_FALSE(lost.block(kStage, archive.facts, 0));
  EXPECT_EQ(vault.facts(kStage, 20), archive.facts);
}

// Not sixteen bytes of it in a row, nor the digest, wherever they are, nor the same twice.
TEST_F(SealedCheckpointsTest, HidesWhatItKeeps) {
  constexpr std::size_t kRun = 16;
  Archive archive = archive_of(20, 1, 10'000);
  std::fill_n(archive.bytes.begin() + 5000, 2000, std::uint8_t{0});
  auto vault = open();
  keep(vault, archive);
  const std::string plain(archive.bytes.begin(), archive.bytes.end());
  std::set<std::string_view> runs;
  for (std::size_t at = 0; at + kRun <= plain.size(); at += kRun) runs.insert(std::string_view(plain).substr(at, kRun));
  std::size_t files = 0;
  for (const auto& entry : fs::recursive_directory_iterator(folder_)) {
    if (!entry.is_regular_file()) continue;
    ++files;
    const std::string sealed = read(entry.path());
    for (std::size_t at = 0; at + kRun <= sealed.size(); ++at)
      ASSERT_FALSE(runs.contains(std::string_view(sealed).substr(at, kRun))) << entry.path() << " at " << at;
    EXPECT_EQ(sealed.find(archive.facts.digest.substr(0, kRun)), std::string::npos) << entry.path();
  }
  EXPECT_EQ(files, 3u);
  const std::string before = read(file("block-000000"));
  put(vault, archive, kStage, 0, 1);
  EXPECT_NE(read(file("block-000000")).substr(0, 24), before.substr(0, 24));
  EXPECT_EQ(trouble(open(), archive, 0), "");
}

TEST_F(SealedCheckpointsTest, GivesNoBytesThatAreNotTheOnesInThatPlace) {
  const Archive archive = archive_of(20, 1, 1000);
  Archive same_at_30 = archive;
  same_at_30.facts.version = 30;
  auto vault = open(), other_run = open(7, "run-2");
  keep(vault, archive);
  keep(vault, archive, StageId(2));
  keep(vault, same_at_30);
  keep(other_run, archive);
  const std::string good = read(file("block-000000"));
  const auto with = [&](const std::string& bytes) {
    write(file("block-000000"), bytes);
    const std::string what = trouble(open(), archive, 0);
    write(file("block-000000"), good);
    return what;
  };
  const auto damaged = HasSubstr("run/stage-1/step-00000020/block-000000");
  EXPECT_EQ(with(good), "");
  EXPECT_THAT(with(read(file("block-000000", 20, 2))), damaged) << "another stage";
  EXPECT_THAT(with(read(file("block-000000", 30))), damaged) << "another version";
  EXPECT_THAT(with(read(file("block-000000", 20, 1, "run-2"))), damaged) << "another run";
  EXPECT_THAT(with(read(file("whole"))), damaged);
  for (const std::size_t size : {std::size_t{0}, std::size_t{23}, std::size_t{39}, std::size_t{40}, good.size() - 1})
    EXPECT_THAT(with(good.substr(0, size)), damaged) << size;
  EXPECT_THAT(with(good + "x"), damaged);
  const CounterRandom random(1, "flips");
  for (std::uint64_t n = 0; n < 10; ++n) {
    std::string flipped = good;
    flipped[n < 5 ? n * 10 : random.below(good.size(), n)] ^= static_cast<char>(1 << n % 8);
    EXPECT_THAT(with(flipped), damaged) << n;
  }
  // Also where it says what is whole.
  for (const auto& from : {file("whole", 20, 2), file("whole", 30), file("whole", 20, 1, "run-2"), file("begun")}) {
    write(file("whole"), read(from));
    const auto facts = open().facts(kStage, 20);
    ASSERT_FALSE(facts) << from;
    EXPECT_THAT(facts.error().message, HasSubstr("run/stage-1/step-00000020/whole"));
  }
}

TEST_F(SealedCheckpointsTest, GivesNoBlockInThePlaceOfAnother) {
  const Archive archive = archive_of(20);
  auto vault = open();
  keep(vault, archive);
  fs::rename(file("block-000000"), folder_ + "/aside");
  fs::rename(file("block-000001"), file("block-000000"));
  fs::rename(folder_ + "/aside", file("block-000001"));
  for (std::uint32_t i = 0; i < 2; ++i) EXPECT_THAT(trouble(open(), archive, i), HasSubstr("is damaged")) << i;
  EXPECT_EQ(trouble(open(), archive, 2), "");
  fs::remove(file("block-000002"));
  EXPECT_THAT(trouble(open(), archive, 2), HasSubstr("has lost run/stage-1/step-00000020/block-000002"));
}

// A block of the archive that was there before it, under the same name.
TEST_F(SealedCheckpointsTest, GivesNoBlockOfAnotherArchiveOfThatVersion) {
  const Archive old = archive_of(20, 1, 100), now = archive_of(20, 2, 100);
  auto vault = open();
  keep(vault, old);
  const std::string kept = read(file("block-000000"));
  keep(vault, now);
  EXPECT_EQ(trouble(open(), now, 0), "");
  write(file("block-000000"), kept);
  EXPECT_THAT(trouble(open(), now, 0), HasSubstr("is damaged"));
}

TEST_F(SealedCheckpointsTest, SaysThatAnotherKeySealedIt) {
  const Archive archive = archive_of(20, 1, 100);
  auto vault = open(), other = open(8);
  keep(vault, archive);
  const auto facts = other.facts(kStage, 20);
  ASSERT_FALSE(facts);
  EXPECT_EQ(facts.error().message, fmt::format("run/stage-1/step-00000020/whole in the vault {} is damaged, or was "
                                               "sealed with another key",
                                               folder_));
  EXPECT_THAT(trouble(open(8), archive, 0), HasSubstr("sealed with another key"));
  EXPECT_EQ(other.kept(), std::vector<SealedCheckpoints::Kept>({{kStage, 20}}));
}

}  // namespace
}  // namespace isthmus::store
