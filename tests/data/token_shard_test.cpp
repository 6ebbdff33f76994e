#include "data/token_shard.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <set>

#include "base/counter_random.h"
#include "base/digest.h"
#include "base/little_endian.h"
#include "data/ngram_baseline.h"
#include "data/pack.h"
#include "data/shard_name.h"
#include "data/token_source.h"
#include "data/write_byte_shard.h"
#include "store/safetensors.h"

namespace isthmus::data {
namespace {

namespace fs = std::filesystem;

class TokenShardTest : public ::testing::Test {
 protected:
  void SetUp() override { fs::create_directories(folder_); }
  void TearDown() override { fs::remove_all(folder_); }
  std::string path(const std::string& name) const { return folder_ + "/" + name; }
  void write(const std::string& name, const Bytes& bytes) const {
    std::ofstream(path(name), std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  }
  Bytes read(const std::string& name) const {
    std::ifstream in(path(name), std::ios::binary);
    return Bytes(std::istreambuf_iterator<char>(in), {});
  }
  std::string shard(const std::string& name, std::size_t count, std::uint8_t limit = 255) const {
    Bytes ids(count);
    for (std::size_t i = 0; i < count; ++i) ids[i] = static_cast<std::uint8_t>(i * 7 % limit);
    EXPECT_TRUE(write_byte_shard(path(name), ids));
    return path(name);
  }
  const std::string folder_ = ::testing::TempDir() + "/isthmus-shards-" + std::to_string(::getpid());
};

TEST_F(TokenShardTest, ComesBack) {
  const auto opened = TokenShard::open(shard("a.bin", 1000), 256);
  ASSERT_TRUE(opened) << opened.error().message;
  EXPECT_EQ(opened->size(), 1000u);
  EXPECT_EQ((*opened)[5], 35u);
}

TEST_F(TokenShardTest, ReadsTheLlmCFormat) {
  Bytes bytes;
  append_le(bytes, std::uint32_t{20240520});
  append_le(bytes, std::uint32_t{1});
  append_le(bytes, std::uint32_t{3});
  bytes.resize(1024, 0);
  for (std::uint16_t id : {5, 50256, 7}) append_le(bytes, id);
  write("gpt.bin", bytes);
  const auto opened = TokenShard::open(path("gpt.bin"), 50257);
  ASSERT_TRUE(opened) << opened.error().message;
  EXPECT_EQ((*opened)[1], 50256u);
}

TEST_F(TokenShardTest, RefusesOneThatWasPackedWithAnotherVocabulary) {
  // Also where every id would fit.
  for (const std::uint32_t vocabulary : {100u, 255u, 300u, 5000u}) {
    const auto opened = TokenShard::open(shard("a.bin", 1000, 50), vocabulary);
    ASSERT_FALSE(opened) << vocabulary;
    for (const std::string& word :
         {std::string("packed with a vocabulary of 256"), "the run's is " + std::to_string(vocabulary),
          std::string("model.vocabulary = 256")})
      EXPECT_NE(opened.error().message.find(word), std::string::npos) << opened.error().message;
  }
  EXPECT_TRUE(TokenShard::open(path("a.bin"), 256));
  EXPECT_TRUE(TokenShard::open(path("a.bin"), std::nullopt));
}

TEST_F(TokenShardTest, SaysWhichIdIsAboveTheVocabularyAndWhatToDo) {
  Bytes bytes;
  append_le(bytes, std::uint32_t{20240520});
  append_le(bytes, std::uint32_t{1});
  append_le(bytes, std::uint32_t{3});
  bytes.resize(1024, 0);
  for (std::uint16_t id : {5, 105, 7}) append_le(bytes, id);
  write("gpt.bin", bytes);
  const auto opened = TokenShard::open(path("gpt.bin"), 100);
  ASSERT_FALSE(opened);
  EXPECT_NE(opened.error().message.find("token id 105 at position 1"), std::string::npos) << opened.error().message;
  EXPECT_NE(opened.error().message.find("model.vocabulary"), std::string::npos);
}

TEST_F(TokenShardTest, SaysWhatIsMissing) {
  const auto opened = TokenShard::open(path("none.bin"), 256);
  ASSERT_FALSE(opened);
  EXPECT_NE(opened.error().message.find("script/corpus"), std::string::npos);
  EXPECT_FALSE(TokenShard::open(folder_, 256));
}

TEST_F(TokenShardTest, RefusesTruncationAndEveryFlippedBit) {
  shard("a.bin", 300);
  const Bytes good = read("a.bin");
  for (std::size_t length = 0; length < good.size(); length += 3) {
    write("t.bin", Bytes(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(length)));
    EXPECT_FALSE(TokenShard::open(path("t.bin"), 256)) << length;
  }
  for (std::size_t at = 0; at < good.size(); ++at) {
    if (at >= 32 && at < 64) continue;  // zeros that mean nothing
    Bytes damaged = good;
    damaged[at] ^= 4;
    write("d.bin", damaged);
    EXPECT_FALSE(TokenShard::open(path("d.bin"), 256)) << at;
  }
}

TEST_F(TokenShardTest, PacksTextAndHoldsTheEndOut) {
  std::ofstream(path("text")) << std::string(900, 'a') << std::string(100, 'b');
  ASSERT_TRUE(pack({{path("text")}, path("train.bin"), path("validation.bin"), 0.1}));
  const auto train = TokenShard::open(path("train.bin"), 256), held_out = TokenShard::open(path("validation.bin"), 256);
  EXPECT_EQ(train->size(), 900u);
  EXPECT_EQ(held_out->size(), 100u);
  EXPECT_EQ((*held_out)[0], std::uint32_t{'b'});
  EXPECT_FALSE(pack({{path("text")}, path("text"), path("v.bin"), 0.1}));
  EXPECT_FALSE(pack({{path("none")}, path("t.bin"), path("v.bin"), 0.1}));
  EXPECT_FALSE(pack({{path("text")}, path("t.bin"), path("v.bin"), 1.5}));
}

TEST_F(TokenShardTest, TrigramLossIsTheFormula) {
  ASSERT_TRUE(write_byte_shard(path("train.bin"), Bytes{'a', 'b', 'c', 'a', 'b', 'c', 'a', 'b', 'd'}));
  ASSERT_TRUE(write_byte_shard(path("validation.bin"), Bytes{'a', 'b', 'c'}));
  const auto loss = trigram_loss(path("train.bin"), path("validation.bin"));
  ASSERT_TRUE(loss);
  EXPECT_NEAR(*loss, -std::log(3.0 / (3 + 256)), 1e-12);
}

spec::RunConfig run_of(const std::string& train, const std::string& validation) {
  spec::RunConfig run;
  run.host.data = {train, validation};
  run.model.context = 16;
  run.train.sequences_per_microbatch = 3;
  run.train.microbatches_per_step = 2;
  run.train.evaluation_microbatches = 2;
  return run;
}

TEST_F(TokenShardTest, SamplesArePureFunctionsOfTheSeed) {
  auto run = run_of(shard("t.bin", 5000), shard("v.bin", 900));
  const auto a = TokenSource::open(run), b = TokenSource::open(run);
  EXPECT_EQ(a->training(StepId(9), MicrobatchId(1)), b->training(StepId(9), MicrobatchId(1)));
  EXPECT_NE(a->training(StepId(9), MicrobatchId(1)), a->training(StepId(9), MicrobatchId(0)));
  EXPECT_EQ(a->evaluation(MicrobatchId(1)), b->evaluation(MicrobatchId(1)));
  EXPECT_EQ(a->training(StepId(1), MicrobatchId(0)).size(), 3u * 17);
  run.run.seed = 2;
  EXPECT_NE(TokenSource::open(run)->training(StepId(9), MicrobatchId(1)), a->training(StepId(9), MicrobatchId(1)));
}

TEST_F(TokenShardTest, AnEpochVisitsEveryWindowOnce) {
  Bytes ids(6 * 16 * 11 + 16 + 1);
  for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<std::uint8_t>(i / 16 % 256);
  ASSERT_TRUE(write_byte_shard(path("t.bin"), ids));
  const auto source = TokenSource::open(run_of(path("t.bin"), path("t.bin")));
  // 66 windows, six a step: eleven steps are an epoch.
  std::multiset<Bytes> seen;
  for (std::uint64_t step = 1; step <= 11; ++step)
    for (std::uint32_t m = 0; m < 2; ++m) {
      const Bytes batch = source->training(StepId(step), MicrobatchId(m));
      for (int s = 0; s < 3; ++s) seen.insert(Bytes(batch.begin() + s * 17, batch.begin() + (s + 1) * 17));
    }
  EXPECT_EQ(seen.size(), 66u);
  EXPECT_EQ(std::set<Bytes>(seen.begin(), seen.end()).size(), 66u);
}

TEST_F(TokenShardTest, HasANameThatFollowsTheContentAndNotThePlace) {
  auto run = run_of(shard("t.bin", 5000), shard("v.bin", 900));
  ASSERT_TRUE(name_shards(run));
  EXPECT_EQ(run.data.train.bytes, 5064u);
  EXPECT_EQ(run.data.train.digest, digest_hex(read("t.bin")));
  fs::create_directories(path("elsewhere"));
  fs::copy(path("t.bin"), path("elsewhere/other.bin"));
  auto moved = run_of(path("elsewhere/other.bin"), path("v.bin"));
  ASSERT_TRUE(name_shards(moved));
  EXPECT_EQ(moved.data, run.data);
  // One that has a name keeps it.
  run.host.data.train = path("v.bin");
  ASSERT_TRUE(name_shards(run));
  EXPECT_EQ(moved.data, run.data);
}

TEST_F(TokenShardTest, RefusesAnotherShardThanTheRunsAndSaysHowTheyDiffer) {
  auto run = run_of(shard("t.bin", 5000), shard("v.bin", 900));
  ASSERT_TRUE(name_shards(run));
  ASSERT_TRUE(TokenSource::open(run));
  const auto refused = [&](const std::vector<std::string>& words) {
    const auto opened = TokenSource::open(run);
    ASSERT_FALSE(opened);
    for (const auto& word : words)
      EXPECT_NE(opened.error().message.find(word), std::string::npos) << opened.error().message;
  };
  shard("t.bin", 4999);
  refused({"t.bin is another shard", "5063 bytes", "5064 bytes", run.data.train.digest});
  shard("t.bin", 5000, 99);
  refused({"t.bin is another shard", digest_hex(read("t.bin")), run.data.train.digest});
  run.host.data.train.clear();
  refused({"no path", run.data.train.digest, "data.train"});
}

TEST_F(TokenShardTest, RefusesAShardShorterThanAWindow) {
  EXPECT_FALSE(TokenSource::open(run_of(shard("t.bin", 20), shard("v.bin", 900))));
}

TEST(Safetensors, IsTheFormat) {
  const Bytes values = {0, 0, 128, 63, 0, 0, 0, 64};
  Bytes file = store::safetensors_header({{"w", {2}, values}});
  const std::string header(file.begin() + 8, file.end());
  EXPECT_EQ(header.substr(0, header.find_last_not_of(' ') + 1),
            R"({"w":{"data_offsets":[0,8],"dtype":"F32","shape":[2]}})");
  EXPECT_EQ(file[0] % 8, 0);
  file.insert(file.end(), values.begin(), values.end());
  const auto parsed = store::parse_safetensors(file);
  ASSERT_TRUE(parsed) << parsed.error().message;
  EXPECT_EQ(parsed->tensors.at("w").shape, std::vector<std::int64_t>({2}));
}

TEST(Safetensors, RefusesHeadersThatLie) {
  const auto file = [](const std::string& header, std::size_t data) {
    Bytes out;
    append_le(out, std::uint64_t{header.size()});
    out.insert(out.end(), header.begin(), header.end());
    out.resize(out.size() + data, 0);
    return out;
  };
  EXPECT_TRUE(store::parse_safetensors(file(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8)));
  for (const auto& [header, data] : std::vector<std::pair<std::string, std::size_t>>{
           {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 4},                    // beyond the file
           {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 12},                   // bytes of nobody
           {R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", 8},                    // shape and size differ
           {R"({"a":{"dtype":"F32","shape":[4611686018427387905],"data_offsets":[0,4]}})", 4},  // overflow
           {R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4},
           {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", 4},
           {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
            R"("a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
            4},
           {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
            R"("b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
            4},
           {R"({"a":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}})", 4},
           {R"([1])", 0},
           {R"({"a":)", 0}})
    EXPECT_FALSE(store::parse_safetensors(file(header, data))) << header;
}

TEST(Safetensors, SurvivesTruncationAndFlippedBits) {
  const Bytes values(64, 1);
  Bytes good = store::safetensors_header(
      {{"first", {4, 2}, ByteView(values).first(32)}, {"second", {8}, ByteView(values).last(32)}});
  good.insert(good.end(), values.begin(), values.end());
  for (std::size_t length = 0; length < good.size(); ++length)
    EXPECT_FALSE(store::parse_safetensors(Bytes(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(length))));
  const CounterRandom random(1, "flips");
  for (std::uint64_t n = 0; n < 5000; ++n) {
    Bytes damaged = good;
    damaged[random.below(good.size(), 2 * n)] ^= static_cast<std::uint8_t>(1u << random.below(8, 2 * n + 1));
    const auto parsed = store::parse_safetensors(damaged);
    if (!parsed) continue;
    for (const auto& [name, tensor] : parsed->tensors) EXPECT_LE(tensor.bytes.size(), 64u);
  }
}

}  // namespace
}  // namespace isthmus::data
