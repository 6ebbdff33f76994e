#include "base/plain_duration.h"

#include <fmt/format.h>

#include <charconv>

namespace isthmus {

namespace {

constexpr std::uint64_t kMinute = 60, kHour = 60 * kMinute, kDay = 24 * kHour, kCentury = 36'525 * kDay;

}  // namespace

std::string plain_duration(std::uint64_t seconds) {
  if (seconds < 2 * kMinute) return fmt::format("{} s", seconds);
  if (seconds < 2 * kHour) return fmt::format("{} min", seconds / kMinute);
  if (seconds < 2 * kDay) return fmt::format("{} h", seconds / kHour);
  return fmt::format("{} days", seconds / kDay);
}

std::optional<std::uint64_t> read_duration(std::string_view text) {
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc()) return std::nullopt;
  std::string_view unit = text.substr(static_cast<std::size_t>(end - text.data()));
  if (unit.starts_with(' ')) unit.remove_prefix(1);
  std::uint64_t seconds = 0;
  if (unit.empty() || unit == "s") seconds = 1;
  if (unit == "m" || unit == "min") seconds = kMinute;
  if (unit == "h") seconds = kHour;
  if (unit == "d" || unit == "days") seconds = kDay;
  if (seconds == 0 || number > kCentury / seconds) return std::nullopt;
  return number * seconds;
}

}  // namespace isthmus
