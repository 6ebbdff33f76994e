#pragma once

namespace isthmus {

// Bytes on the wire for each of payload, in full segments: Ethernet, IP and TCP with timestamps.
inline constexpr double kFraming = 1514.0 / 1448.0;

}  // namespace isthmus
