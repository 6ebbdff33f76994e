#include "protocol/message.h"

#include <utility>

namespace isthmus::protocol {

namespace {

template <class Body>
concept HasTensor = requires(const Body& body) { body.tensor; };

}  // namespace

TokenIds token_ids(const Sample& sample, Bytes ids) {
  TokenIds message{sample, {nullptr, share(std::move(ids))}};
  compress::seal(message.tensor);
  return message;
}

const compress::EncodedTensor* tensor_of(const Message& message) {
  return std::visit(
      [](const auto& body) -> const compress::EncodedTensor* {
        if constexpr (HasTensor<std::decay_t<decltype(body)>>)
          return &body.tensor;
        else
          return nullptr;
      },
      message);
}

compress::EncodedTensor* tensor_of(Message& message) {
  return const_cast<compress::EncodedTensor*>(tensor_of(static_cast<const Message&>(message)));
}

Traffic traffic_of(const Message& message) {
  if (std::holds_alternative<Forward>(message) || std::holds_alternative<Backward>(message)) return Traffic::kBoundary;
  if (std::holds_alternative<Part>(message) || std::holds_alternative<Total>(message)) return Traffic::kSync;
  if (const auto* chunk = std::get_if<Chunk>(&message))
    return chunk->piece.kind >= PieceKind::kOwnUpdate ? Traffic::kSync : Traffic::kState;
  if (std::holds_alternative<CheckpointPiece>(message)) return Traffic::kState;
  return Traffic::kControl;
}

Priority priority_of(const Message& message) {
  switch (traffic_of(message)) {
    case Traffic::kBoundary:
      return std::holds_alternative<Backward>(message) ? Priority::kGradient : Priority::kActivation;
    case Traffic::kSync:
      // Gradients that are added up hold up the step; updates have all of it to arrive.
      return std::holds_alternative<Chunk>(message) ? Priority::kState : Priority::kActivation;
    case Traffic::kState:
      return Priority::kState;
    case Traffic::kControl:
      break;
  }
  // A head may have nothing else to do until they are there.
  if (std::holds_alternative<TokenIds>(message)) return Priority::kActivation;
  // Else only Soundings and Echoes are control and may have a payload.
  if (const compress::EncodedTensor* tensor = tensor_of(message); tensor && tensor->values && !tensor->values->empty())
    return Priority::kState;
  return std::holds_alternative<Ask>(message) ? Priority::kActivation : Priority::kControl;
}

}  // namespace isthmus::protocol
