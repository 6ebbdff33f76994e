#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "base/bounded_queue.h"
#include "base/result.h"
#include "protocol/message.h"
#include "protocol/plan.h"
#include "scheduler/coordinator/deposits.h"
#include "scheduler/coordinator/withdrawals.h"
#include "store/checkpoint_archive.h"
#include "store/sealed_checkpoints.h"

namespace isthmus::app {

// The coordinator's side of the vault: gets checkpoints from workers (scheduler/coordinator/deposits.h), checks, seals
// and keeps them, and gives them to whoever takes over a stage that nobody serves
// (scheduler/coordinator/withdrawals.h). The disk or the bucket is a second thread's, so that a slow one holds up no
// step.
class VaultServer {
 public:
  struct Options {
    Duration patience{};          // with a worker that does not answer
    double bytes_per_second = 0;  // of the uplink
    std::uint32_t keep = 2;       // versions of every stage
    bool siblings_agree = true;
  };
  // Errors: the vault cannot be read, or belongs to another run's owner.
  static Result<std::unique_ptr<VaultServer>> open(store::SealedCheckpoints vault, const protocol::Plan& plan,
                                                   const Options& options);
  ~VaultServer();
  VaultServer(const VaultServer&) = delete;
  VaultServer& operator=(const VaultServer&) = delete;

  // Readable when the other thread has done something.
  int descriptor() const { return woken_; }
  Time next_due() const { return std::min(deposits_.next_due(), withdrawals_.next_due()); }

  void received(PeerId from, const protocol::CheckpointPiece& piece, Time now);
  void asked(const coordinator::Decisions& decisions, PeerId from, const protocol::CheckpointRequest& request);
  void forget(PeerId peer) { withdrawals_.forget(peer); }

  // What came of all that.
  struct Turn {
    std::vector<std::pair<PeerId, protocol::Message>> messages;
    std::vector<std::pair<StageId, std::uint64_t>> vaulted;  // whole in the vault from now on
    std::vector<std::string> troubles;                       // for people
  };
  // `holders`: who has which checkpoint on its disk.
  Turn turn(const coordinator::Decisions& decisions, const std::vector<coordinator::CheckpointHolder>& holders,
            Time now);
  // For people; empty: nothing is under way.
  std::string progress() const { return deposits_.progress(); }
  // Whether this version, of all stages, is in the vault or cannot get there.
  bool settled(std::uint64_t version) const { return deposits_.settled(version); }
  // Grows with every piece that comes.
  std::uint64_t pieces_received() const { return deposits_.pieces_received(); }

 private:
  struct Begin {
    StageId stage;
    CheckpointFacts facts;
  };
  struct Keep {
    StageId stage;
    std::vector<SharedBytes> pieces;
  };
  struct Finish {
    StageId stage;
    CheckpointFacts facts;
  };
  struct Read {
    coordinator::Withdrawals::Piece piece;
  };
  using Job = std::variant<Begin, Keep, Finish, Read>;

  struct Begun {
    StageId stage;
    std::uint32_t pieces = 0;
  };
  struct Kept {
    StageId stage;
  };
  struct Finished {
    StageId stage;
  };
  struct Failed {
    StageId stage;
    std::string why;
    bool wrong = false;
  };
  struct WasRead {
    PeerId to;
    protocol::CheckpointPiece piece;
    std::string trouble;
  };
  using Done = std::variant<Begun, Kept, Finished, Failed, WasRead>;

  VaultServer(store::SealedCheckpoints vault, const protocol::Plan& plan, const Options& options);
  void carry_out(std::vector<coordinator::DepositEffect> effects);
  void take(const Done& done, Time now);

  // On the other thread.
  void work();
  Done carry_out(const Begin& job);
  Done carry_out(const Keep& job);
  Done carry_out(const Finish& job);
  Done carry_out(const Read& job);
  void prune(StageId stage, std::uint64_t newest);
  Result<Bytes> block(StageId stage, const CheckpointFacts& facts, std::uint32_t index);

  const protocol::Plan plan_;
  const Options options_;
  int woken_ = -1;
  coordinator::Deposits deposits_;
  coordinator::Withdrawals withdrawals_;
  Turn turn_;
  BoundedQueue<Job> jobs_{256};
  BoundedQueue<Done> done_{SIZE_MAX};

  // Of the other thread alone.
  store::SealedCheckpoints vault_;
  struct Open {
    CheckpointFacts facts;
    store::ArchiveCheck check;
    std::uint32_t blocks = 0;  // that are there
  };
  std::map<StageId, Open> open_;
  std::map<StageId, CheckpointFacts> read_facts_;  // of what was read last
  struct Block {
    StageId stage;
    std::uint64_t version = 0;
    std::uint32_t index = 0;
    Bytes bytes;
  };
  std::optional<Block> last_block_;
  std::thread thread_;
};

}  // namespace isthmus::app
