#include "wire/frame.h"

#include "base/digest.h"
#include "base/little_endian.h"

namespace isthmus::wire {

namespace {

constexpr std::uint32_t kMagic = 0x48545349;  // "ISTH"
constexpr std::uint8_t kVersion = 3;
constexpr std::size_t kChecksumAt = 32;

std::uint64_t frame_checksum(ByteView fields, ByteView body, ByteView slice) {
  return checksum(slice, checksum(body, checksum(fields)));
}

}  // namespace

Bytes encode_head(const FrameHeader& header, ByteView body, ByteView slice) {
  Bytes head;
  head.reserve(kFrameHeaderBytes + body.size());
  append_le(head, kMagic);
  append_le(head, kVersion);
  append_le(head, header.kind);
  append_le(head, static_cast<std::uint16_t>(header.first ? 1 : 0));
  append_le(head, header.run_id);
  append_le(head, header.transfer);
  append_le(head, header.payload_total);
  append_le(head, header.offset);
  append_le(head, static_cast<std::uint32_t>(body.size()));
  append_le(head, frame_checksum(head, body, slice));
  head.insert(head.end(), body.begin(), body.end());
  return head;
}

Result<DecodedHead> decode_head(ByteView head, ByteView slice, std::uint64_t run_id) {
  if (head.size() < kFrameHeaderBytes)
    return fail("frame of {} bytes is shorter than its header of {}", head.size(), kFrameHeaderBytes);
  const ByteView fields = head.first(kChecksumAt);
  const ByteView body = head.subspan(kFrameHeaderBytes);
  ByteView in = head;
  if (*take_le<std::uint32_t>(in) != kMagic) return fail("frame does not begin with the magic number");
  if (const auto version = *take_le<std::uint8_t>(in); version != kVersion)
    return fail("frame has protocol version {}, this is {}; use the same release everywhere", version, kVersion);
  DecodedHead decoded;
  decoded.header.kind = *take_le<std::uint8_t>(in);
  const auto flags = *take_le<std::uint16_t>(in);
  decoded.header.first = flags == 1;
  decoded.header.run_id = *take_le<std::uint64_t>(in);
  decoded.header.transfer = *take_le<std::uint32_t>(in);
  decoded.header.payload_total = *take_le<std::uint32_t>(in);
  decoded.header.offset = *take_le<std::uint32_t>(in);
  const auto body_length = *take_le<std::uint32_t>(in);
  if (decoded.header.run_id != run_id) return fail("frame belongs to another run");
  if (flags > 1) return fail("frame has unknown flags {}", flags);
  if (body_length != body.size())
    return fail("frame announces a body of {} bytes and has {}", body_length, body.size());
  if (std::uint64_t{decoded.header.offset} + slice.size() > decoded.header.payload_total)
    return fail("frame's slice ends behind its payload of {} bytes", decoded.header.payload_total);
  if (decoded.header.first ? decoded.header.offset != 0 : !body.empty())
    return fail("only a message's first frame carries a body");
  if (*take_le<std::uint64_t>(in) != frame_checksum(fields, body, slice))
    return fail("frame's checksum does not match");
  decoded.body = body;
  return decoded;
}

}  // namespace isthmus::wire
