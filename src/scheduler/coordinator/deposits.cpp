#include "scheduler/coordinator/deposits.h"

#include <fmt/format.h>

#include <algorithm>

namespace isthmus::coordinator {

namespace {

// A checkpoint holds weights and optimizer as a snapshot does, and headers.
constexpr std::uint64_t kHeadersMax = 16 << 20;
constexpr Duration kVaultRests = seconds(10);

}  // namespace

Deposits::Deposits(const protocol::Plan& plan, bool siblings_agree, Duration patience)
    : plan_(plan),
      siblings_agree_(siblings_agree),
      patience_(patience),
      vaulted_(plan.stages.size(), 0),
      owed_(plan.stages.size()) {}

void Deposits::went_back(std::uint64_t version, std::uint32_t timeline) {
  if (timeline == timeline_) return;
  timeline_ = timeline;
  version_ = 0;
  deposits_.clear();
  holders_.clear();
  for (auto& vaulted : vaulted_) vaulted = std::min(vaulted, version);
}

std::uint64_t Deposits::bytes_max(const protocol::Plan& plan, StageId stage) {
  return 2 * plan.stages[stage.value].state_bytes + kHeadersMax;
}

bool Deposits::has(PeerId peer, StageId stage) const {
  return std::ranges::any_of(holders_, [&](const CheckpointHolder& holder) {
    return holder.peer == peer && holder.stage == stage && holder.version >= version_;
  });
}

bool Deposits::is_over(const Deposit& deposit) {
  return deposit.state == State::kDone || deposit.state == State::kRefused;
}

bool Deposits::all_over() const {
  return std::ranges::all_of(deposits_, [](const auto& entry) { return is_over(entry.second); });
}

// It is slower than the network.
bool Deposits::waits_for_vault(const Deposit& deposit) {
  const bool full = deposit.keeps && (deposit.here.size() >= kPiecesKept || deposit.next == pieces(deposit));
  return full || deposit.state == State::kBegins || deposit.state == State::kFinishes;
}

// The newest one that all replicas of all stages have written.
void Deposits::choose_version() {
  if (!all_over()) return;
  std::vector<std::uint64_t> newest(plan_.stages.size(), UINT64_MAX);
  for (const auto& holder : holders_) newest[holder.stage.value] = std::min(newest[holder.stage.value], holder.version);
  const std::uint64_t everywhere = *std::ranges::min_element(newest);
  if (everywhere == UINT64_MAX || everywhere <= version_) return;
  if (std::ranges::find(newest, UINT64_MAX) != newest.end()) return;
  version_ = everywhere;
  deposits_.clear();
  for (StageId stage(0); stage.value < vaulted_.size(); stage = StageId(stage.value + 1))
    deposits_[stage].state = vaulted_[stage.value] >= version_ ? State::kDone : State::kAsks;
}

std::vector<DepositEffect> Deposits::look(const std::vector<CheckpointHolder>& holders, Time now) {
  holders_ = holders;
  choose_version();
  std::vector<DepositEffect> effects;
  pursue_all(now, effects);
  return effects;
}

void Deposits::pursue_all(Time now, std::vector<DepositEffect>& effects) {
  std::size_t open = 0;
  for (auto& [stage, deposit] : deposits_) {
    if (is_over(deposit)) continue;
    if (++open > kStagesAtOnce) return;
    pursue(stage, deposit, now, effects);
  }
}

void Deposits::pursue(StageId stage, Deposit& deposit, Time now, std::vector<DepositEffect>& effects) {
  if (waits_for_vault(deposit) || now < deposit.rests_until) return;
  deposit.rests_until = {};
  if (deposit.state == State::kConfirms) return confirm(stage, deposit, now, effects);
  const bool silent = deposit.from != kCoordinator && now - deposit.heard >= patience_;
  if (deposit.from != kCoordinator && has(deposit.from, stage) && !silent && !deposit.cannot.contains(deposit.from))
    return;
  // Another one, after the silent one by number, so that all take turns.
  const PeerId before = deposit.from;
  std::vector<PeerId> all;
  for (const auto& holder : holders_)
    if (has(holder.peer, stage) && holder.stage == stage && !deposit.cannot.contains(holder.peer))
      all.push_back(holder.peer);
  if (all.empty()) {
    const bool served =
        std::ranges::any_of(holders_, [&](const CheckpointHolder& holder) { return holder.stage == stage; });
    deposit.from = kCoordinator;
    if (!served || deposit.cannot.empty()) return;
    // Nothing to worry about: replicas that have come since then have not got it. The next one will be whole.
    deposit = Deposit{};
    deposit.state = State::kRefused;
    return;
  }
  std::ranges::sort(all);
  const auto next = std::ranges::upper_bound(all, before);
  deposit.from = next == all.end() ? all.front() : *next;
  deposit.heard = now;
  // What it holds may be another one: it says so with its first answer.
  deposit.asked = deposit.next;
  ask(deposit, effects);
}

void Deposits::keep(StageId stage, Deposit& deposit, std::vector<DepositEffect>& effects) {
  const std::size_t count = std::min<std::size_t>(deposit.here.size(), kPiecesKept);
  const bool last = deposit.next == pieces(deposit) && count == deposit.here.size();
  if (deposit.keeps || (count < kPiecesKept && !last)) return;
  const auto end = deposit.here.begin() + static_cast<std::ptrdiff_t>(count);
  effects.push_back(KeepPieces{stage, {deposit.here.begin(), end}});
  ++owed_[stage.value].answers;
  deposit.here.erase(deposit.here.begin(), end);
  deposit.keeps = true;
}

void Deposits::begin(StageId stage, Deposit& deposit, PeerId from, const CheckpointFacts& facts,
                     std::vector<DepositEffect>& effects) {
  Owed& owed = owed_[stage.value];
  owed.void_answers = owed.answers;  // it may still keep pieces of another one
  ++owed.answers;
  deposit.state = State::kBegins;
  deposit.facts = facts;
  deposit.said = from;
  deposit.here.clear();
  deposit.keeps = false;
  effects.push_back(BeginDeposit{stage, facts});
}

void Deposits::finish(StageId stage, Deposit& deposit, std::vector<DepositEffect>& effects) {
  deposit.state = State::kFinishes;
  ++owed_[stage.value].answers;
  effects.push_back(FinishDeposit{stage, *deposit.facts});
}

// The deposit that the vault's answer is about; null: it is not under way any more.
Deposits::Deposit* Deposits::answered(StageId stage) {
  Owed& owed = owed_[stage.value];
  if (owed.answers == 0) return nullptr;
  --owed.answers;
  if (owed.void_answers > 0) {
    --owed.void_answers;
    return nullptr;
  }
  const auto at = deposits_.find(stage);
  if (at == deposits_.end() || is_over(at->second) || at->second.state == State::kAsks) return nullptr;
  return &at->second;
}

void Deposits::ask(Deposit& deposit, std::vector<DepositEffect>& effects) const {
  const auto want = [&](std::uint32_t index) {
    effects.push_back(AskForPiece{deposit.from, {version_, timeline_, index}});
  };
  if (deposit.state == State::kAsks) return want(protocol::kFactsOnly);
  const std::uint32_t room =
      deposit.here.size() >= kPiecesKept ? 0 : std::min<std::uint32_t>(kAhead, pieces(deposit) - deposit.next);
  for (; deposit.asked < deposit.next + room; ++deposit.asked) want(deposit.asked);
}

std::vector<DepositEffect> Deposits::received(PeerId from, const protocol::CheckpointPiece& piece, Time now) {
  std::vector<DepositEffect> effects;
  if (piece.facts.version != version_) return effects;
  for (auto& [stage, deposit] : deposits_) {
    if (deposit.state == State::kConfirms && deposit.confirms == from) {
      deposit.heard = now;
      if (piece.facts.timeline != timeline_ || piece.facts.bytes == 0) {
        deposit.cannot.insert(from);
        deposit.confirms.reset();
        confirm(stage, deposit, now, effects);
      } else if (piece.facts == *deposit.facts) {
        finish(stage, deposit, effects);
      } else {
        effects.push_back(DepositTrouble{
            fmt::format("workers {} and {} have different checkpoints of step {} of stage {}; the vault takes neither",
                        deposit.from, from, version_, stage)});
        deposit = Deposit{};
        deposit.state = State::kRefused;
      }
      break;
    }
    if (deposit.from != from || (deposit.state != State::kAsks && deposit.state != State::kGets)) continue;
    const auto& facts = piece.facts;
    if (facts.timeline != timeline_ || facts.bytes == 0 || facts.bytes > bytes_max(plan_, stage) ||
        facts.digest.empty()) {
      deposit.cannot.insert(from);
    } else if (deposit.state == State::kAsks) {
      deposit.heard = now;
      begin(stage, deposit, from, facts, effects);
    } else if (facts != *deposit.facts && deposit.said == from) {
      deposit.cannot.insert(from);  // it says now this, now that: that would go on for ever
    } else if (facts != *deposit.facts) {
      begin(stage, deposit, from, facts, effects);  // from the beginning, of this one's
    } else if (piece.index == deposit.next && piece.index < deposit.asked && piece.tensor.values) {
      deposit.heard = now;
      deposit.said = from;
      deposit.gave.insert(from);
      deposit.here.push_back(piece.tensor.values);
      ++deposit.next;
      ++received_;
      keep(stage, deposit, effects);
      ask(deposit, effects);
    }
    break;
  }
  pursue_all(now, effects);
  return effects;
}

std::vector<DepositEffect> Deposits::begun(StageId stage, std::uint32_t pieces_there, Time now) {
  std::vector<DepositEffect> effects;
  Deposit* const under_way = answered(stage);
  if (!under_way || under_way->state != State::kBegins) return effects;
  Deposit& deposit = *under_way;
  deposit.state = State::kGets;
  deposit.next = deposit.asked = std::min(pieces_there, pieces(deposit));
  deposit.gave.clear();
  if (deposit.next > 0) deposit.gave.insert(kCoordinator);
  deposit.heard = now;
  if (deposit.next == pieces(deposit)) {
    deposit.state = State::kConfirms;
    confirm(stage, deposit, now, effects);
  } else {
    ask(deposit, effects);
  }
  return effects;
}

std::vector<DepositEffect> Deposits::kept(StageId stage, Time now) {
  std::vector<DepositEffect> effects;
  Deposit* const under_way = answered(stage);
  if (!under_way || under_way->state != State::kGets || !std::exchange(under_way->keeps, false)) return effects;
  Deposit& deposit = *under_way;
  deposit.heard = now;
  if (deposit.next == pieces(deposit) && deposit.here.empty()) {
    deposit.state = State::kConfirms;
    confirm(stage, deposit, now, effects);
  } else {
    keep(stage, deposit, effects);
    ask(deposit, effects);
  }
  return effects;
}

// By a sibling that has it; if none does, nobody can.
void Deposits::confirm(StageId stage, Deposit& deposit, Time now, std::vector<DepositEffect>& effects) {
  if (deposit.confirms && has(*deposit.confirms, stage) && now - deposit.heard < patience_) return;
  if (deposit.confirms) deposit.neither.insert(*deposit.confirms);
  deposit.confirms.reset();
  if (siblings_agree_)
    for (const auto& holder : holders_)
      if (holder.stage == stage && holder.peer != deposit.from && has(holder.peer, stage) &&
          !deposit.cannot.contains(holder.peer) && !deposit.neither.contains(holder.peer)) {
        deposit.confirms = holder.peer;
        break;
      }
  if (deposit.confirms) {
    deposit.heard = now;
    effects.push_back(AskForPiece{*deposit.confirms, {version_, timeline_, protocol::kFactsOnly}});
    return;
  }
  finish(stage, deposit, effects);
}

std::uint64_t Deposits::finished(StageId stage) {
  Deposit* const deposit = answered(stage);
  if (!deposit || deposit->state != State::kFinishes) return 0;
  *deposit = Deposit{};
  deposit->state = State::kDone;
  vaulted_[stage.value] = std::max(vaulted_[stage.value], version_);
  return version_;
}

std::vector<DepositEffect> Deposits::failed(StageId stage, const std::string& why, bool wrong, Time now) {
  Deposit* const under_way = answered(stage);
  if (!under_way) return {};
  Deposit& deposit = *under_way;
  std::vector<DepositEffect> effects = {DepositTrouble{why}};
  Deposit again;
  again.cannot = std::move(deposit.cannot);
  again.was_mixed = deposit.was_mixed;
  if (wrong) {
    // Of several, any may be to blame: once more, of one alone if it stays.
    const bool mixed = deposit.gave.size() > 1;
    deposit.gave.erase(kCoordinator);
    if (!mixed || std::exchange(again.was_mixed, true)) again.cannot.merge(deposit.gave);
  }
  deposit = std::move(again);
  if (!wrong) deposit.rests_until = now + kVaultRests;
  pursue_all(now, effects);
  return effects;
}

bool Deposits::settled(std::uint64_t version) const {
  if (version_ < version) return false;
  return all_over();
}

std::string Deposits::progress() const {
  std::uint64_t here = 0, all = 0;
  std::size_t stages = 0;
  for (const auto& [stage, deposit] : deposits_) {
    if (is_over(deposit)) continue;
    ++stages;
    if (!deposit.facts) continue;
    all += deposit.facts->bytes;
    here += std::min<std::uint64_t>(deposit.facts->bytes, deposit.next * protocol::kPieceBytes);
  }
  if (stages == 0) return {};
  return fmt::format("step {} goes into the vault: {} of {} MB here, {} of {} stages to go", version_, here >> 20,
                     (all + (1 << 20) - 1) >> 20, stages, deposits_.size());
}

Time Deposits::next_due() const {
  Time due = kNever;
  for (const auto& [stage, deposit] : deposits_) {
    if (is_over(deposit)) continue;
    if (deposit.rests_until != Time{}) due = std::min(due, deposit.rests_until);
    if (deposit.from != kCoordinator && !waits_for_vault(deposit)) due = std::min(due, deposit.heard + patience_);
  }
  return due;
}

}  // namespace isthmus::coordinator
