#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/ids.h"
#include "base/time.h"
#include "protocol/message.h"
#include "protocol/plan.h"

namespace isthmus::coordinator {

// A live replica and the newest checkpoint on its disk.
struct CheckpointHolder {
  StageId stage;
  PeerId peer;
  std::uint64_t version = 0;
};

// What is to be done for the vault, in this order.
struct AskForPiece {  // of a worker
  PeerId from;
  protocol::CheckpointRequest request;
};
struct BeginDeposit {  // answered by begun()
  StageId stage;
  CheckpointFacts facts;
};
struct KeepPieces {  // answered by kept(); of the running deposit, the next ones
  StageId stage;
  std::vector<SharedBytes> pieces;
};
struct FinishDeposit {  // answered by finished()
  StageId stage;
  CheckpointFacts facts;
};
struct DepositTrouble {  // for people
  std::string what;
};
using DepositEffect = std::variant<AskForPiece, BeginDeposit, KeepPieces, FinishDeposit, DepositTrouble>;

// How checkpoints get from the workers' disks into the run's vault. Of one version at a time, the newest that every
// stage has on the disks of all its replicas, so that what the vault has of the stages fits together. One replica of a
// stage gives it; another goes on when that one is lost. Where replicas hold the same bits, a sibling has to confirm it
// by its digest before it counts. The coordinator asks, a few pieces ahead, and only of kStagesAtOnce stages; so nobody
// fills its memory. Pure; one thread.
//
// The vault does what it is given in this order, stage by stage, and answers each of BeginDeposit, KeepPieces and
// FinishDeposit once: with begun(), kept(), finished() or failed().
class Deposits {
 public:
  static constexpr std::size_t kStagesAtOnce = 4;
  static constexpr std::uint32_t kAhead = 32;  // pieces that are asked for and not here
  // The vault takes so many at a time, at the end of a checkpoint what is left.
  static constexpr std::uint32_t kPiecesKept = 64;

  // What a checkpoint of the stage has at most.
  static std::uint64_t bytes_max(const protocol::Plan& plan, StageId stage);

  // `siblings_agree`: replicas of a stage hold the same bits. `patience`: with a worker that does not answer.
  Deposits(const protocol::Plan& plan, bool siblings_agree, Duration patience);

  // What the vault has of a stage, also from before.
  void has_vaulted(StageId stage, std::uint64_t version) {
    vaulted_[stage.value] = std::max(vaulted_[stage.value], version);
  }
  // The run has gone back to this version, as `timeline`: nothing newer counts.
  void went_back(std::uint64_t version, std::uint32_t timeline);
  // Everybody who is there and has one.
  std::vector<DepositEffect> look(const std::vector<CheckpointHolder>& holders, Time now);
  std::vector<DepositEffect> received(PeerId from, const protocol::CheckpointPiece& piece, Time now);

  // Of BeginDeposit: so many pieces, from the first on, are in the vault.
  std::vector<DepositEffect> begun(StageId stage, std::uint32_t pieces, Time now);
  std::vector<DepositEffect> kept(StageId stage, Time now);
  // Of FinishDeposit: the version that the stage has in the vault from now on.
  std::uint64_t finished(StageId stage);
  // The vault could not do it, or what it was given is not what its digests say (`wrong`): from another worker then.
  std::vector<DepositEffect> failed(StageId stage, const std::string& why, bool wrong, Time now);

  // Whether it was so that this version of all stages is in the vault, or cannot get there from whoever is here.
  bool settled(std::uint64_t version) const;
  // The version that is on its way; 0: none.
  std::uint64_t takes() const { return all_over() ? 0 : version_; }
  // For people; empty: nothing is under way.
  std::string progress() const;
  std::uint64_t pieces_received() const { return received_; }
  Time next_due() const;

 private:
  enum class State { kAsks, kBegins, kGets, kConfirms, kFinishes, kDone, kRefused };
  struct Deposit {
    State state = State::kAsks;
    PeerId from = kCoordinator;  // nobody
    std::optional<CheckpointFacts> facts;
    PeerId said{};            // whose those facts are
    std::uint32_t next = 0;   // the piece that comes next
    std::uint32_t asked = 0;  // pieces before this one were asked for
    std::vector<SharedBytes> here;
    bool keeps = false;        // the vault has not said that it has kept what it was given
    std::set<PeerId> cannot;   // have it not, or have shown it to be wrong
    std::set<PeerId> gave;     // parts of what is in the vault; kCoordinator: what was there before
    bool was_mixed = false;    // what several had given was wrong: the next time all of them are to blame
    std::set<PeerId> neither;  // were asked to confirm it, and neither did nor denied it
    std::optional<PeerId> confirms;
    Time heard{};        // of whoever gives it, or is asked to confirm it
    Time rests_until{};  // the vault failed
  };
  static std::uint32_t pieces(const Deposit& deposit) { return protocol::piece_count(deposit.facts->bytes); }
  static bool is_over(const Deposit& deposit);
  static bool waits_for_vault(const Deposit& deposit);
  bool all_over() const;
  bool has(PeerId peer, StageId stage) const;
  void choose_version();
  void pursue(StageId stage, Deposit& deposit, Time now, std::vector<DepositEffect>& effects);
  void ask(Deposit& deposit, std::vector<DepositEffect>& effects) const;
  void begin(StageId stage, Deposit& deposit, PeerId from, const CheckpointFacts& facts,
             std::vector<DepositEffect>& effects);
  void finish(StageId stage, Deposit& deposit, std::vector<DepositEffect>& effects);
  void keep(StageId stage, Deposit& deposit, std::vector<DepositEffect>& effects);
  void confirm(StageId stage, Deposit& deposit, Time now, std::vector<DepositEffect>& effects);
  void pursue_all(Time now, std::vector<DepositEffect>& effects);
  Deposit* answered(StageId stage);

  const protocol::Plan plan_;
  const bool siblings_agree_;
  const Duration patience_;
  std::uint32_t timeline_ = 0;
  std::uint64_t version_ = 0;  // that is being deposited; 0: none
  std::uint64_t received_ = 0;
  std::vector<std::uint64_t> vaulted_;  // per stage
  std::vector<CheckpointHolder> holders_;
  std::map<StageId, Deposit> deposits_;
  // What the vault has not answered yet, per stage, and how many of these answers, the first ones, are about something
  // that was given up.
  struct Owed {
    std::uint32_t answers = 0;
    std::uint32_t void_answers = 0;
  };
  std::vector<Owed> owed_;
};

}  // namespace isthmus::coordinator
