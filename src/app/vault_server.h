#pragma once

#include <algorithm>
#include <atomic>
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

  // The newest version of every stage that it had when it was opened.
  const std::map<StageId, std::uint64_t>& newest() const { return newest_; }
  // That is on its way; 0: none.
  std::uint64_t takes() const { return deposits_.takes(); }

  // Readable when the other thread has done something.
  int descriptor() const { return woken_; }
  Time next_due() const;

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
    std::uint64_t whole = 0;  // the newest version that the run has of all stages
  };
  struct Read {
    coordinator::Withdrawals::Piece piece;
  };
  struct Forget {  // what belongs to a past that did not happen
    std::vector<std::uint64_t> rollbacks;
  };
  using Job = std::variant<Begin, Keep, Finish, Read, Forget>;

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
    coordinator::Withdrawals::Piece asked;
    protocol::CheckpointPiece piece;
    std::string trouble;
  };
  struct Forgotten {};
  using Done = std::variant<Begun, Kept, Finished, Failed, WasRead, Forgotten>;

  VaultServer(store::SealedCheckpoints vault, const protocol::Plan& plan, const Options& options,
              std::map<StageId, std::uint64_t> newest);
  void carry_out(std::vector<coordinator::DepositEffect> effects);
  void take(const Done& done, Time now);

  // On the other thread.
  void work();
  Done carry_out(const Begin& job);
  Done carry_out(const Keep& job);
  Done carry_out(const Finish& job);
  Done carry_out(const Read& job);
  Done carry_out(const Forget& job);
  void prune(const Finish& job);
  Result<Bytes> block(StageId stage, const CheckpointFacts& facts, std::uint32_t index);

  const protocol::Plan plan_;
  const Options options_;
  int woken_ = -1;
  coordinator::Deposits deposits_;
  coordinator::Withdrawals withdrawals_;
  const std::map<StageId, std::uint64_t> newest_;
  Turn turn_;
  std::uint64_t whole_ = 0;
  std::optional<std::size_t> timelines_;                    // that were told of
  std::vector<coordinator::Withdrawals::Piece> under_way_;  // pieces that are being read
  // A deposit has one job at a time, and of pieces few are read at once: nobody waits to put one in.
  BoundedQueue<Job> jobs_{SIZE_MAX};
  BoundedQueue<Done> done_{SIZE_MAX};

  // Of the other thread alone.
  store::SealedCheckpoints vault_;
  struct Open {
    CheckpointFacts facts;
    store::ArchiveCheck check;
    std::uint32_t blocks = 0;  // that are there
  };
  std::map<StageId, Open> open_;
  struct Block {
    std::uint64_t version = 0;
    std::uint32_t index = 0;
    Bytes bytes;
  };
  std::map<StageId, CheckpointFacts> read_facts_;  // of what was read last
  std::map<StageId, Block> last_block_;
  std::atomic<bool> stop_ = false;  // what waits is left undone
  std::thread thread_;
};

}  // namespace isthmus::app
