#pragma once

#include <string>

#include "wire/message_codec.h"

namespace isthmus::wire {

// What a message's fields must be to each other and to the run, beyond what they are each for itself. `body` has the
// lengths of the payload that is said to follow. Empty: nothing is wrong.
struct Claimed {
  const Limits& limits;
  std::uint64_t values_bytes = 0;
  std::uint64_t tokens_bytes = 0;
};

template <class T>
std::string problem(const T&, const Claimed&) {
  return {};
}
std::string problem(const protocol::Endpoints& endpoints, const Claimed& claimed);
std::string problem(const protocol::Location& location, const Claimed& claimed);
std::string problem(const protocol::Commit& commit, const Claimed& claimed);
std::string problem(const protocol::Load& load, const Claimed& claimed);
std::string problem(const protocol::LinkFigures& link, const Claimed& claimed);
std::string problem(const protocol::Piece& piece, const Claimed& claimed);
std::string problem(const protocol::View& view, const Claimed& claimed);
std::string problem(const protocol::Forward& forward, const Claimed& claimed);
std::string problem(const protocol::Backward& backward, const Claimed& claimed);
std::string problem(const protocol::Part& part, const Claimed& claimed);
std::string problem(const protocol::Total& total, const Claimed& claimed);
std::string problem(const protocol::Chunk& chunk, const Claimed& claimed);
std::string problem(const protocol::Sounding& sounding, const Claimed& claimed);
std::string problem(const protocol::Echo& echo, const Claimed& claimed);
std::string problem(const protocol::TokenIds& ids, const Claimed& claimed);
std::string problem(const protocol::CheckpointPiece& piece, const Claimed& claimed);

}  // namespace isthmus::wire
