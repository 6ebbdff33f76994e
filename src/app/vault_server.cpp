#include "app/vault_server.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <ranges>

namespace isthmus::app {

namespace {

constexpr std::uint64_t kPiecesInBlock = store::SealedCheckpoints::kBlockBytes / protocol::kPieceBytes;
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
  return std::unique_ptr<VaultServer>(new VaultServer(std::move(vault), plan, options));
}

VaultServer::VaultServer(store::SealedCheckpoints vault, const protocol::Plan& plan, const Options& options)
    : plan_(plan),
      options_(options),
      woken_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)),
      deposits_(plan, options.siblings_agree, options.patience),
      withdrawals_(options.bytes_per_second),
      vault_(std::move(vault)),
      thread_([this] { work(); }) {}

VaultServer::~VaultServer() {
  jobs_.close();
  thread_.join();
  if (woken_ >= 0) ::close(woken_);
}

void VaultServer::received(PeerId from, const protocol::CheckpointPiece& piece, Time now) {
  carry_out(deposits_.received(from, piece, now));
}

void VaultServer::asked(const coordinator::Decisions& decisions, PeerId from,
                        const protocol::CheckpointRequest& request) {
  if (withdrawals_.asked(decisions, from, request)) return;
  // So that it does not wait for it.
  turn_.messages.emplace_back(from,
                              protocol::CheckpointPiece{{request.version, request.timeline, 0, ""}, request.index, {}});
}

VaultServer::Turn VaultServer::turn(const coordinator::Decisions& decisions,
                                    const std::vector<coordinator::CheckpointHolder>& holders, Time now) {
  std::uint64_t count;
  [[maybe_unused]] const auto n = ::read(woken_, &count, sizeof count);
  deposits_.went_back(decisions.rollbacks.empty() ? 0 : decisions.rollbacks.back(),
                      static_cast<std::uint32_t>(decisions.rollbacks.size()));
  for (StageId stage(0); stage.value < decisions.checkpointed.size(); stage = StageId(stage.value + 1))
    deposits_.has_vaulted(stage, decisions.checkpointed[stage.value]);
  while (auto done = done_.try_pop()) std::visit([&](const auto& d) { take(d, now); }, *done);
  carry_out(deposits_.look(holders, now));
  for (auto& piece : withdrawals_.next(decisions, now)) jobs_.push(Read{piece});
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
      jobs_.push(Finish{finish->stage, finish->facts});
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
    if (!read->trouble.empty()) turn_.troubles.push_back(read->trouble);
    turn_.messages.emplace_back(read->to, read->piece);
  }
}

// ------------------------------------------------------------------------------------------- the other thread

void VaultServer::work() {
  while (auto job = jobs_.pop()) {
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
  last_block_.reset();
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
  prune(job.stage, job.facts.version);
  return Finished{job.stage};
}

// A run goes back to none that is older than the newest few, and what is newer than the newest belongs to a past that
// did not happen. What cannot be removed is so the next time.
void VaultServer::prune(StageId stage, std::uint64_t newest) {
  const auto kept = vault_.kept();
  if (!kept) return;
  std::uint32_t stay = 0;
  for (const auto& k : *kept | std::views::reverse)
    if (k.stage == stage && (k.version > newest || ++stay > options_.keep)) (void)vault_.remove(stage, k.version);
}

Result<Bytes> VaultServer::block(StageId stage, const CheckpointFacts& facts, std::uint32_t index) {
  if (!last_block_ || last_block_->stage != stage || last_block_->version != facts.version ||
      last_block_->index != index) {
    auto bytes = vault_.block(stage, facts, index);
    if (!bytes) return bytes;
    last_block_ = Block{stage, facts.version, index, std::move(*bytes)};
  }
  return last_block_->bytes;
}

VaultServer::Done VaultServer::carry_out(const Read& job) {
  const auto& [to, stage, request] = job.piece;
  WasRead read{to, {{request.version, request.timeline, 0, ""}, request.index, {}}, ""};
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
