#include "record/signed_lines.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>

#include "base/digest.h"

namespace isthmus::record {

namespace {

constexpr std::string_view kLabel = "isthmus log line\n";
constexpr std::string_view kFirst = "isthmus log 1 signed by ";
const std::string kNothingBefore(64, '0');

struct Line {
  std::uint64_t number = 0;
  std::string_view before;  // hash of the line before
  Signature signature{};
  std::string_view text;
};

std::string signed_part(std::uint64_t number, std::string_view before, std::string_view text) {
  return fmt::format("{}{} {} {}", kLabel, number, before, text);
}

std::string compose(const Identity& signer, std::uint64_t number, std::string_view before, std::string_view text) {
  return fmt::format("{} {} {} {}", number, before, to_hex(signer.sign(bytes_of(signed_part(number, before, text)))),
                     text);
}

std::optional<Line> take_apart(std::string_view written) {
  Line line;
  const auto [end, error] = std::from_chars(written.data(), written.data() + written.size(), line.number);
  if (error != std::errc()) return std::nullopt;
  std::string_view rest = written.substr(static_cast<std::size_t>(end - written.data()));
  constexpr std::size_t kHash = 64, kSignature = 128;
  if (rest.size() < kHash + kSignature + 3 || rest[0] != ' ' || rest[kHash + 1] != ' ' ||
      rest[kHash + kSignature + 2] != ' ' || !from_hex(rest.substr(kHash + 2, kSignature), line.signature))
    return std::nullopt;
  line.before = rest.substr(1, kHash);
  line.text = rest.substr(kHash + kSignature + 3);
  return line;
}

bool is_signed(const Line& line, const IdentityKey& key) {
  return signed_by(key, bytes_of(signed_part(line.number, line.before, line.text)), line.signature);
}

// What happened to a line that bears the right signature and another number than its place.
std::string displaced(std::uint64_t place, std::uint64_t number, const std::map<std::uint64_t, std::uint64_t>& places) {
  if (number < place)
    return fmt::format("was written as line {}; it was {}", number,
                       places.at(number) < place ? "added a second time" : "moved here");
  if (places.contains(place))
    return fmt::format("was written as line {}; it was moved here, and line {} is now line {}", number, place,
                       places.at(place));
  return number == place + 1 ? fmt::format("was dropped: the next one is line {}", number)
                             : fmt::format("was dropped, with those up to {}", number - 1);
}

}  // namespace

SignedLines SignedLines::begin(Identity signer) { return {std::move(signer), 0, kNothingBefore}; }

std::string SignedLines::first_line() { return line(fmt::format("{}{}", kFirst, to_hex(signer_.key()))); }

std::string SignedLines::line(std::string_view text) {
  std::string written = compose(signer_, ++number_, last_hash_, text);
  last_hash_ = digest_hex(bytes_of(written));
  return written;
}

tl::expected<CheckedLines, LineFlaw> check_lines(std::string_view file, Signatures signatures) {
  const auto flaw = [](std::uint64_t line, std::string what) {
    return tl::unexpected(LineFlaw{line, std::move(what)});
  };
  CheckedLines checked;
  std::vector<std::string_view> written;
  for (std::size_t at = 0; at < file.size();) {
    const auto end = file.find('\n', at);
    checked.torn = end == std::string_view::npos;
    if (checked.torn) break;
    written.push_back(file.substr(at, end - at));
    at = end + 1;
  }
  checked.last_hash = kNothingBefore;
  if (written.empty()) return checked;

  std::vector<std::optional<Line>> lines;
  std::map<std::uint64_t, std::uint64_t> places;  // number -> first place with it
  for (const auto text : written) {
    lines.push_back(take_apart(text));
    if (lines.back()) places.emplace(lines.back()->number, lines.size());
  }
  // Whose log it is: the first line says so, wherever it is now.
  IdentityKey& key = checked.signer;
  const auto names_key = [&](const std::optional<Line>& line) {
    return line && line->number == 1 && line->text.starts_with(kFirst) &&
           from_hex(line->text.substr(kFirst.size()), key) && is_signed(*line, key);
  };
  if (!std::ranges::any_of(lines, names_key))
    return flaw(1, "does not say whose log this is: it was changed or dropped, or an older version wrote it");

  for (std::uint64_t place = 1; place <= lines.size(); ++place) {
    const auto& line = lines[place - 1];
    const bool look = signatures == Signatures::kAll || place == lines.size();
    std::string what;
    if (!line)
      what = "was changed: it is not a number, a hash, a signature and a text";
    else if (look && !is_signed(*line, key))
      what = "was changed, or added by somebody else: the signature does not fit";
    else if (line->number != place)
      what = displaced(place, line->number, places);
    else if (line->before != checked.last_hash)
      what = "does not follow the line before it, which belongs to another log of the same signer";
    if (!what.empty()) {
      if (signatures == Signatures::kLast) return check_lines(file, Signatures::kAll);
      return flaw(place, std::move(what));
    }
    checked.last_hash = digest_hex(bytes_of(written[place - 1]));
    if (place > 1) checked.texts.emplace_back(line->text);
  }
  checked.number = lines.size();
  return checked;
}

}  // namespace isthmus::record
