// A worker's side of the vault: pieces that it gives, and a checkpoint that comes to it in pieces.
#include "app/checkpoint_courier.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <thread>
#include <utility>

#include "app/vaulted_checkpoints.h"
#include "base/counter_random.h"
#include "base/times.h"
#include "protocol/message.h"
#include "store/checkpoint_archive.h"

namespace isthmus::app {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kSaved = 40;
constexpr std::uint32_t kFactsOnly = protocol::kFactsOnly;
constexpr std::size_t kFloats = 800'000;  // 6.4 MB
constexpr std::uint32_t kPieces = 98, kWindow = 64;
using Indices = std::vector<std::uint32_t>;

class Courier : public ::testing::Test {
 protected:
  // A machine: its checkpoints and who carries them.
  struct Machine {
    explicit Machine(const std::string& folder, std::uint64_t bytes_max = 1 << 30)
        : checkpoints({folder, StageId(1), 2, 5, ReplicaId(0)}, 2), courier(checkpoints, {bytes_max, seconds(2)}) {}
    VaultedCheckpoints checkpoints;
    CheckpointCourier courier;
    router::SpareUplink uplink{protocol::kPieceBytes * 100.0};
  };
  // A thread that reads, as the compute thread does.
  struct Reader {
    Reader(VaultedCheckpoints& from, std::uint64_t version)
        : checkpoints(from), thread([version, this] { read = checkpoints.read(version); }) {}
    ~Reader() {
      checkpoints.close();
      if (thread.joinable()) thread.join();
    }
    VaultedCheckpoints& checkpoints;
    std::optional<Result<store::LoadedCheckpoint>> read;
    std::thread thread;
  };

  Courier() {
    fs::remove_all(folder_);
    write(kSaved, 0);
  }
  ~Courier() override { fs::remove_all(folder_); }
  std::string there() const { return folder_ + "/there"; }
  std::string here() const { return folder_ + "/here"; }
  void write(std::uint64_t version, std::uint32_t timeline) {
    std::vector<float> values(kFloats);
    for (std::size_t i = 0; i < kFloats; ++i) values[i] = static_cast<float>(i % 9973 + version + timeline);
    const ByteView bytes(reinterpret_cast<const std::uint8_t*>(values.data()), kFloats * 4);
    const std::int64_t shape = kFloats;
    ASSERT_TRUE(store::write_checkpoint({there(), StageId(1), 2, 5, ReplicaId(0)}, version, timeline,
                                        {{"w", {shape}, bytes}}, {{"m", {shape}, bytes}}));
  }
  // What goes out now: requests, and pieces.
  void turn(Machine& machine) {
    for (auto& message : machine.courier.turn(0, machine.uplink, now_)) {
      if (const auto* request = std::get_if<protocol::CheckpointRequest>(&message))
        requests_.push_back(*request);
      else
        pieces_.push_back(std::get<protocol::CheckpointPiece>(message));
    }
  }
  Indices requested() {
    Indices indices;
    for (const auto& request : std::exchange(requests_, {})) {
      EXPECT_EQ(request.version, kSaved);
      indices.push_back(request.index);
    }
    return indices;
  }
  // The answer to one question, at once.
  protocol::CheckpointPiece ask(Machine& machine, std::uint32_t index, std::uint64_t version = kSaved,
                                std::uint32_t timeline = 0) {
    machine.courier.received(protocol::CheckpointRequest{version, timeline, index});
    asked_at_ += seconds(1);
    auto answers = machine.courier.turn(0, machine.uplink, asked_at_);
    EXPECT_EQ(answers.size(), 1u);
    return answers.empty() ? protocol::CheckpointPiece() : std::get<protocol::CheckpointPiece>(answers.front());
  }
  // Somebody waits for it there.
  static void wait_until_wanted(const Machine& machine) {
    while (machine.checkpoints.wanted() == 0) std::this_thread::yield();
  }
  static Indices count(std::uint32_t first, std::uint32_t end) {
    Indices indices;
    for (; first < end; ++first) indices.push_back(first);
    return indices;
  }
  void expect_equal() const {
    const std::string name = "/stage-1/step-00000040/";
    for (const char* file : {"manifest.json", "weights.safetensors", "optimizer.safetensors"}) {
      const auto read = [&](const std::string& folder) {
        std::ifstream in(folder + name + file, std::ios::binary);
        std::ostringstream text;
        text << in.rdbuf();
        return text.str();
      };
      const std::string same = read(there());
      EXPECT_FALSE(same.empty());
      EXPECT_TRUE(same == read(here())) << file;
    }
  }

  const std::string folder_ = ::testing::TempDir() + "/isthmus-courier-" + std::to_string(::getpid());
  Time now_ = seconds(100), asked_at_ = seconds(1000);
  std::vector<protocol::CheckpointRequest> requests_;
  std::vector<protocol::CheckpointPiece> pieces_;
};

// ------------------------------------------------------------------------------------------------ who gives

TEST_F(Courier, GivesWhatItIsAskedFor) {
  Machine giver(there());
  const auto archive = store::ArchiveReader::open(giver.checkpoints.place(), kSaved);
  ASSERT_TRUE(archive) << archive.error().message;
  const std::uint64_t bytes = archive->facts().bytes;
  const std::uint32_t count = protocol::piece_count(bytes);
  ASSERT_EQ(count, kPieces);
  for (const std::uint32_t index : {kFactsOnly, 3u, 0u, count - 1, count, 1u << 30}) {
    const auto piece = ask(giver, index);
    EXPECT_EQ(piece.facts, archive->facts());
    EXPECT_EQ(piece.index, index);
    const std::uint64_t begins = index * protocol::kPieceBytes;
    if (index >= count) {
      EXPECT_FALSE(piece.tensor.values);
    } else {
      const std::uint64_t length = std::min(protocol::kPieceBytes, bytes - begins);
      EXPECT_TRUE(piece.tensor.values == share(*archive->read(begins, length))) << index;
    }
  }
}

TEST_F(Courier, SaysSoIfItHasNotGotIt) {
  Machine giver(there());
  for (const std::uint64_t version : {0u, 39u, 41u})
    for (const std::uint32_t index : {0u, kFactsOnly}) {
      const auto piece = ask(giver, index, version, 3);
      EXPECT_EQ(piece.facts, (CheckpointFacts{version, 3, 0, ""}));
      EXPECT_EQ(piece.index, index);
      EXPECT_FALSE(piece.tensor.values);
    }
  // It was pruned meanwhile.
  EXPECT_GT(ask(giver, 0).facts.bytes, 0u);
  fs::remove_all(there());
  EXPECT_EQ(ask(giver, 1).facts.bytes, 0u);
  EXPECT_EQ(ask(giver, kFactsOnly).facts.bytes, 0u);
}

// It went back, and wrote the same version once more.
TEST_F(Courier, GivesNoPieceOfOneCheckpointWithTheFactsOfAnother) {
  Machine giver(there());
  const auto before = ask(giver, 1);
  write(kSaved, 1);
  const auto after = ask(giver, 1, kSaved, 1);
  EXPECT_EQ(after.facts.timeline, 1u);
  EXPECT_NE(after.facts.digest, before.facts.digest);
  EXPECT_EQ(after.facts, ask(giver, kFactsOnly, kSaved, 1).facts);
}

TEST_F(Courier, TakesNineTenthsOfAnUplinkThatNobodyElseUses) {
  Machine giver(there());
  for (std::uint32_t i = 0; i < 20; ++i) giver.courier.received(protocol::CheckpointRequest{kSaved, 0, i});
  giver.courier.received(protocol::CheckpointRequest{kSaved, 0, 3});  // waits already
  EXPECT_LE(giver.courier.next_due(giver.uplink), now_);
  const Time began = now_;
  while (giver.courier.next_due(giver.uplink) != kNever) {
    now_ = std::max(now_, giver.courier.next_due(giver.uplink));
    const std::size_t before = pieces_.size();
    turn(giver);
    ASSERT_EQ(pieces_.size(), before + 1);
  }
  EXPECT_EQ(pieces_.size(), 20u);
  EXPECT_NEAR(to_seconds(now_ - began), 19 / 90. * kFraming, 1e-6);  // of the last piece's leaving
  // Facts cost nothing.
  now_ += seconds(1);
  for (std::uint64_t version = 1; version < 10; ++version)
    giver.courier.received(protocol::CheckpointRequest{version, 0, kFactsOnly});
  pieces_.clear();
  turn(giver);
  EXPECT_EQ(pieces_.size(), 9u);
}

TEST_F(Courier, KeepsNoMoreQuestionsThanAnybodyHas) {
  Machine giver(there());
  for (std::uint32_t i = 0; i < 1000; ++i) giver.courier.received(protocol::CheckpointRequest{i + 100, 0, kFactsOnly});
  turn(giver);
  EXPECT_EQ(pieces_.size(), 256u);
}

// ------------------------------------------------------------------------------------------------- who gets

TEST_F(Courier, AsksForNothingThatNobodyWaitsFor) {
  Machine getter(here());
  getter.checkpoints.offer(kSaved);
  turn(getter);
  EXPECT_EQ(requested(), Indices());
  EXPECT_EQ(getter.courier.next_due(getter.uplink), kNever);
  EXPECT_EQ(getter.courier.progress(), "");
  EXPECT_EQ(getter.checkpoints.versions(), std::vector<std::uint64_t>({kSaved}));
  // What nobody offers is not there.
  EXPECT_FALSE(getter.checkpoints.read(20));
  getter.checkpoints.offer(0);
  EXPECT_FALSE(getter.checkpoints.read(kSaved));
  EXPECT_TRUE(getter.checkpoints.versions().empty());
}

TEST_F(Courier, AsksAFewPiecesAheadAndAgainForWhatDoesNotCome) {
  Machine giver(there()), getter(here());
  getter.checkpoints.offer(kSaved);
  Reader reader(getter.checkpoints, kSaved);
  wait_until_wanted(getter);
  turn(getter);
  EXPECT_EQ(requested(), Indices({kFactsOnly}));
  turn(getter);
  EXPECT_EQ(requested(), Indices());
  EXPECT_EQ(getter.courier.next_due(getter.uplink), now_ + seconds(2));
  EXPECT_EQ(getter.courier.progress(), "checkpoint 40 from the vault");
  now_ += seconds(2);
  turn(getter);
  EXPECT_EQ(requested(), Indices({kFactsOnly}));
  const auto give = [&](std::uint32_t index) { return getter.courier.received(ask(giver, index)); };
  EXPECT_TRUE(give(kFactsOnly));
  EXPECT_FALSE(give(kFactsOnly)) << "a second time";
  EXPECT_FALSE(give(0)) << "before it was asked for";
  turn(getter);
  EXPECT_EQ(requested(), count(0, kWindow));
  EXPECT_FALSE(give(kWindow));
  EXPECT_TRUE(give(1));
  EXPECT_FALSE(give(1));
  turn(getter);
  EXPECT_EQ(requested(), Indices()) << "the first is not here";
  EXPECT_TRUE(give(0));
  EXPECT_EQ(getter.courier.progress(), "checkpoint 40 from the vault, 2 of 98 pieces here");
  now_ += seconds(1);
  turn(getter);
  EXPECT_EQ(requested(), count(kWindow, kWindow + 2));
  now_ += seconds(1);
  turn(getter);
  EXPECT_EQ(requested(), count(2, kWindow));
  // On a new connection, all of it at once.
  getter.courier.ask_anew();
  turn(getter);
  EXPECT_EQ(requested(), count(2, kWindow + 2));
  for (std::uint32_t i = 2; i < kPieces; ++i) {
    EXPECT_TRUE(give(i));
    turn(getter);
  }
  EXPECT_EQ(getter.courier.progress(), "");
  EXPECT_EQ(getter.courier.next_due(getter.uplink), kNever);
  reader.thread.join();
  expect_equal();
}

TEST_F(Courier, EndsWithAnErrorIfTheVaultSaysWhatCannotBe) {
  Machine giver(there());
  const auto good = ask(giver, kFactsOnly);
  const auto refused = [&](auto&& change) {
    Machine getter(here(), 110 * protocol::kPieceBytes);
    getter.checkpoints.offer(kSaved);
    Reader reader(getter.checkpoints, kSaved);
    wait_until_wanted(getter);
    turn(getter);
    requests_.clear();
    protocol::CheckpointPiece piece = good;
    change(piece.facts);
    EXPECT_TRUE(getter.courier.received(piece));
    if (getter.checkpoints.wanted() != 0) return std::string();
    reader.thread.join();
    EXPECT_FALSE(*reader.read);
    turn(getter);
    EXPECT_EQ(requested(), Indices()) << "it is over";
    return reader.read->error().message;
  };
  using Facts = CheckpointFacts;
  EXPECT_EQ(refused([](Facts&) {}), "");
  EXPECT_NE(refused([](Facts& facts) { facts.bytes = 0; }).find("the vault does not give"), std::string::npos);
  EXPECT_NE(refused([](Facts& facts) { facts.bytes = 110 * protocol::kPieceBytes + 1; }).find("bytes"),
            std::string::npos);
  EXPECT_NE(refused([](Facts& facts) { facts.digest = ""; }).find("digest"), std::string::npos);
  EXPECT_NE(refused([](Facts& facts) { facts.digest = "/../../../outside"; }).find("digest"), std::string::npos);
  for (const auto& entry : fs::recursive_directory_iterator(folder_))
    EXPECT_EQ(entry.path().string().find("outside"), std::string::npos);
}

TEST_F(Courier, EndsWithAnErrorIfWhatCameIsDamaged) {
  Machine giver(there()), getter(here());
  getter.checkpoints.offer(kSaved);
  Reader reader(getter.checkpoints, kSaved);
  wait_until_wanted(getter);
  while (getter.checkpoints.wanted() != 0) {
    turn(getter);
    ASSERT_FALSE(requests_.empty());
    for (const auto index : requested()) {
      auto piece = ask(giver, index);
      if (index == 20) {
        Bytes damaged(piece.tensor.values->begin(), piece.tensor.values->end());
        damaged[77] ^= 1;
        piece.tensor.values = share(std::move(damaged));
      }
      (void)getter.courier.received(piece);
    }
  }
  reader.thread.join();
  EXPECT_FALSE(*reader.read);
  EXPECT_TRUE(store::checkpoint_versions(here(), StageId(1)).empty());
  // Nothing of it is taken the next time.
  Reader again(getter.checkpoints, kSaved);
  wait_until_wanted(getter);
  turn(getter);
  EXPECT_EQ(requested(), Indices({kFactsOnly}));
  EXPECT_TRUE(getter.courier.received(ask(giver, kFactsOnly)));
  turn(getter);
  EXPECT_EQ(requested(), count(0, kWindow));
}

// The run went back meanwhile.
TEST_F(Courier, BeginsAnewIfTheVaultHasAnotherOneByNow) {
  Machine giver(there()), getter(here());
  getter.checkpoints.offer(kSaved);
  Reader reader(getter.checkpoints, kSaved);
  wait_until_wanted(getter);
  std::uint32_t timeline = 0;
  for (int round = 0; getter.checkpoints.wanted() != 0; ++round) {
    ASSERT_LT(round, 100);
    if (round == 2) write(kSaved, timeline = 1);
    turn(getter);
    for (const auto index : requested()) (void)getter.courier.received(ask(giver, index, kSaved, timeline));
  }
  reader.thread.join();
  ASSERT_TRUE(*reader.read) << reader.read->error().message;
  EXPECT_EQ((*reader.read)->timeline, 1u);
  expect_equal();
}

TEST_F(Courier, FreesWhoeverWaitsWhenItIsClosed) {
  Machine getter(here());
  getter.checkpoints.offer(kSaved);
  Reader reader(getter.checkpoints, kSaved);
  wait_until_wanted(getter);
  turn(getter);
  EXPECT_EQ(requested(), Indices({kFactsOnly}));
  getter.checkpoints.close();
  reader.thread.join();
  EXPECT_FALSE(*reader.read);
  EXPECT_EQ(getter.checkpoints.wanted(), 0u);
  turn(getter);
  EXPECT_EQ(getter.courier.next_due(getter.uplink), kNever);
  EXPECT_FALSE(getter.checkpoints.read(kSaved)) << "nobody waits any more";
}

// ------------------------------------------------------------------------------------------------- together

// What is lost, late or doubled on the way between two of them, until all of it is there.
class LossyWay {
 public:
  explicit LossyWay(std::uint64_t seed) : random_(seed, "lossy way") {}
  std::uint64_t below(std::uint64_t limit) { return random_.below(limit, n_++); }
  template <class Message>
  void send(std::vector<Message>& way, Message message) {
    const std::uint64_t what = below(10);
    if (what == 0) return;
    if (what == 1) way.push_back(message);
    way.insert(way.begin() + static_cast<std::ptrdiff_t>(below(way.size() + 1)), std::move(message));
  }

 private:
  const CounterRandom random_;
  std::uint64_t n_ = 0;
};

TEST_F(Courier, BringsAnEqualCheckpointOverABadWay) {
  for (std::uint64_t seed = 0; seed < times(20) + 2; ++seed) {
    SCOPED_TRACE(seed);
    fs::remove_all(here());
    LossyWay way(seed);
    Machine giver(there()), getter(here());
    getter.checkpoints.offer(kSaved);
    Reader reader(getter.checkpoints, kSaved);
    wait_until_wanted(getter);
    std::vector<protocol::CheckpointRequest> requests;
    std::vector<protocol::CheckpointPiece> pieces;
    for (int rounds = 0; getter.checkpoints.wanted() != 0; ++rounds) {
      ASSERT_LT(rounds, 10'000);
      for (auto& message : getter.courier.turn(0, getter.uplink, now_))
        way.send(requests, std::get<protocol::CheckpointRequest>(message));
      for (auto& message : giver.courier.turn(0, giver.uplink, now_))
        way.send(pieces, std::get<protocol::CheckpointPiece>(message));
      if (!requests.empty()) giver.courier.received(requests.back()), requests.pop_back();
      if (!pieces.empty()) (void)getter.courier.received(pieces.back()), pieces.pop_back();
      if (way.below(100) == 0) getter.courier.ask_anew();
      now_ += seconds(0.001 * static_cast<double>(way.below(100)));
    }
    reader.thread.join();
    ASSERT_TRUE(*reader.read) << reader.read->error().message;
    EXPECT_EQ((*reader.read)->version, kSaved);
    expect_equal();
  }
}

// Its process ended, and so does what stood on the disk of the last piece.
TEST_F(Courier, GoesOnWhereAnEarlierProcessWas) {
  Machine giver(there());
  {
    Machine getter(here());
    getter.checkpoints.offer(kSaved);
    Reader reader(getter.checkpoints, kSaved);
    wait_until_wanted(getter);
    turn(getter);
    (void)getter.courier.received(ask(giver, kFactsOnly));
    requests_.clear();
    turn(getter);
    for (const auto index : requested())
      if (index < 7 || index == 9) (void)getter.courier.received(ask(giver, index));
  }
  for (const auto& entry : fs::directory_iterator(here() + "/stage-1"))
    std::ofstream(entry.path(), std::ios::binary | std::ios::app) << "torn";
  Machine getter(here());
  EXPECT_TRUE(getter.checkpoints.versions().empty());
  getter.checkpoints.offer(kSaved);
  Reader reader(getter.checkpoints, kSaved);
  wait_until_wanted(getter);
  turn(getter);
  (void)getter.courier.received(ask(giver, kFactsOnly));
  requests_.clear();
  turn(getter);
  EXPECT_EQ(requests_.front().index, 7u);
  while (getter.checkpoints.wanted() != 0) {
    for (const auto index : requested()) (void)getter.courier.received(ask(giver, index));
    turn(getter);
  }
  reader.thread.join();
  ASSERT_TRUE(*reader.read);
  expect_equal();
}

// Damaged or missing here, whole there.
TEST_F(Courier, BringsWhatIsDamagedHere) {
  Machine giver(there()), getter(here());
  fs::create_directories(here() + "/stage-1");
  fs::copy(there() + "/stage-1", here() + "/stage-1", fs::copy_options::recursive);
  EXPECT_TRUE(getter.checkpoints.read(kSaved));
  std::ofstream(here() + "/stage-1/step-00000040/weights.safetensors", std::ios::binary) << "damaged";
  EXPECT_FALSE(getter.checkpoints.read(kSaved)) << "nobody offers it";
  getter.checkpoints.offer(kSaved);
  EXPECT_EQ(getter.checkpoints.versions(), std::vector<std::uint64_t>({kSaved}));
  Reader reader(getter.checkpoints, kSaved);
  wait_until_wanted(getter);
  while (getter.checkpoints.wanted() != 0) {
    turn(getter);
    for (const auto index : requested()) (void)getter.courier.received(ask(giver, index));
  }
  reader.thread.join();
  ASSERT_TRUE(*reader.read) << reader.read->error().message;
  expect_equal();
}

}  // namespace
}  // namespace isthmus::app
