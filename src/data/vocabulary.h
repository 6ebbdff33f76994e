#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/output_file.h"
#include "base/result.h"

namespace sentencepiece {
class SentencePieceProcessor;
}

namespace isthmus::data {

// Stands for a space inside sentencepiece (U+2581).
inline constexpr std::string_view kSpaceSymbol = "\xe2\x96\x81";

// A sentencepiece model with byte fallback that loses nothing: any UTF-8 text comes back from its ids, byte for byte.
// Immutable; any thread.
class Vocabulary {
 public:
  static Result<Vocabulary> open(const std::string& path);
  // `model`: the bytes of a model file; `name` is for errors.
  static Result<Vocabulary> parse(ByteView model, const std::string& name);
  Vocabulary(Vocabulary&&) noexcept;
  ~Vocabulary();

  std::uint32_t size() const;
  // An error if it has more pieces than a model of `vocabulary` ids knows.
  Status check_fits(std::uint32_t vocabulary) const;
  // Ids of `text`, UTF-8 of a few kilobytes. An error if they do not decode to it (a foreign model that normalises).
  Result<std::vector<std::uint32_t>> encode(ByteView text) const;
  // An error if an id is not below size().
  Result<std::string> decode(std::span<const std::uint32_t> ids) const;
  // The bytes that one id stands for, which need not be whole characters; those of several follow on each other.
  // REQUIRES, here and below: id < size().
  std::string bytes_of(std::uint32_t id) const;

  // An id's name, in which kSpaceSymbol stands for a space.
  std::string piece(std::uint32_t id) const;
  // Whether it stands for a piece of text, not for a byte or for something unknown.
  bool is_text(std::uint32_t id) const;
  // Whether texts are encoded by joining pairs, those first that make an earlier piece (byte pair encoding), not by
  // likelihood.
  bool merges_pairs() const;

 private:
  explicit Vocabulary(std::unique_ptr<sentencepiece::SentencePieceProcessor> model, std::string name);
  std::unique_ptr<sentencepiece::SentencePieceProcessor> model_;
  std::string name_;
  std::vector<int> space_symbol_;  // ids of the bytes of U+2581
};

struct VocabularyOptions {
  std::vector<std::string> files;  // UTF-8 text, joined in this order
  std::string out;
  std::uint32_t size = 4096;       // pieces: 256 bytes, one for the unknown, the rest from the text
  double validation_share = 0.02;  // not looked at: the part that `data pack` holds out; in [0, 1)
  Existing existing = Existing::kRefused;
};

// Trains byte pair encoding (Sennrich et al., arXiv 1508.07909) with sentencepiece on lines evenly drawn from the
// text, 8 MB at most, and writes the model. The same text and options give the same bytes. Never overwrites an input.
Status train_vocabulary(const VocabularyOptions& options);

}  // namespace isthmus::data
