#pragma once

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <concepts>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace isthmus::app {

// As in a run file: TOML's integers are signed.
inline constexpr std::uint64_t kSeedMax = std::numeric_limits<std::int64_t>::max();

// What help calls a number; tests find every option of a number by it.
inline constexpr char kWholeNumber[] = "N", kRealNumber[] = "X";

// The number of [low, high] that `text` is, to the base 10 whatever it begins with. Neither NaN nor anything infinite
// is one.
template <class T>
std::optional<T> read_number(const std::string& text, T low, T high) {
  T value{};
  const char* const end = text.data() + text.size();
  const auto [read_to, error] = std::from_chars(text.data(), end, value);
  if (error == std::errc() && read_to == end && value >= low && value <= high) return value;
  return std::nullopt;
}

// Why it is none; empty: it is one.
template <class T>
std::string number_flaw(const std::string& text, T low, T high) {
  if (read_number(text, low, high)) return "";
  return fmt::format("\"{}\" was given, expected {} from {} to {}", text,
                     std::is_floating_point_v<T> ? "a number" : "a whole number", low, high);
}

template <class T>
struct NumberOf {
  using type = T;
};
template <class T>
struct NumberOf<std::optional<T>> {
  using type = T;
};
template <class T>
struct NumberOf<std::vector<T>> {
  using type = T;
};
template <class T>
inline constexpr bool kIsVector = false;
template <class T>
inline constexpr bool kIsVector<std::vector<T>> = true;

// Every option that takes a number is added by this. A number of another kind or outside of [low, high] is refused with
// a sentence. Help tells the range and the value that `value` has now; if that is an optional, `what` says what happens
// without the option. `why`: why no others are taken, if that is not plain.
template <class T, class Number = typename NumberOf<T>::type>
CLI::Option* add_number(CLI::App& command, const std::string& name, T& value, const std::string& what,
                        std::type_identity_t<Number> low, std::type_identity_t<Number> high,
                        const std::string& why = "") {
  // CLI11 would take "010" for 8.
  const auto take = [&value, low, high](const CLI::results_t& texts) {
    T taken{};
    for (const auto& text : texts) {
      const auto number = read_number<Number>(text, low, high);
      if (!number) return false;
      if constexpr (kIsVector<T>)
        taken.push_back(*number);
      else
        taken = *number;
    }
    value = std::move(taken);
    return true;
  };
  const auto show = [&]() -> std::string {
    if constexpr (std::is_arithmetic_v<T>) return CLI::detail::to_string(value);
    return "";
  };
  CLI::Option* option =
      command.add_option(name, take, fmt::format("{} ({} to {})", what, low, high), std::is_arithmetic_v<T>, show);
  option->type_name(std::is_floating_point_v<Number> ? kRealNumber : kWholeNumber);
  const auto check = [low, high, why](const std::string& text) {
    const std::string flaw = number_flaw<Number>(text, low, high);
    return flaw.empty() || why.empty() ? flaw : flaw + ": " + why;
  };
  option->check(check, "");
  return option;
}

}  // namespace isthmus::app
