#include "app/checkpoint_courier.h"

#include <algorithm>
#include <utility>

#include "app/no_checkpoint.h"
#include "base/digest.h"

namespace isthmus::app {

namespace {

constexpr std::size_t kRequestsMax = 256;
constexpr std::uint32_t kAhead = 64;  // pieces that are asked for and not here

}  // namespace

void CheckpointCourier::received(const protocol::CheckpointRequest& request) {
  if (requests_.size() < kRequestsMax && std::ranges::find(requests_, request) == requests_.end())
    requests_.push_back(request);
}

protocol::CheckpointPiece CheckpointCourier::answer(const protocol::CheckpointRequest& request) {
  protocol::CheckpointPiece piece = no_checkpoint(request);
  // The run may have written this version again, since it went back.
  if (!reader_ || reader_->facts().version != request.version || reader_->facts().timeline != request.timeline ||
      request.index == protocol::kFactsOnly) {
    reader_.reset();
    if (auto reader = store::ArchiveReader::open(checkpoints_.place(), request.version)) reader_ = std::move(*reader);
  }
  if (!reader_) return piece;
  const auto& facts = reader_->facts();
  const std::uint64_t begins = std::uint64_t{request.index} * protocol::kPieceBytes;
  if (request.index != protocol::kFactsOnly && begins < facts.bytes) {
    auto bytes = reader_->read(begins, std::min(protocol::kPieceBytes, facts.bytes - begins));
    if (!bytes) return piece;
    piece.tensor.values = share(std::move(*bytes));
  }
  piece.facts = facts;
  return piece;
}

std::vector<protocol::Message> CheckpointCourier::turn(std::uint32_t timeline, router::SpareUplink& uplink, Time now) {
  std::vector<protocol::Message> messages;
  while (!requests_.empty() && (uplink.next_at() <= now || requests_.front().index == protocol::kFactsOnly)) {
    auto piece = answer(requests_.front());
    requests_.pop_front();
    if (const auto bytes = piece.tensor.bytes(); bytes > 0) uplink.sent_spare(bytes, now);
    messages.push_back(std::move(piece));
  }
  const std::uint64_t wanted = checkpoints_.wanted();
  if (wanted == 0) fetch_.reset();
  if (wanted != 0 && (!fetch_ || fetch_->version != wanted)) fetch_.emplace(wanted, timeline);
  if (fetch_) ask(now, messages);
  return messages;
}

void CheckpointCourier::ask(Time now, std::vector<protocol::Message>& messages) {
  const auto want = [&](std::uint32_t index) {
    const auto [at, fresh] = fetch_->asked.try_emplace(index, now);
    if (!fresh && now - at->second < options_.ask_after) return;
    at->second = now;
    messages.push_back(protocol::CheckpointRequest{fetch_->version, fetch_->timeline, index});
  };
  if (!fetch_->writer) return want(protocol::kFactsOnly);
  const std::uint32_t end = protocol::piece_count(fetch_->facts.bytes);
  for (std::uint32_t i = fetch_->next; i < std::min(end, fetch_->next + kAhead); ++i)
    if (!fetch_->here.contains(i)) want(i);
}

bool CheckpointCourier::received(const protocol::CheckpointPiece& piece) {
  if (!fetch_ || piece.facts.version != fetch_->version || fetch_->asked.erase(piece.index) == 0) return false;
  if (piece.facts.bytes == 0) {
    end_fetch(fail("the vault does not give the checkpoint of step {}", piece.facts.version));
    return true;
  }
  if (piece.facts.bytes > options_.bytes_max || !is_digest_hex(piece.facts.digest)) {
    end_fetch(
        fail("the vault says that the checkpoint of step {} has {} bytes and the digest \"{}\"; expected at most "
             "{}, and hexadecimal digits",
             piece.facts.version, piece.facts.bytes, piece.facts.digest, options_.bytes_max));
    return true;
  }
  if (!fetch_->writer) {
    auto writer = store::ArchiveWriter::open(checkpoints_.place(), piece.facts, protocol::kPieceBytes);
    if (!writer) {
      end_fetch(tl::unexpected(writer.error()));
      return true;
    }
    fetch_->writer = std::move(*writer);
    fetch_->facts = piece.facts;
    fetch_->next = static_cast<std::uint32_t>(fetch_->writer->bytes() / protocol::kPieceBytes);
  } else if (piece.facts != fetch_->facts) {
    fetch_.reset();  // from the beginning, of what the vault has now
    return true;
  } else if (piece.tensor.values && piece.index >= fetch_->next) {
    fetch_->here[piece.index] = piece.tensor.values;
  }
  while (!fetch_->here.empty() && fetch_->here.begin()->first == fetch_->next) {
    if (auto written = fetch_->writer->append(*fetch_->here.begin()->second); !written) {
      end_fetch(tl::unexpected(written.error()));
      return true;
    }
    fetch_->here.erase(fetch_->here.begin());
    ++fetch_->next;
  }
  if (fetch_->writer->bytes() == fetch_->facts.bytes) end_fetch(std::move(*fetch_->writer));
  return true;
}

void CheckpointCourier::end_fetch(Result<store::ArchiveWriter> archive) {
  fetch_.reset();
  checkpoints_.arrived(std::move(archive));
}

void CheckpointCourier::ask_anew() {
  requests_.clear();
  if (fetch_) fetch_->asked.clear();
}

Time CheckpointCourier::next_due(const router::SpareUplink& uplink) const {
  Time due = requests_.empty() ? kNever : requests_.front().index == protocol::kFactsOnly ? Time{} : uplink.next_at();
  if (fetch_)
    for (const auto& [index, at] : fetch_->asked) due = std::min(due, at + options_.ask_after);
  return due;
}

std::string CheckpointCourier::progress() const {
  if (!fetch_) return {};
  if (!fetch_->writer) return fmt::format("checkpoint {} from the vault", fetch_->version);
  return fmt::format("checkpoint {} from the vault, {} of {} pieces here", fetch_->version, fetch_->next,
                     protocol::piece_count(fetch_->facts.bytes));
}

}  // namespace isthmus::app
