#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "scheduler/coordinator/deposits.h"

namespace isthmus::coordinator {

// Deposits between workers and a vault that answer when the test says so. A piece is a few letters, the digest of its
// checkpoint and its number: the vault sees by them whether it is right.
class DepositWorld {
 public:
  struct Worker {
    StageId stage;
    std::uint64_t newest = 0;
    std::string bits = "a";              // whoever has others has another checkpoint
    bool lies = false;                   // its pieces are not what its digest says
    std::set<std::uint64_t> lacks = {};  // versions that it says it has not got
    std::uint64_t bytes = 0;             // that it says it has; 0: as many as there are
  };
  using Job = std::variant<BeginDeposit, KeepPieces, FinishDeposit>;
  enum class Vault { kWorks, kFails };

  DepositWorld(std::uint32_t stages, std::uint32_t pieces, bool siblings_agree)
      : plan(plan_of(stages, pieces)), pieces(pieces), deposits(plan, siblings_agree, seconds(10)) {}

  static protocol::Plan plan_of(std::uint32_t stages, std::uint32_t pieces) {
    protocol::Plan plan;
    for (std::uint32_t s = 0; s < stages; ++s) {
      plan.stages.push_back({s, s + 1, 2, 4});
      plan.stages.back().state_bytes = pieces * protocol::kPieceBytes;
    }
    return plan;
  }

  std::vector<CheckpointHolder> holders() const {
    std::vector<CheckpointHolder> holders;
    for (const auto& [peer, worker] : workers) holders.push_back({worker.stage, peer, worker.newest});
    return holders;
  }
  void look() { take(deposits.look(holders(), now)); }
  void wait(Duration time) {
    now += time;
    look();
  }

  CheckpointFacts facts_of(PeerId peer, std::uint64_t version) const {
    const Worker& worker = workers.at(peer);
    if (version > worker.newest || worker.lacks.contains(version)) return {version, timeline, 0, ""};
    return {version, timeline, worker.bytes > 0 ? worker.bytes : pieces * protocol::kPieceBytes - 5,
            fmt::format("{}-{}-{}-{}", worker.stage, version, timeline, worker.bits)};
  }
  protocol::CheckpointPiece piece_of(PeerId peer, std::uint64_t version, std::uint32_t index) {
    protocol::CheckpointPiece piece{facts_of(peer, version), index, {}};
    if (index == protocol::kFactsOnly || piece.facts.bytes == 0) return piece;
    const std::string text =
        fmt::format("{}{}:{}", workers.at(peer).lies ? "not " : "", piece.facts.digest, std::to_string(index));
    piece.tensor.values = share(Bytes(text.begin(), text.end()));
    given.push_back(piece.tensor.values.owner());
    return piece;
  }
  void receive(PeerId from, const protocol::CheckpointPiece& piece) { take(deposits.received(from, piece, now)); }

  // The next question is answered, or lost.
  void answer() {
    const AskForPiece ask = asked.front();
    asked.pop_front();
    if (workers.contains(ask.from)) receive(ask.from, piece_of(ask.from, ask.request.version, ask.request.index));
  }
  // The vault does its next job and says so.
  void work(Vault how = Vault::kWorks) {
    const Job job = jobs.front();
    jobs.pop_front();
    std::visit([&](const auto& j) { how == Vault::kWorks ? carry_out(j) : fails(j.stage); }, job);
  }
  // Until nothing is left to answer or to do.
  void settle() {
    for (int turns = 0; turns < 10'000 && (!asked.empty() || !jobs.empty()); ++turns) {
      if (!asked.empty()) answer();
      if (!jobs.empty()) work();
      look();
    }
    EXPECT_TRUE(asked.empty() && jobs.empty());
  }
  // The vault has it whole, with these bits.
  bool has(std::uint32_t stage, std::uint64_t version, const std::string& bits = "a") const {
    const auto at = stored.find({StageId(stage), version});
    return at != stored.end() && at->second.whole &&
           at->second.facts.digest == fmt::format("{}-{}-{}-{}", stage, version, timeline, bits);
  }
  // What is asked for now, of one worker.
  std::vector<std::uint32_t> asked_of(PeerId peer) const {
    std::vector<std::uint32_t> indices;
    for (const auto& ask : asked)
      if (ask.from == peer) indices.push_back(ask.request.index);
    return indices;
  }
  // Pieces in memory that the vault was not given.
  std::size_t held() {
    std::erase_if(given, [](const auto& owner) { return owner.expired(); });
    std::size_t count = given.size();
    for (const auto& job : jobs)
      if (const auto* keep = std::get_if<KeepPieces>(&job)) count -= keep->pieces.size();
    return count;
  }

  const protocol::Plan plan;
  const std::uint32_t pieces;  // of every checkpoint
  Deposits deposits;
  Time now = seconds(100);
  std::uint32_t timeline = 0;
  std::map<PeerId, Worker> workers;
  std::deque<AskForPiece> asked;
  std::deque<Job> jobs;
  std::vector<std::string> troubles;
  std::vector<std::pair<StageId, std::uint64_t>> vaulted;
  struct Stored {
    CheckpointFacts facts;
    std::vector<std::string> pieces;
    bool whole = false;
  };
  std::map<std::pair<StageId, std::uint64_t>, Stored> stored;
  std::map<StageId, std::pair<StageId, std::uint64_t>> open;  // as the vault's process knows it
  std::vector<std::weak_ptr<const void>> given;

  void take(std::vector<DepositEffect> effects) {
    for (auto& effect : effects) {
      if (auto* ask = std::get_if<AskForPiece>(&effect)) {
        EXPECT_NE(ask->from, kCoordinator);
        EXPECT_GT(ask->request.version, 0u);
        EXPECT_EQ(ask->request.timeline, timeline);
        asked.push_back(*ask);
      } else if (auto* begin = std::get_if<BeginDeposit>(&effect)) {
        jobs.emplace_back(*begin);
      } else if (auto* keep = std::get_if<KeepPieces>(&effect)) {
        jobs.emplace_back(std::move(*keep));
      } else if (auto* finish = std::get_if<FinishDeposit>(&effect)) {
        jobs.emplace_back(*finish);
      } else {
        troubles.push_back(std::get<DepositTrouble>(effect).what);
      }
    }
  }

 private:
  void fails(StageId stage) { take(deposits.failed(stage, "the disk is full", false, now)); }
  void carry_out(const BeginDeposit& job) {
    const std::pair key(job.stage, job.facts.version);
    Stored& there = stored[key];
    if (there.facts != job.facts) there = {job.facts, {}, false};
    open[job.stage] = key;
    take(deposits.begun(job.stage, static_cast<std::uint32_t>(there.pieces.size()), now));
  }
  void carry_out(const KeepPieces& job) {
    Stored& there = stored.at(open.at(job.stage));
    for (const auto& piece : job.pieces) there.pieces.emplace_back(piece->begin(), piece->end());
    const bool last = there.pieces.size() == protocol::piece_count(there.facts.bytes);
    EXPECT_TRUE(job.pieces.size() == Deposits::kPiecesKept || (last && job.pieces.size() < Deposits::kPiecesKept))
        << job.pieces.size();
    take(deposits.kept(job.stage, now));
  }
  void carry_out(const FinishDeposit& job) {
    Stored& there = stored.at(open.at(job.stage));
    EXPECT_EQ(there.facts, job.facts);
    EXPECT_EQ(there.pieces.size(), protocol::piece_count(there.facts.bytes));
    for (std::size_t i = 0; i < there.pieces.size(); ++i)
      if (there.pieces[i] != fmt::format("{}:{}", there.facts.digest, i)) {
        stored.erase(open.at(job.stage));
        return take(deposits.failed(job.stage, "it is not good", true, now));
      }
    there.whole = true;
    if (const std::uint64_t version = deposits.finished(job.stage)) vaulted.emplace_back(job.stage, version);
  }
};

// One stage of two replicas, with two blocks and a half.
class Deposit : public ::testing::Test {
 protected:
  Deposit() {
    world_.workers[kOne] = {StageId(0), 20};
    world_.workers[kTwo] = {StageId(0), 20};
  }
  // So many answers of whom is asked.
  void answer(int times) {
    for (int i = 0; i < times; ++i) world_.answer();
  }
  // Until so many pieces are here; the vault has begun and keeps what it gets.
  void get(std::uint64_t pieces) {
    world_.look();
    world_.answer();
    world_.work();
    while (world_.deposits.pieces_received() < pieces) {
      world_.answer();
      while (!world_.jobs.empty()) world_.work();
    }
  }
  template <class T>
  const T* job() const {
    return world_.jobs.empty() ? nullptr : std::get_if<T>(&world_.jobs.front());
  }

  using Indices = std::vector<std::uint32_t>;
  using Kind = DepositWorld::Vault;
  static constexpr std::uint32_t kFacts = protocol::kFactsOnly;
  static constexpr PeerId kOne{1}, kTwo{2}, kThree{3}, kStranger{99};
  static constexpr std::uint32_t kBlock = Deposits::kPiecesKept, kHalf = 5 * kBlock / 4, kAll = 2 * kHalf;
  DepositWorld world_{1, kAll, true};
};

}  // namespace isthmus::coordinator
