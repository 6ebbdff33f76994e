#include "wire/message_checks.h"

#include <algorithm>
#include <cmath>

#include "transport/address.h"

namespace isthmus::wire {

namespace {

// More than anything here takes; larger numbers would overflow a Duration.
constexpr std::uint64_t kDayUs = 86'400'000'000;
constexpr double kBitsPerSecondMax = 1e12;

std::string exactly(std::uint64_t seen, std::uint64_t expected, const char* what) {
  return seen == expected ? "" : fmt::format("{} of {} bytes, the plan says {}", what, seen, expected);
}

std::string at_most(std::uint64_t seen, std::uint64_t limit, const char* what) {
  return seen <= limit ? "" : fmt::format("{} of {} bytes, allowed are {}", what, seen, limit);
}

std::string of_slice(const protocol::OfSlice& slice, std::uint64_t bytes, const Claimed& claimed) {
  if (slice.slice > claimed.limits.members) return fmt::format("slice {} of {}", slice.slice, claimed.limits.members);
  return at_most(claimed.values_bytes, bytes, "a slice of a gradient");
}

// A path without an end would be followed for ever.
std::string of_absent(const std::vector<StageId>& stages, const Limits& limits) {
  const bool ends = std::ranges::any_of(
      stages, [&](StageId stage) { return stage == StageId(0) || stage.value + 1 == limits.stages; });
  return ends ? "the first or the last stage is said to be absent" : "";
}

// ZeroMQ looks a name up while everything else waits, and would take other transports and devices, too.
std::string of_endpoint(const std::string& endpoint) {
  const auto address = transport::read_address(endpoint);
  if (endpoint.empty() || (protocol::is_tcp(endpoint) && address && address->is_numeric())) return "";
  return fmt::format("expected tcp://ADDRESS:PORT with a numeric address, found {}", endpoint);
}

std::string first_of(std::string a, std::string b) { return a.empty() ? std::move(b) : std::move(a); }

}  // namespace

std::string problem(const protocol::Endpoints& endpoints, const Claimed&) {
  return first_of(of_endpoint(endpoints.control), of_endpoint(endpoints.bulk));
}

std::string problem(const protocol::Location& location, const Claimed& claimed) {
  return problem(location.outside, claimed);
}

std::string problem(const protocol::Commit& commit, const Claimed& claimed) {
  if (!std::isfinite(commit.scale)) return "a commit's scale is not finite";
  return of_absent(commit.absent, claimed.limits);
}

std::string problem(const protocol::Load& load, const Claimed&) {
  return load.backlog_us > kDayUs || load.service_us > kDayUs ? "a load of more than a day" : "";
}

std::string problem(const protocol::LinkFigures& link, const Claimed&) {
  for (const double rate : {link.sent_bits_per_second, link.received_bits_per_second})
    if (!(rate >= 0 && rate <= kBitsPerSecondMax))
      return fmt::format("expected a rate up to {} bits per second", kBitsPerSecondMax);
  return {};
}

std::string problem(const protocol::Piece& piece, const Claimed& claimed) {
  const bool journal = piece.kind == protocol::PieceKind::kInput || piece.kind == protocol::PieceKind::kGradient;
  return journal && piece.index >= claimed.limits.microbatches
             ? fmt::format("microbatch {} of {}", piece.index, claimed.limits.microbatches)
             : "";
}

std::string problem(const protocol::View& view, const Claimed& claimed) {
  if (view.since > view.epoch) return "it builds upon a later view";
  if (view.dealt_again > view.epoch) return "it tells of a later decision";
  if (view.head_again.size() != view.head_owner.size()) return "head owners and flags differ in number";
  return of_absent(view.absent, claimed.limits);
}

std::string problem(const protocol::Forward&, const Claimed& claimed) {
  return first_of(exactly(claimed.values_bytes, claimed.limits.forward_bytes, "coefficients"),
                  exactly(claimed.tokens_bytes, claimed.limits.token_bytes, "token ids"));
}

std::string problem(const protocol::Backward&, const Claimed& claimed) {
  return exactly(claimed.values_bytes, claimed.limits.backward_bytes, "gradients");
}

std::string problem(const protocol::Part& part, const Claimed& claimed) {
  return of_slice(part, claimed.limits.part_bytes, claimed);
}

std::string problem(const protocol::Total& total, const Claimed& claimed) {
  return of_slice(total, claimed.limits.total_bytes, claimed);
}

std::string problem(const protocol::Chunk& chunk, const Claimed& claimed) {
  switch (chunk.piece.kind) {
    case protocol::PieceKind::kInput:
      return problem(protocol::Forward(), claimed);
    case protocol::PieceKind::kGradient:
      return first_of(problem(protocol::Backward(), claimed), exactly(claimed.tokens_bytes, 0, "token ids"));
    case protocol::PieceKind::kSnapshot:
    case protocol::PieceKind::kUpdate:
    case protocol::PieceKind::kOwnUpdate:
    case protocol::PieceKind::kAgreement:
    case protocol::PieceKind::kVerdict:
      break;
  }
  return first_of(at_most(claimed.values_bytes, protocol::kPieceBytes, "a piece of a state"),
                  exactly(claimed.tokens_bytes, 0, "token ids"));
}

std::string problem(const protocol::Sounding& sounding, const Claimed& claimed) {
  return first_of(at_most(sounding.reply_bytes, protocol::kSoundingBytes, "an answer to a sounding"),
                  at_most(claimed.values_bytes, protocol::kSoundingBytes, "a sounding"));
}

std::string problem(const protocol::Echo&, const Claimed& claimed) {
  return at_most(claimed.values_bytes, protocol::kSoundingBytes, "an echo");
}

std::string problem(const protocol::TokenIds&, const Claimed& claimed) {
  return first_of(exactly(claimed.values_bytes, 0, "coefficients"),
                  exactly(claimed.tokens_bytes, claimed.limits.token_bytes, "token ids"));
}

std::string problem(const protocol::CheckpointPiece& piece, const Claimed& claimed) {
  const std::uint64_t begins = piece.index * protocol::kPieceBytes;
  const std::uint64_t left = begins < piece.facts.bytes ? piece.facts.bytes - begins : 0;
  return exactly(claimed.values_bytes, std::min(left, protocol::kPieceBytes), "a piece of a checkpoint");
}

}  // namespace isthmus::wire
