#include "data/split_text.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <utility>

#include "base/output_file.h"
#include "base/utf8.h"

namespace isthmus::data {

namespace {

constexpr std::size_t kSplitBytes = 4096;

bool continues(std::uint8_t byte) { return (byte & 0xc0) == 0x80; }

}  // namespace

std::optional<std::size_t> find_malformed(ByteView text) {
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t length = code_point_bytes(text.subspan(at));
    if (length == 0) return at;
    at += length;
  }
  return std::nullopt;
}

ByteView take_piece(ByteView& text) {
  std::size_t length = std::min(text.size(), kSplitBytes);
  if (const void* end = std::memchr(text.data(), '\n', length))
    length = static_cast<std::size_t>(static_cast<const std::uint8_t*>(end) - text.data()) + 1;
  else
    for (int back = 0; back < 3 && length < text.size() && continues(text[length]); ++back) --length;
  const ByteView piece = text.first(length);
  text = text.subspan(length);
  return piece;
}

Result<SplitText> split_text(const std::vector<std::string>& files, double validation_share, TextUnit unit) {
  SplitText split;
  std::size_t size = 0;
  for (const auto& file : files) {
    auto mapped = MappedFile::open(file, "a file of text");
    if (!mapped) return fail("cannot read {}", mapped.error().message);
    if (const auto at = unit == TextUnit::kCodePoint ? find_malformed(mapped->bytes()) : std::nullopt)
      return fail("{} is not UTF-8: byte {} is 0x{:02x}; convert it, for instance with iconv", file, *at,
                  mapped->bytes()[*at]);
    size += mapped->bytes().size();
    split.files.push_back(std::move(*mapped));
  }
  const auto held_out = static_cast<std::size_t>(static_cast<double>(size) * validation_share);
  if (size == 0 || (validation_share > 0 && held_out == 0) || held_out == size)
    return fail("{} bytes of text are too few to hold some out", size);
  std::size_t left = size - held_out;  // for training
  for (const auto& file : split.files) {
    const ByteView bytes = file.bytes();
    std::size_t cut = std::min(left, bytes.size());
    left -= cut;
    if (unit == TextUnit::kCodePoint)
      while (cut < bytes.size() && continues(bytes[cut])) ++cut;
    if (cut > 0) split.train.push_back(bytes.first(cut));
    if (cut < bytes.size()) split.validation.push_back(bytes.subspan(cut));
  }
  if (validation_share > 0 && split.validation.empty())
    return fail("{} bytes of text are too few to hold some out", size);
  return split;
}

Status check_outputs(const std::vector<std::string>& inputs, const std::vector<std::string>& outputs) {
  namespace fs = std::filesystem;
  std::error_code error;
  const auto same = [&](const std::string& a, const std::string& b) {
    // What does not exist yet has no inode to compare, but a link may lead there.
    const auto at = [&](const std::string& path) {
      return fs::weakly_canonical(follow_links(path).value_or(path), error);
    };
    return fs::equivalent(a, b, error) || at(a) == at(b);
  };
  for (const auto& output : outputs)
    if (!names_file(output))
      return fail("cannot write \"{}\": it names no file, expected a file's name at its end", output);
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    for (const auto& input : inputs)
      if (same(input, outputs[i])) return fail("{} is both an input and an output", input);
    for (std::size_t j = 0; j < i; ++j)
      if (same(outputs[j], outputs[i])) return fail("{} and {} are the same output", outputs[j], outputs[i]);
  }
  return {};
}

}  // namespace isthmus::data
