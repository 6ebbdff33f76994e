#pragma once

#include <cstdint>

#include "base/bytes.h"
#include "base/result.h"
#include "transport/transport.h"

namespace isthmus::wire {

// The fixed head of every frame, 40 bytes, little-endian (docs/protocol.md, "Frames"). A message is one frame, or,
// when its payload is larger than a chunk, a first frame with the body and further ones with payload only.
struct FrameHeader {
  std::uint8_t kind = 0;  // position in Message (protocol/message.h)
  bool first = true;      // carries the body
  std::uint64_t run_id = 0;
  std::uint32_t transfer = 0;       // counts the messages of one sender to one receiver
  std::uint32_t payload_total = 0;  // of the whole message, bytes
  std::uint32_t offset = 0;         // of this frame's slice in it
  friend bool operator==(const FrameHeader&, const FrameHeader&) = default;
};

inline constexpr std::size_t kFrameHeaderBytes = 40;

// Header, checksum included, and body.
Bytes encode_head(const FrameHeader& header, ByteView body, ByteView slice);

struct DecodedHead {
  FrameHeader header;
  ByteView body;  // inside the bytes given
};
// Checks magic, version, run, lengths and checksum; allocates nothing.
Result<DecodedHead> decode_head(ByteView head, ByteView slice, std::uint64_t run_id);

}  // namespace isthmus::wire
