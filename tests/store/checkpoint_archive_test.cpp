#include "store/checkpoint_archive.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <map>

#include "base/counter_random.h"
#include "base/little_endian.h"

namespace isthmus::store {
namespace {

constexpr std::uint64_t kUnit = 256 * 1024;  // in which it comes

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr std::uint64_t kVersion = 20;
constexpr std::uint32_t kTimeline = 3;

// An archive as somebody sends it, with what he says of it.
struct Sent {
  Bytes bytes;
  CheckpointFacts facts;
};

class CheckpointArchiveTest : public ::testing::Test {
 protected:
  void SetUp() override { fs::remove_all(folder_); }
  void TearDown() override { fs::remove_all(folder_); }
  CheckpointPlace place(const std::string& whose, std::uint32_t stage = 1, std::uint32_t replica = 0) const {
    return {folder_ + "/" + whose, StageId(stage), 2, 4, ReplicaId(replica)};
  }
  static void write(const CheckpointPlace& place, std::uint64_t version = kVersion, std::size_t floats = 1000) {
    const std::vector<float> values(floats, static_cast<float>(version + place.stage.value));
    const ByteView bytes(reinterpret_cast<const std::uint8_t*>(values.data()), floats * 4);
    const auto count = static_cast<std::int64_t>(floats);
    const auto written = write_checkpoint(place, version, kTimeline, {{"w", {count}, bytes}},
                                          {{"m", {count}, bytes}, {"v", {count}, bytes}});
    ASSERT_TRUE(written) << written.error().message;
  }
  static Sent sent(const CheckpointPlace& place, std::uint64_t version = kVersion) {
    const auto reader = ArchiveReader::open(place, version);
    EXPECT_TRUE(reader) << reader.error().message;
    if (!reader) return {};
    const auto bytes = reader->read(0, reader->facts().bytes);
    EXPECT_TRUE(bytes) << bytes.error().message;
    return {bytes ? *bytes : Bytes(), reader->facts()};
  }
  // The archive that begins with `manifest`, with facts that fit it.
  static Sent made_of(const std::string& manifest, const Bytes& files) {
    Sent made;
    append_le<std::uint64_t>(made.bytes, manifest.size());
    made.bytes.insert(made.bytes.end(), manifest.begin(), manifest.end());
    made.bytes.insert(made.bytes.end(), files.begin(), files.end());
    made.facts = {kVersion, kTimeline, made.bytes.size(), digest_hex(bytes_of(manifest))};
    return made;
  }
  // What a stage's folder holds.
  static std::vector<std::string> held(const CheckpointPlace& place) {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(fs::path(checkpoint_folder(place, 0)).parent_path()))
      names.push_back(entry.path().filename());
    std::ranges::sort(names);
    return names;
  }
  static std::string read(const fs::path& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  static void expect_own(const fs::path& path) {
    struct stat info {};
    ASSERT_EQ(::stat(path.c_str(), &info), 0) << path;
    EXPECT_EQ(info.st_mode & 0777u, 0600u) << path;
  }
  static void expect_same(const CheckpointPlace& a, const CheckpointPlace& b) {
    const auto there = read_checkpoint(b, kVersion);
    ASSERT_TRUE(there) << there.error().message;
    EXPECT_EQ(there->timeline, kTimeline);
    for (const char* file : {"manifest.json", kCheckpointFiles[0], kCheckpointFiles[1]}) {
      const fs::path mine = fs::path(checkpoint_folder(b, kVersion)) / file;
      EXPECT_TRUE(read(fs::path(checkpoint_folder(a, kVersion)) / file) == read(mine)) << file;
      expect_own(mine);
    }
  }
  static ByteView part(const Bytes& bytes, std::size_t from, std::size_t end = SIZE_MAX) {
    return ByteView(bytes).subspan(from, std::min(end, bytes.size()) - from);
  }
  // What putting it together, and looking at it in parts of any size, say; empty: it is good.
  std::pair<std::string, std::string> judged(const CheckpointPlace& place, const Sent& sent, std::uint64_t seed) const {
    auto writer = ArchiveWriter::open(place, sent.facts, kUnit);
    EXPECT_TRUE(writer) << writer.error().message;
    EXPECT_TRUE(writer->append(sent.bytes));
    const Status unpacked = writer->unpack();
    ArchiveCheck check(place, sent.facts);
    const CounterRandom random(seed, "parts");
    std::uint64_t n = 0;
    for (std::size_t at = 0; at < sent.bytes.size();) {
      const std::size_t end =
          std::min<std::size_t>(sent.bytes.size(), at + random.below(random.below(2, n) ? 5 : 700, n + 1));
      check.update(part(sent.bytes, at, end));
      at = end;
      n += 2;
    }
    const Status checked = check.end();
    return {unpacked ? "" : unpacked.error().message, checked ? "" : checked.error().message};
  }
  const std::string folder_ = ::testing::TempDir() + "/isthmus-archive-" + std::to_string(::getpid());
};

TEST_F(CheckpointArchiveTest, ReadsInPiecesAndBecomesTheSameElsewhere) {
  write(place("a"));
  const auto reader = ArchiveReader::open(place("a"), kVersion);
  ASSERT_TRUE(reader) << reader.error().message;
  const auto whole = sent(place("a"));
  EXPECT_EQ(reader->facts().version, kVersion);
  EXPECT_EQ(reader->facts().timeline, kTimeline);
  const fs::path files = checkpoint_folder(place("a"), kVersion);
  EXPECT_EQ(reader->facts().digest, digest_hex(bytes_of(read(files / "manifest.json"))));
  EXPECT_EQ(reader->facts().bytes, 8 + fs::file_size(files / "manifest.json") +
                                       fs::file_size(files / kCheckpointFiles[0]) +
                                       fs::file_size(files / kCheckpointFiles[1]));

  // Pieces that begin and end anywhere, one that has the end of a file, a whole one and the beginning of another.
  for (const std::size_t size : {1u, 7u, 333u, 4001u, 5000u, 1u << 20}) {
    const std::uint64_t step = size == 1 ? 97 : size;
    for (std::uint64_t at = 0; at < whole.bytes.size(); at += step) {
      const auto count = std::min<std::uint64_t>(size, whole.bytes.size() - at);
      const auto piece = reader->read(at, count);
      ASSERT_TRUE(piece) << piece.error().message;
      ASSERT_TRUE(std::ranges::equal(*piece, part(whole.bytes, at, at + count))) << size << " from " << at;
    }
  }
  EXPECT_EQ(reader->read(whole.bytes.size(), 0), Bytes());

  auto writer = ArchiveWriter::open(place("b"), reader->facts(), kUnit);
  ASSERT_TRUE(writer) << writer.error().message;
  while (writer->bytes() < reader->facts().bytes) {
    const auto piece =
        reader->read(writer->bytes(), std::min<std::uint64_t>(777, reader->facts().bytes - writer->bytes()));
    ASSERT_TRUE(piece && writer->append(*piece));
    for (const auto& name : held(place("b")))
      expect_own(files.parent_path().parent_path().parent_path() / "b/stage-1" / name);
  }
  const auto unpacked = writer->unpack();
  ASSERT_TRUE(unpacked) << unpacked.error().message;
  EXPECT_THAT(held(place("b")), ElementsAre("step-00000020"));
  expect_same(place("a"), place("b"));

  ArchiveCheck check(place("b"), whole.facts);
  check.update(whole.bytes);
  EXPECT_TRUE(check.end());
}

TEST_F(CheckpointArchiveTest, GoesOnWhereItWas) {
  constexpr std::size_t kTorn = 1000;
  write(place("a"), kVersion, 60'000);
  const auto whole = sent(place("a"));
  ASSERT_GT(whole.bytes.size(), 2 * kUnit + kTorn);
  {
    auto writer = ArchiveWriter::open(place("b"), whole.facts, kUnit);
    ASSERT_TRUE(writer);
    EXPECT_EQ(writer->bytes(), 0u);
    ASSERT_TRUE(writer->append(part(whole.bytes, 0, kUnit)));
  }
  {
    auto writer = ArchiveWriter::open(place("b"), whole.facts, kUnit);
    ASSERT_TRUE(writer);
    EXPECT_EQ(writer->bytes(), kUnit);
    ASSERT_TRUE(writer->append(part(whole.bytes, kUnit, 2 * kUnit)));
    ASSERT_TRUE(writer->append(part(whole.bytes, 2 * kUnit, 2 * kUnit + kTorn)));
  }
  auto writer = ArchiveWriter::open(place("b"), whole.facts, kUnit);
  ASSERT_TRUE(writer);
  EXPECT_EQ(writer->bytes(), 2 * kUnit);
  ASSERT_TRUE(writer->append(part(whole.bytes, 2 * kUnit)));

  // It ended when all of it was here.
  auto last = ArchiveWriter::open(place("b"), whole.facts, kUnit);
  ASSERT_TRUE(last);
  EXPECT_EQ(last->bytes(), whole.facts.bytes);
  const auto unpacked = last->unpack();
  ASSERT_TRUE(unpacked) << unpacked.error().message;
  expect_same(place("a"), place("b"));
}

// Of another step, of the same step with other bytes, half unpacked: none of it is what is wanted now.
TEST_F(CheckpointArchiveTest, RemovesWhatWasBegunOfOthers) {
  write(place("a"), 10);
  write(place("a"));
  const auto old = sent(place("a"), 10), now = sent(place("a"));
  auto other = now.facts;
  other.digest.front() = other.digest.front() == '0' ? '1' : '0';
  for (const auto& facts : {old.facts, other}) {
    auto writer = ArchiveWriter::open(place("b"), facts, kUnit);
    ASSERT_TRUE(writer && writer->append(part(old.bytes, 0, 100)));
    EXPECT_EQ(held(place("b")).size(), 1u);
  }
  fs::create_directory(folder_ + "/b/stage-1/.fetching-0-00000010-x.unpacked");
  // Another replica on this machine, which shares the folder.
  auto neighbour = ArchiveWriter::open(place("b", 1, 10), now.facts, kUnit);
  ASSERT_TRUE(neighbour && neighbour->append(part(now.bytes, 0, 5000)));
  auto writer = ArchiveWriter::open(place("b"), now.facts, kUnit);
  ASSERT_TRUE(writer);
  EXPECT_EQ(writer->bytes(), 0u);
  EXPECT_EQ(held(place("b")).size(), 1u);

  // Both want the same one, and get it.
  ASSERT_TRUE(writer->append(now.bytes));
  ASSERT_TRUE(writer->unpack());
  ASSERT_TRUE(neighbour->append(part(now.bytes, 5000)));
  const auto unpacked = neighbour->unpack();
  ASSERT_TRUE(unpacked) << unpacked.error().message;
  EXPECT_THAT(held(place("b")), ElementsAre("step-00000020"));
  expect_same(place("a"), place("b"));
}

// One table for what puts archives together, at a worker, and what lets them into the vault, at the coordinator.
TEST_F(CheckpointArchiveTest, RefusesWhatIsNotTheOneThatWasSaid) {
  write(place("a"));
  write(place("a", 2));
  write(place("a"), 30);
  write(place("b"), 10);
  const Sent good = sent(place("a")), other_stage = sent(place("a", 2)), other_version = sent(place("a"), 30);
  const std::string manifest = read(checkpoint_folder(place("a"), kVersion) + "/manifest.json");
  const std::size_t front = 8 + manifest.size();
  const Bytes files(good.bytes.begin() + static_cast<std::ptrdiff_t>(front), good.bytes.end());
  const auto changed = [&](const std::function<void(Sent&)>& change) {
    Sent sent = good;
    change(sent);
    return sent;
  };
  const auto with_length = [&](std::uint64_t length) {
    return changed([&](Sent& sent) {
      Bytes bytes;
      append_le(bytes, length);
      std::ranges::copy(bytes, sent.bytes.begin());
    });
  };
  // The same archive by the digest, but with another word in its manifest.
  const auto with_words = [&](const std::string& from, const std::string& to) {
    std::string text = manifest;
    const auto at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return made_of(at == std::string::npos ? text : text.replace(at, from.size(), to), files);
  };
  const std::string deep = std::string(100'000, '[') + std::string(100'000, ']');
  const std::string deep_objects = [] {
    std::string text;
    for (int i = 0; i < 50'000; ++i) text += "{\"a\":";
    return text + "0" + std::string(50'000, '}');
  }();
  const std::string weights_bytes =
      fmt::format("\"bytes\": {}", fs::file_size(checkpoint_folder(place("a"), kVersion) + "/weights.safetensors"));

  const std::map<std::string, Sent> cases = {
      {"a byte of the manifest", changed([&](Sent& s) { s.bytes[front / 2] ^= 1; })},
      {"a byte of the length", changed([](Sent& s) { s.bytes[0] ^= 1; })},
      {"a byte of the weights", changed([&](Sent& s) { s.bytes[front + 2000] ^= 16; })},
      {"the first byte of the weights", changed([&](Sent& s) { s.bytes[front] ^= 16; })},
      {"the last byte", changed([](Sent& s) { s.bytes.back() ^= 128; })},
      {"another stage", other_stage},
      {"another stage under this digest",
       {other_stage.bytes, {kVersion, kTimeline, good.facts.bytes, good.facts.digest}}},
      {"another version",
       {other_version.bytes, {kVersion, kTimeline, other_version.facts.bytes, other_version.facts.digest}}},
      {"another timeline", changed([](Sent& s) { s.facts.timeline = 2; })},
      {"other layers", with_words("\"layers\": [\n    2,", "\"layers\": [\n    1,")},
      {"one byte more", changed([](Sent& s) { s.bytes.push_back(0), ++s.facts.bytes; })},
      {"one byte less", changed([](Sent& s) { s.bytes.pop_back(), --s.facts.bytes; })},
      {"the manifest alone", changed([&](Sent& s) { s.bytes.resize(front), s.facts.bytes = front; })},
      {"the length alone", changed([](Sent& s) { s.bytes.resize(8), s.facts.bytes = 8; })},
      {"less than a length", changed([](Sent& s) { s.bytes.resize(5), s.facts.bytes = 5; })},
      {"a manifest of 2^60 bytes", with_length(std::uint64_t{1} << 60)},
      {"a manifest of 2^64 - 1 bytes", with_length(UINT64_MAX)},
      {"a manifest of no bytes", with_length(0)},
      {"garbage", changed([](Sent& s) {
         for (auto& b : s.bytes) b = static_cast<std::uint8_t>(b * 7 + 3);
       })},
      {"a manifest that is no JSON", made_of("no JSON", files)},
      {"a manifest that is a number", made_of("5", {})},
      {"a manifest that is an array", made_of("[1, 2]", {})},
      {"a manifest that is nothing", made_of("{}", files)},
      {"files that are none", made_of("{\"files\": 5}", files)},
      {"a file that is a word", with_words("\"weights.safetensors\": {", "\"weights.safetensors\": 5, \"x\": {")},
      {"a timeline that is a word", with_words("\"timeline\": 3", "\"timeline\": \"3\"")},
      {"a stage that is a word", with_words("\"stage\": 1", "\"stage\": \"1\"")},
      {"negative bytes", with_words(weights_bytes, "\"bytes\": -5")},
      {"bytes that overflow", with_words(weights_bytes, "\"bytes\": 18446744073709551615")},
      {"a deep stage", with_words("\"stage\": 1", "\"stage\": " + deep)},
      {"deep files",
       with_words("\"weights.safetensors\": {", "\"weights.safetensors\": {\"x\":" + deep_objects + "}, \"x\": {")},
      {"deep bytes", with_words(weights_bytes, "\"bytes\": " + deep)},
  };
  std::uint64_t seed = 0;
  for (const auto& [what, sent] : cases) {
    SCOPED_TRACE(what);
    const auto [unpacked, checked] = judged(place("b"), sent, ++seed);
    EXPECT_NE(unpacked, "");
    EXPECT_NE(checked, "");
    EXPECT_THAT(unpacked, HasSubstr(fmt::format("the checkpoint of step {} of stage 1 ", sent.facts.version)));
    EXPECT_THAT(checked, HasSubstr(fmt::format("the checkpoint of step {} of stage 1 ", sent.facts.version)));
    // Nothing is left behind, and what was there before is as it was.
    EXPECT_THAT(held(place("b")), ElementsAre("step-00000010"));
    EXPECT_TRUE(read_checkpoint(place("b"), 10));
  }
  for (int i = 0; i < 5; ++i) EXPECT_EQ(judged(place("b"), good, ++seed), std::pair(std::string(), std::string()));
  EXPECT_THAT(held(place("b")), ElementsAre("step-00000010", "step-00000020"));
  expect_same(place("a"), place("b"));
}

// It names the file on the disk.
TEST_F(CheckpointArchiveTest, RefusesADigestThatIsNone) {
  write(place("a"));
  auto facts = sent(place("a")).facts;
  const std::string good = facts.digest;
  for (const std::string& digest : {std::string(), std::string("/../../elsewhere"), good.substr(1), good + "0",
                                    "../" + good.substr(3), "A" + good.substr(1)}) {
    facts.digest = digest;
    const auto writer = ArchiveWriter::open(place("b"), facts, kUnit);
    ASSERT_FALSE(writer) << digest;
    EXPECT_THAT(writer.error().message, HasSubstr("no digest"));
  }
  EXPECT_FALSE(fs::exists(folder_ + "/b"));
}

TEST_F(CheckpointArchiveTest, SaysThatACheckpointIsGone) {
  EXPECT_FALSE(ArchiveReader::open(place("a"), kVersion));
  write(place("a"));
  const auto reader = ArchiveReader::open(place("a"), kVersion);
  ASSERT_TRUE(reader);
  const auto bytes = reader->facts().bytes;
  const fs::path files = checkpoint_folder(place("a"), kVersion);
  fs::resize_file(files / kCheckpointFiles[1], 100);
  EXPECT_TRUE(reader->read(0, 2000));
  const auto cut = reader->read(0, bytes);
  ASSERT_FALSE(cut);
  EXPECT_THAT(cut.error().message, HasSubstr(kCheckpointFiles[1]));
  for (const std::uint64_t newer : {30, 40}) write(place("a"), newer);
  prune_checkpoints(place("a"), 1, 40);
  const auto gone = reader->read(bytes / 2, 10);
  ASSERT_FALSE(gone);
  EXPECT_THAT(gone.error().message, HasSubstr(files.string()));
  EXPECT_FALSE(ArchiveReader::open(place("a"), kVersion));
}

TEST_F(CheckpointArchiveTest, ReadsNoneWhoseManifestIsDamaged) {
  write(place("a"));
  const std::string path = checkpoint_folder(place("a"), kVersion) + "/manifest.json", good = read(path);
  for (const std::string& text :
       {good.substr(0, good.size() / 2), std::string(), std::string("[]"), std::string("{\"files\": {}}"),
        std::string("{\"files\": {\"weights.safetensors\": 5}}"), "{\"files\": " + std::string(100'000, '[')}) {
    std::ofstream(path, std::ios::binary) << text;
    const auto reader = ArchiveReader::open(place("a"), kVersion);
    ASSERT_FALSE(reader) << text.substr(0, 100);
    EXPECT_THAT(reader.error().message, HasSubstr("manifest.json"));
    EXPECT_FALSE(read_checkpoint(place("a"), kVersion));
  }
  // It does not stand in the way of a good one.
  std::ofstream(path, std::ios::binary) << "{\"timeline\": 3, \"files\": {\"weights.safetensors\": 5}}";
  write(place("a"));
  EXPECT_TRUE(read_checkpoint(place("a"), kVersion));
}

// What did not fit stays for when there is room, and is not there twice then.
TEST_F(CheckpointArchiveTest, GoesOnWhenTheDiskWasFull) {
  write(place("a"));
  const auto whole = sent(place("a"));
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    rlimit limit{};
    ::getrlimit(RLIMIT_FSIZE, &limit);
    const rlimit usual = limit;
    limit.rlim_cur = 5000;
    ::setrlimit(RLIMIT_FSIZE, &limit);
    auto writer = ArchiveWriter::open(place("b"), whole.facts, kUnit);
    if (!writer || !writer->append(part(whole.bytes, 0, 4000))) ::_exit(1);
    const auto full = writer->append(part(whole.bytes, 4000));
    if (full || full.error().message.find("free some space") == std::string::npos) ::_exit(2);
    if (writer->bytes() != 4000) ::_exit(3);
    ::setrlimit(RLIMIT_FSIZE, &usual);
    ::_exit(writer->append(part(whole.bytes, 4000)) && writer->unpack() ? 0 : 4);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 0);
  expect_same(place("a"), place("b"));
}

TEST_F(CheckpointArchiveTest, AdoptsOnlyWhatIsWholeAndOfThisPlace) {
  write(place("a"));
  write(place("a"), 10);
  const std::string beside = folder_ + "/a/stage-1/beside";
  fs::copy(checkpoint_folder(place("a"), kVersion), beside);
  EXPECT_FALSE(adopt_checkpoint(place("a"), 21, beside));
  EXPECT_FALSE(adopt_checkpoint(place("a", 2), kVersion, beside));
  std::ofstream(beside + "/weights.safetensors", std::ios::app) << "x";
  EXPECT_FALSE(adopt_checkpoint(place("a"), kVersion, beside));
  EXPECT_TRUE(fs::exists(beside));
  fs::copy_file(checkpoint_folder(place("a"), kVersion) + "/weights.safetensors", beside + "/weights.safetensors",
                fs::copy_options::overwrite_existing);
  // In the place of one that is damaged.
  fs::resize_file(checkpoint_folder(place("a"), kVersion) + "/weights.safetensors", 10);
  const auto adopted = adopt_checkpoint(place("a"), kVersion, beside);
  ASSERT_TRUE(adopted) << adopted.error().message;
  EXPECT_FALSE(fs::exists(beside));
  EXPECT_TRUE(read_checkpoint(place("a"), kVersion));
  EXPECT_THAT(held(place("a")), ElementsAre("step-00000010", "step-00000020"));
}

}  // namespace
}  // namespace isthmus::store
