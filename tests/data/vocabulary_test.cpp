#include "data/vocabulary.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/counter_random.h"
#include "base/digest.h"
#include "base/little_endian.h"
#include "base/times.h"
#include "data/ngram_baseline.h"
#include "data/pack.h"
#include "data/split_text.h"
#include "data/token_shard.h"

namespace isthmus::data {
namespace {

namespace fs = std::filesystem;

ByteView bytes_of(const std::string& text) { return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()}; }

std::string utf8(std::uint32_t c) {
  const auto tail = [&](int shift) { return static_cast<char>(0x80 | ((c >> shift) & 0x3f)); };
  if (c < 0x80) return {static_cast<char>(c)};
  if (c < 0x800) return {static_cast<char>(0xc0 | c >> 6), tail(0)};
  if (c < 0x10000) return {static_cast<char>(0xe0 | c >> 12), tail(6), tail(0)};
  return {static_cast<char>(0xf0 | c >> 18), tail(12), tail(6), tail(0)};
}

// Sentences with what sentencepiece treats in a special way: runs of spaces, tabs, its space symbol and its reserved
// characters, names of pieces, ends of lines of three kinds, a line longer than a piece.
std::string difficult_text() {
  std::string text = "  two before, two after  \n\n\tTab\tTab \r\n▁ and ▁▁x▅ ⁇ <unk> <0x0A> <s>\n";
  text += std::string("NUL \0 inside\n", 13);
  text +=
      "Größe, ﬁne, ½, Å and A\u030a, ﷺ, \u00a0\u3000 wide, \ufeff mark, \ufffd, 日本語, "
      "👩‍👩‍👧\u2028.\n";
  for (int i = 0; i < 3000; ++i) text += "ça ";
  for (int i = 0; i < 2000; ++i)
    text += "\n    the quick brown fox " + std::to_string(i * i % 97) + " jumps over the lazy dog, " +
            utf8(0x4e00 + i % 40);
  return text;
}

class VocabularyTest : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::create_directories(folder_);
    write("text", difficult_text());
    ASSERT_TRUE(train_vocabulary({.files = {path("text")}, .out = path("400.model"), .size = 400}));
  }
  void TearDown() override { fs::remove_all(folder_); }
  std::string path(const std::string& name) const { return folder_ + "/" + name; }
  void write(const std::string& name, const std::string& text) const {
    std::ofstream(path(name), std::ios::binary) << text;
  }
  std::string read(const std::string& name) const {
    std::ifstream in(path(name), std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  Result<Packed> pack_words(const std::string& text, const std::string& model = "400.model") const {
    return pack({.files = {path(text)},
                 .train = path("train.bin"),
                 .validation = path("validation.bin"),
                 .validation_share = 0.1,
                 .vocabulary = path(model)});
  }
  void expect_refused(const Result<Packed>& packed, const std::vector<std::string>& words) const {
    ASSERT_FALSE(packed);
    for (const auto& word : words)
      EXPECT_NE(packed.error().message.find(word), std::string::npos) << packed.error().message;
    for (const auto& entry : fs::directory_iterator(folder_)) EXPECT_NE(entry.path().extension(), ".new");
  }
  const std::string folder_ = ::testing::TempDir() + "/isthmus-vocabulary-" + std::to_string(::getpid());
};

TEST_F(VocabularyTest, TextComesBackFromTheShards) {
  const auto packed = pack_words("text");
  ASSERT_TRUE(packed) << packed.error().message;
  EXPECT_EQ(packed->vocabulary, 400u);
  const auto vocabulary = Vocabulary::open(path("400.model"));
  ASSERT_TRUE(vocabulary);
  std::string text;
  for (const auto& [name, figures] :
       {std::pair("train.bin", packed->train), std::pair("validation.bin", packed->validation)}) {
    const auto shard = TokenShard::open(path(name), 400);
    ASSERT_TRUE(shard) << shard.error().message;
    EXPECT_EQ(shard->bytes_per_id(), 2u);
    EXPECT_EQ(shard->size(), figures.tokens);
    std::vector<std::uint32_t> ids(shard->size());
    for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = (*shard)[i];
    const auto part = vocabulary->decode(ids);
    ASSERT_TRUE(part);
    EXPECT_EQ(part->size(), figures.bytes);
    text += *part;
  }
  EXPECT_TRUE(text == difficult_text());
  EXPECT_GT(packed->train.bytes_per_token(), 1.5);
}

TEST_F(VocabularyTest, EveryCodePointComesBack) {
  const auto vocabulary = Vocabulary::open(path("400.model"));
  std::string text;
  for (std::uint32_t begin = 0; begin < 0x110000; begin += 1024 * kStride) {
    for (std::uint32_t c = begin; c < begin + 1024; ++c)
      if (c < 0xd800 || c > 0xdfff) text += utf8(c);
    const auto ids = vocabulary->encode(bytes_of(text));
    ASSERT_TRUE(ids) << begin << ": " << ids.error().message.substr(0, 100);
    EXPECT_EQ(*vocabulary->decode(*ids), text);
    text.clear();
  }
}

TEST_F(VocabularyTest, HoldsOutWhatPackHoldsOut) {
  // The same training part with another end: the vocabulary must not see the difference.
  std::string text;
  for (int i = 0; text.size() < 90'000; ++i) text += "the quick brown fox " + std::to_string(i * i % 97) + "\n";
  text.resize(90'000);
  const std::string rest(10'000, 'q'), other(10'000, 'z');
  write("a", text + rest);
  write("b", text + other);
  for (const char* name : {"a", "b"})
    ASSERT_TRUE(train_vocabulary({.files = {path(name)},
                                  .out = path(std::string(name) + ".model"),
                                  .size = 330,
                                  .validation_share = 0.1,
                                  .existing = Existing::kReplaced}));
  EXPECT_EQ(digest_hex(bytes_of(read("a.model"))), digest_hex(bytes_of(read("b.model"))));
  for (const char* name : {"a", "b"})
    ASSERT_TRUE(train_vocabulary({.files = {path(name)},
                                  .out = path(std::string(name) + ".model"),
                                  .size = 330,
                                  .validation_share = 0,
                                  .existing = Existing::kReplaced}));
  EXPECT_NE(digest_hex(bytes_of(read("a.model"))), digest_hex(bytes_of(read("b.model"))));
}

TEST_F(VocabularyTest, TheCutKeepsCodePointsWhole) {
  write("u", "日本語日本語日本語日本語");
  for (const auto& [share, held_out] :
       std::vector<std::pair<double, std::uint64_t>>{{0.09, 3}, {0.12, 3}, {0.15, 3}, {0.17, 6}}) {
    const auto packed = pack({.files = {path("u")},
                              .train = path("t"),
                              .validation = path("v"),
                              .validation_share = share,
                              .vocabulary = path("400.model"),
                              .existing = Existing::kReplaced});
    ASSERT_TRUE(packed) << packed.error().message;
    EXPECT_EQ(packed->validation.bytes, held_out) << share;
    EXPECT_EQ(packed->train.bytes, 36 - held_out);
  }
  EXPECT_FALSE(pack({.files = {path("u")},
                     .train = path("t"),
                     .validation = path("v"),
                     .validation_share = 0.04,
                     .vocabulary = path("400.model")}));
}

TEST_F(VocabularyTest, RefusesWhatIsNoModel) {
  expect_refused(pack_words("text", "none.model"), {"none.model", "isthmus data vocabulary"});
  for (const std::string& text :
       {std::string(), std::string("word\nlist\n"), std::string(5000, '\xff'), std::string(5000, '\0')}) {
    write("bad.model", text);
    expect_refused(pack_words("text", "bad.model"), {"bad.model is not a sentencepiece model"});
  }
  const std::string good = read("400.model");
  const CounterRandom random(1, "damage");
  for (std::size_t length = 0; length < good.size(); length += 61) {
    write("bad.model", good.substr(0, length));
    expect_refused(pack_words("text", "bad.model"), {"bad.model"});
  }
}

TEST_F(VocabularyTest, SurvivesADamagedModel) {
  const std::string good = read("400.model"), text = "the quick brown fox ▁ 97\n";
  const CounterRandom random(1, "damage");
  for (std::uint64_t i = 0; i < 2000; ++i) {
    std::string damaged = good;
    damaged[random.below(good.size(), 2 * i)] = static_cast<char>(random.below(256, 2 * i + 1));
    // A piece may have another name or another weight; a text that is encoded all the same comes back.
    const auto vocabulary = Vocabulary::parse(bytes_of(damaged), "damaged");
    const auto ids = vocabulary ? vocabulary->encode(bytes_of(text)) : fail("no model");
    if (ids) {
      EXPECT_EQ(*vocabulary->decode(*ids), text);
    }
  }
}

TEST_F(VocabularyTest, SaysWhichByteIsNotUtf8) {
  const std::string good(5000, 'a');
  for (const std::string bad : {"\x80", "\xc0\x80", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xf0\x8f\xbf\xbf",
                                "\xf4\x90\x80\x80", "\xf5", "\xe2\x96", "\x92s"}) {
    write("latin", good + bad + (bad.size() > 1 ? good : ""));
    expect_refused(pack_words("latin"), {"latin is not UTF-8: byte 5000 is 0x"});
    EXPECT_FALSE(train_vocabulary({.files = {path("latin")}, .out = path("x.model"), .size = 400}));
  }
  EXPECT_FALSE(fs::exists(path("train.bin")));
  EXPECT_TRUE(pack({.files = {path("latin")}, .train = path("t"), .validation = path("v")}));  // bytes are bytes
}

TEST_F(VocabularyTest, RefusesEmptyTextAndOutputsThatAreInputs) {
  write("empty", "");
  expect_refused(pack_words("empty"), {"0 bytes"});
  EXPECT_FALSE(train_vocabulary({.files = {path("empty")}, .out = path("x.model"), .validation_share = 0}));
  const std::string text = read("text"), model = read("400.model");
  fs::create_hard_link(path("text"), path("link"));
  EXPECT_FALSE(train_vocabulary({.files = {path("text")}, .out = path("link"), .size = 400}));
  expect_refused(pack({.files = {path("text")},
                       .train = path("t"),
                       .validation = path("400.model"),
                       .vocabulary = path("400.model")}),
                 {"400.model is both"});
  expect_refused(pack({.files = {path("text")}, .train = path("t"), .validation = folder_ + "/./t"}), {"same output"});
  fs::create_symlink("missing", path("one"));
  fs::create_symlink("one", path("two"));
  for (const char* other : {"two", "missing"})
    expect_refused(pack({.files = {path("text")}, .train = path("one"), .validation = path(other)}), {"same output"});
  for (const std::string& nameless : {std::string(), path("made/"), path("made/..")})
    expect_refused(pack({.files = {path("text")}, .train = path("made/t"), .validation = nameless}), {"names no file"});
  EXPECT_FALSE(fs::exists(path("made")));
  EXPECT_EQ(read("text"), text);
  EXPECT_EQ(read("400.model"), model);
}

TEST_F(VocabularyTest, SaysWhenTheTextIsTooSmallForTheSize) {
  const auto trained = train_vocabulary({.files = {path("text")}, .out = path("x.model"), .size = 100'000});
  ASSERT_FALSE(trained);
  EXPECT_NE(trained.error().message.find("100000"), std::string::npos) << trained.error().message;
  EXPECT_FALSE(fs::exists(path("x.model")));
}

TEST_F(VocabularyTest, TheTrigramModelIsForByteShards) {
  ASSERT_TRUE(pack_words("text"));
  const auto loss = trigram_loss(path("train.bin"), path("validation.bin"));
  ASSERT_FALSE(loss);
  EXPECT_NE(loss.error().message.find("without --vocabulary"), std::string::npos) << loss.error().message;
}

TEST_F(VocabularyTest, ByteShardsAreTheFormatBitForBit) {
  const std::string text = difficult_text() + "\x92\xff";
  write("bytes", text);
  ASSERT_TRUE(pack({.files = {path("bytes")}, .train = path("train.bin"), .validation = path("validation.bin")}));
  const std::size_t held_out = static_cast<std::size_t>(static_cast<double>(text.size()) * 0.02);
  const std::string head = text.substr(0, text.size() - held_out);
  Bytes expected = {'I', 'S', 'T', 'H', 'T', 'O', 'K', '1'};
  append_le(expected, std::uint32_t{1});
  append_le(expected, std::uint32_t{256});
  append_le(expected, std::uint64_t{head.size()});
  append_le(expected, checksum(bytes_of(head)));
  expected.resize(64, 0);
  expected.insert(expected.end(), head.begin(), head.end());
  EXPECT_TRUE(read("train.bin") == std::string(expected.begin(), expected.end()));
  EXPECT_EQ(read("validation.bin").substr(64), text.substr(head.size()));
}

}  // namespace
}  // namespace isthmus::data
