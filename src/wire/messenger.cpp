#include "wire/messenger.h"

#include <algorithm>

namespace isthmus::wire {

namespace {

constexpr std::uint64_t kReserveMax = 16 << 20;

// Values, then tokens: the order of the payload on the wire.
std::vector<SharedBytes> payload_of(const protocol::Message& message) {
  std::vector<SharedBytes> parts;
  const auto add = [&](const SharedBytes& part) {
    if (part && !part->empty()) parts.push_back(part);
  };
  if (const compress::EncodedTensor* tensor = protocol::tensor_of(message)) {
    add(tensor->values);
    add(tensor->tokens);
  }
  return parts;
}

}  // namespace

void Messenger::send(PeerId to, const protocol::Message& message) {
  const auto parts = payload_of(message);
  FrameHeader header;
  header.kind = static_cast<std::uint8_t>(message.index());
  header.run_id = run_id_;
  header.transfer = ++next_transfer_[to];
  for (const auto& part : parts) header.payload_total += static_cast<std::uint32_t>(part->size());

  const auto put = [&](const SharedBytes& part, std::size_t offset, std::size_t length) {
    transport::Frame frame;
    frame.peer = to;
    frame.priority = protocol::priority_of(message);
    frame.boundary = protocol::traffic_of(message) == protocol::Traffic::kBoundary;
    if (part) frame.payload = part.part(offset, length);
    frame.head = encode_head(header, header.first ? encode_body(message) : Bytes(), *frame.payload);
    sent_[static_cast<std::size_t>(protocol::traffic_of(message))] += frame.bytes();
    header.first = false;
    header.offset += static_cast<std::uint32_t>(length);
    transport_.send(std::move(frame));
  };
  if (parts.empty()) put(nullptr, 0, 0);
  for (const auto& part : parts)
    for (std::size_t at = 0; at < part->size(); at += transport::kChunkBytes)
      put(part, at, std::min(transport::kChunkBytes, part->size() - at));
}

std::optional<protocol::Message> Messenger::receive(transport::Frame frame) {
  std::optional<protocol::Message> complete;
  if (auto accepted = accept(frame, complete); !accepted) {
    ++rejected_;
    last_rejection_ = fmt::format("peer {}: {}", frame.peer, accepted.error().message);
  }
  return complete;
}

Status Messenger::accept(const transport::Frame& frame, std::optional<protocol::Message>& complete) {
  const ByteView slice = *frame.payload;
  const auto head = decode_head(frame.head, slice, run_id_);
  if (!head) return tl::unexpected(head.error());
  const FrameHeader& header = head->header;
  // Forward and Backward, by their place in Message.
  (header.kind == 2 || header.kind == 3 ? boundary_received_ : control_received_) += frame.bytes();
  const auto place = std::pair(frame.peer, header.kind);

  if (header.first) {
    auto body = decode_body(header.kind, head->body, limits_);
    if (!body) return tl::unexpected(body.error());
    if (body->values_bytes + body->tokens_bytes != header.payload_total)
      return fail("payload of {} bytes, its message needs {}", header.payload_total,
                  body->values_bytes + body->tokens_bytes);
    // Lengths are the plan's by now, not the sender's.
    Transfer transfer;
    transfer.id = header.transfer;
    transfer.message = std::move(body->message);
    transfer.total = header.payload_total;
    transfer.values_bytes = body->values_bytes;
    // A sum may be large: it gets its room as it comes.
    transfer.values.reserve(std::min<std::uint64_t>(body->values_bytes, kReserveMax));
    transfer.tokens.reserve(std::min<std::uint64_t>(body->tokens_bytes, kReserveMax));
    open_[place] = std::move(transfer);
  }
  const auto at = open_.find(place);
  if (at == open_.end()) return fail("a further frame of a message that has no first one");
  Transfer& transfer = at->second;
  if (transfer.id != header.transfer || transfer.total != header.payload_total ||
      header.offset != transfer.values.size() + transfer.tokens.size()) {
    open_.erase(at);
    return fail("a frame of a message is missing");
  }
  add_slice(transfer, slice);
  if (transfer.values.size() + transfer.tokens.size() == transfer.total) {
    complete = finish(transfer);
    open_.erase(at);
  } else if (slice.empty()) {
    open_.erase(at);
    return fail("an unfinished message with an empty frame");
  }
  return {};
}

void Messenger::add_slice(Transfer& transfer, ByteView slice) {
  const std::size_t missing = transfer.values_bytes - transfer.values.size();
  const ByteView values = slice.first(std::min(missing, slice.size()));
  const ByteView tokens = slice.subspan(values.size());
  transfer.values.insert(transfer.values.end(), values.begin(), values.end());
  transfer.tokens.insert(transfer.tokens.end(), tokens.begin(), tokens.end());
}

std::optional<protocol::Message> Messenger::finish(Transfer& transfer) {
  if (compress::EncodedTensor* tensor = protocol::tensor_of(transfer.message)) {
    tensor->values = share(std::move(transfer.values));
    if (!transfer.tokens.empty()) tensor->tokens = share(std::move(transfer.tokens));
  }
  return std::move(transfer.message);
}

void Messenger::forget(PeerId peer) {
  std::erase_if(open_, [&](const auto& entry) { return entry.first.first == peer; });
}

void Messenger::add_to(protocol::WorkerStats& stats) const {
  const auto sent = [&](protocol::Traffic traffic) { return sent_[static_cast<std::size_t>(traffic)]; };
  stats.boundary_bytes_sent += sent(protocol::Traffic::kBoundary);
  stats.boundary_bytes_received += boundary_received_;
  stats.sync_bytes_sent += sent(protocol::Traffic::kSync);
  stats.state_bytes_sent += sent(protocol::Traffic::kState);
  stats.control_bytes_sent += sent(protocol::Traffic::kControl);
  stats.control_bytes_received += control_received_;
  stats.rejected_frames += rejected_;
}

}  // namespace isthmus::wire
