#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace isthmus {

// Seconds as people say them, rounded down: "45 s", "12 min", "26 h", "9 days".
std::string plain_duration(std::uint64_t seconds);
// "30s", "90 min", "24h", "7d"; a number without a unit is seconds. Nothing: it is none of them, or above a century.
std::optional<std::uint64_t> read_duration(std::string_view text);

}  // namespace isthmus
