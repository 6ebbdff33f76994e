#include "app/vault_server.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <ranges>

#include "app/no_checkpoint.h"

namespace isthmus::app {

namespace {

constexpr std::uint64_t kPiecesInBlock = store::SealedCheckpoints::kBlockBytes / protocol::kPieceBytes;
// Pieces that are read, and wait to be, at a time.
constexpr std::size_t kReadAtOnce = 128;
static_assert(kPiecesInBlock == coordinator::Deposits::kPiecesKept);

}  // namespace

Result<std::unique_ptr<VaultServer>> VaultServer::open(store::SealedCheckpoints vault, const protocol::Plan& plan,
                                                       const Options& options) {
  const auto kept = vault.kept();
  if (!kept) return tl::unexpected(kept.error());
  // Another key shows now, not when a stage is lost.
  if (!kept->empty())
    if (auto facts = vault.facts(kept->back().stage, kept->back().version); !facts)
      return tl::unexpected(facts.error());
  std::map<StageId, std::uint64_t> newest;
  for (const auto& k : *kept) newest[k.stage] = k.version;
  return std::unique_ptr<VaultServer>(new VaultServer(std::move(vault), plan, options, std::move(newest)));
}

VaultServer::VaultServer(store::SealedCheckpoints vault, const protocol::Plan& plan, const Options& options,
                         std::map<StageId, std::uint64_t> newest)
    : plan_(plan),
      options_(options),
      woken_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)),
      deposits_(plan, options.siblings_agree, options.patience),
      withdrawals_(options.bytes_per_second),
      newest_(std::move(newest)),
      vault_(std::move(vault)),
      thread_([this] { work(); }) {}

VaultServer::~VaultServer() {
  stop_ = true;
  jobs_.close();
  thread_.join();
  if (woken_ >= 0) ::close(woken_);
}

// While as many pieces are read as may be, the next one waits for the other thread, not for a time.
Time VaultServer::next_due() const {
  return std::min(deposits_.next_due(), under_way_.size() < kReadAtOnce ? withdrawals_.next_due() : kNever);
}

void VaultServer::received(PeerId from, const protocol::CheckpointPiece& piece, Time now) {
  carry_out(deposits_.received(from, piece, now));
}

void VaultServer::asked(const coordinator::Decisions& decisions, PeerId from,
                        const protocol::CheckpointRequest& request) {
  const auto is_it = [&](const auto& piece) { return piece.to == from && piece.request == request; };
  if (std::ranges::any_of(under_way_, is_it) || withdrawals_.asked(decisions, from, request)) return;
  // So that it does not wait for it.
  turn_.messages.emplace_back(from, no_checkpoint(request));
}

VaultServer::Turn VaultServer::turn(const coordinator::Decisions& decisions,
                                    const std::vector<coordinator::CheckpointHolder>& holders, Time now) {
  std::uint64_t count;
  [[maybe_unused]] const auto n = ::read(woken_, &count, sizeof count);
  whole_ = decisions.whole;
  if (const std::size_t timelines = decisions.rollbacks.size(); timelines_ != timelines) {
    const bool begins = !timelines_;
    timelines_ = timelines;
    deposits_.went_back(timelines == 0 ? 0 : decisions.rollbacks.back(), static_cast<std::uint32_t>(timelines));
    for (const auto& [stage, version] : newest_)
      if (begins && stage.value < plan_.stages.size()) deposits_.has_vaulted(stage, version);
    if (timelines > 0) jobs_.push(Forget{decisions.rollbacks});
  }
  while (auto done = done_.try_pop()) std::visit([&](const auto& d) { take(d, now); }, *done);
  carry_out(deposits_.look(holders, now));
  for (const auto& piece : withdrawals_.next(decisions, kReadAtOnce - std::min(kReadAtOnce, under_way_.size()), now)) {
    under_way_.push_back(piece);
    jobs_.push(Read{piece});
  }
  return std::exchange(turn_, {});
}

void VaultServer::carry_out(std::vector<coordinator::DepositEffect> effects) {
  for (auto& effect : effects) {
    if (auto* ask = std::get_if<coordinator::AskForPiece>(&effect))
      turn_.messages.emplace_back(ask->from, ask->request);
    else if (auto* begin = std::get_if<coordinator::BeginDeposit>(&effect))
      jobs_.push(Begin{begin->stage, begin->facts});
    else if (auto* keep = std::get_if<coordinator::KeepPieces>(&effect))
      jobs_.push(Keep{keep->stage, std::move(keep->pieces)});
    else if (auto* finish = std::get_if<coordinator::FinishDeposit>(&effect))
      jobs_.push(Finish{finish->stage, finish->facts, whole_});
    else
      turn_.troubles.push_back(std::get<coordinator::DepositTrouble>(effect).what);
  }
}

void VaultServer::take(const Done& done, Time now) {
  if (const auto* begun = std::get_if<Begun>(&done)) {
    carry_out(deposits_.begun(begun->stage, begun->pieces, now));
  } else if (const auto* kept = std::get_if<Kept>(&done)) {
    carry_out(deposits_.kept(kept->stage, now));
  } else if (const auto* finished = std::get_if<Finished>(&done)) {
    if (const std::uint64_t version = deposits_.finished(finished->stage))
      turn_.vaulted.emplace_back(finished->stage, version);
  } else if (const auto* failed = std::get_if<Failed>(&done)) {
    carry_out(deposits_.failed(failed->stage, failed->why, failed->wrong, now));
  } else if (const auto* read = std::get_if<WasRead>(&done)) {
    std::erase(under_way_, read->asked);
    if (!read->trouble.empty()) turn_.troubles.push_back(read->trouble);
    turn_.messages.emplace_back(read->asked.to, read->piece);
  }
}

// ------------------------------------------------------------------------------------------- the other thread

void VaultServer::work() {
  while (auto job = jobs_.pop()) {
    if (stop_) return;
    Done done = std::visit([&](const auto& j) { return carry_out(j); }, *job);
    done_.push(std::move(done));
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto n = ::write(woken_, &one, sizeof one);
  }
}

// What is there of it is read once more: only the digests of all of it say whether it is good.
VaultServer::Done VaultServer::carry_out(const Begin& job) {
  // Another one may have the version of what was read.
  read_facts_.erase(job.stage);
  last_block_.erase(job.stage);
  const auto there = vault_.begin(job.stage, job.facts);
  if (!there) return Failed{job.stage, there.error().message};
  const auto& stage = plan_.stages[job.stage.value];
  const store::CheckpointPlace place{"", job.stage, stage.first_layer, stage.end_layer, ReplicaId(0)};
  Open open{job.facts, store::ArchiveCheck(place, job.facts), 0};
  for (; open.blocks < *there; ++open.blocks) {
    const auto block = vault_.block(job.stage, job.facts, open.blocks);
    if (!block) break;
    open.check.update(*block);
  }
  const auto pieces = static_cast<std::uint32_t>(
      std::min<std::uint64_t>(open.blocks * kPiecesInBlock, protocol::piece_count(job.facts.bytes)));
  open_.insert_or_assign(job.stage, std::move(open));
  return Begun{job.stage, pieces};
}

VaultServer::Done VaultServer::carry_out(const Keep& job) {
  const auto open = open_.find(job.stage);
  if (open == open_.end()) return Failed{job.stage, "nothing was begun"};
  const SharedBytes block = joined(job.pieces);
  open->second.check.update(*block);
  // What is not good is known at its first block.
  if (const auto& why = open->second.check.problem(); !why.empty()) {
    open_.erase(open);
    return Failed{job.stage, why, true};
  }
  if (auto put = vault_.put(job.stage, open->second.facts, open->second.blocks, *block); !put)
    return Failed{job.stage, put.error().message};
  ++open->second.blocks;
  return Kept{job.stage};
}

VaultServer::Done VaultServer::carry_out(const Finish& job) {
  const auto open = open_.find(job.stage);
  if (open == open_.end()) return Failed{job.stage, "nothing was begun"};
  const Status good = open->second.check.end();
  open_.erase(open);
  if (!good) {
    (void)vault_.remove(job.stage, job.facts.version);
    return Failed{job.stage, good.error().message, true};
  }
  if (auto finished = vault_.finish(job.stage, job.facts); !finished)
    return Failed{job.stage, finished.error().message};
  prune(job);
  return Finished{job.stage};
}

// The newest few stay, and what is not older than the newest version of all stages: a run goes back to no other. What
// cannot be removed is so the next time.
void VaultServer::prune(const Finish& job) {
  const auto kept = vault_.kept();
  if (!kept) return;
  std::uint32_t stay = 0;
  for (const auto& k : *kept | std::views::reverse)
    if (k.stage == job.stage && ++stay > options_.keep && k.version < job.whole)
      (void)vault_.remove(k.stage, k.version);
}

VaultServer::Done VaultServer::carry_out(const Forget& job) {
  read_facts_.clear();
  last_block_.clear();
  open_.clear();
  const auto kept = vault_.kept();
  if (!kept) return Forgotten{};
  for (const auto& k : *kept) {
    const auto facts = vault_.facts(k.stage, k.version);
    if (!facts || !*facts) continue;
    const auto since = std::min<std::size_t>((*facts)->timeline, job.rollbacks.size());
    if (std::any_of(job.rollbacks.begin() + static_cast<std::ptrdiff_t>(since), job.rollbacks.end(),
                    [&](std::uint64_t version) { return version < k.version; }))
      (void)vault_.remove(k.stage, k.version);
  }
  return Forgotten{};
}

Result<Bytes> VaultServer::block(StageId stage, const CheckpointFacts& facts, std::uint32_t index) {
  Block& last = last_block_[stage];
  if (last.bytes.empty() || last.version != facts.version || last.index != index) {
    auto bytes = vault_.block(stage, facts, index);
    if (!bytes) return bytes;
    last = Block{facts.version, index, std::move(*bytes)};
  }
  return last.bytes;
}

VaultServer::Done VaultServer::carry_out(const Read& job) {
  const auto& [to, stage, request] = job.piece;
  WasRead read{job.piece, no_checkpoint(request), ""};
  auto& facts = read_facts_[stage];
  if (facts.version != request.version) {
    const auto there = vault_.facts(stage, request.version);
    if (!there || !*there) {
      read.trouble = there ? fmt::format("the vault {} has no checkpoint of step {} of stage {}", vault_.place(),
                                         request.version, stage)
                           : there.error().message;
      return read;
    }
    facts = **there;
  }
  read.piece.facts = facts;
  const std::uint64_t begins = std::uint64_t{request.index} * protocol::kPieceBytes;
  if (request.index == protocol::kFactsOnly || begins >= facts.bytes) return read;
  const auto bytes = block(stage, facts, static_cast<std::uint32_t>(request.index / kPiecesInBlock));
  if (!bytes) {
    read.trouble = bytes.error().message;
    read.piece.facts.bytes = 0;
    return read;
  }
  const std::size_t offset = request.index % kPiecesInBlock * protocol::kPieceBytes;
  const auto from = bytes->begin() + static_cast<std::ptrdiff_t>(offset);
  const auto count = std::min<std::size_t>(protocol::kPieceBytes, bytes->size() - offset);
  read.piece.tensor.values = share(Bytes(from, from + static_cast<std::ptrdiff_t>(count)));
  return read;
}

}  // namespace isthmus::app
