#include "app/exported_tokenizer.h"

#include <algorithm>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace isthmus::app {

using nlohmann::json;

namespace {

json tokenizer(json normalizer, json pre_tokenizer, json decoder, json model) {
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", json::array()},
          {"normalizer", std::move(normalizer)},
          {"pre_tokenizer", std::move(pre_tokenizer)},
          {"post_processor", nullptr},
          {"decoder", std::move(decoder)},
          {"model", std::move(model)}};
}

json pair_encoding(json vocabulary, json merges, json unknown, bool byte_fallback) {
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", std::move(unknown)},
          {"continuing_subword_prefix", nullptr},
          {"end_of_word_suffix", nullptr},
          {"fuse_unk", byte_fallback},
          {"byte_fallback", byte_fallback},
          {"vocab", std::move(vocabulary)},
          {"merges", std::move(merges)}};
}

bool begins_character(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) != 0x80; }

}  // namespace

// The library's byte-level encoding without merges. It writes a byte as a printable character, 33-126, 161-172 and
// 174-255 as themselves and the others from 256 on, as GPT-2's does.
json byte_tokenizer() {
  const auto utf8 = [](int point) {
    if (point < 0x80) return std::string(1, static_cast<char>(point));
    return std::string{static_cast<char>(0xC0 | point >> 6), static_cast<char>(0x80 | (point & 0x3F))};
  };
  json ids = json::object();
  for (int byte = 0, other = 256; byte < 256; ++byte) {
    const bool printable = (byte > 32 && byte < 127) || (byte > 160 && byte != 173);
    ids[utf8(printable ? byte : other++)] = byte;
  }
  const json level = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}};
  return tokenizer(nullptr, level, level, pair_encoding(std::move(ids), json::array(), nullptr, false));
}

// Sentencepiece joins the two neighbours that make the earliest piece; the library, those of the earliest merge. So
// every way to make a piece of two is a merge, in the order of what they make.
std::optional<json> word_tokenizer(const data::Vocabulary& vocabulary) {
  if (!vocabulary.merges_pairs()) return std::nullopt;
  std::unordered_map<std::string, std::uint32_t> ids;
  json pieces = json::object();
  for (std::uint32_t id = 0; id < vocabulary.size(); ++id)
    ids[vocabulary.piece(id)] = pieces[vocabulary.piece(id)] = id;
  json merges = json::array();
  for (std::uint32_t id = 0; id < vocabulary.size(); ++id) {
    if (!vocabulary.is_text(id)) continue;
    const std::string piece = vocabulary.piece(id);
    std::vector<std::pair<std::uint32_t, std::uint32_t>> ways;
    for (std::size_t middle = 1; middle < piece.size(); ++middle) {
      if (!begins_character(piece[middle])) continue;
      const auto left = ids.find(piece.substr(0, middle)), right = ids.find(piece.substr(middle));
      if (left != ids.end() && right != ids.end()) ways.emplace_back(left->second, right->second);
    }
    std::ranges::sort(ways);
    for (const auto& [left, right] : ways) merges.push_back({vocabulary.piece(left), vocabulary.piece(right)});
  }
  const json space = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", data::kSpaceSymbol}};
  const json back = {{"type", "Replace"}, {"pattern", {{"String", data::kSpaceSymbol}}}, {"content", " "}};
  const json decoder = {{"type", "Sequence"}, {"decoders", {back, {{"type", "ByteFallback"}}, {{"type", "Fuse"}}}}};
  return tokenizer(space, nullptr, decoder,
                   pair_encoding(std::move(pieces), std::move(merges), vocabulary.piece(0), true));
}

}  // namespace isthmus::app
