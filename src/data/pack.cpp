#include "data/pack.h"

#include <optional>

#include "data/split_text.h"
#include "data/token_shard.h"
#include "data/vocabulary.h"

namespace isthmus::data {

Result<Packed> pack(const PackOptions& options) {
  if (!(options.validation_share > 0 && options.validation_share < 1))
    return fail("--validation-share is {}, expected a number between 0 and 1", options.validation_share);
  auto inputs = options.files;
  if (!options.vocabulary.empty()) inputs.push_back(options.vocabulary);
  if (const auto checked = check_outputs(inputs, {options.train, options.validation}); !checked)
    return tl::unexpected(checked.error());
  std::optional<Vocabulary> vocabulary;
  if (!options.vocabulary.empty()) {
    auto opened = Vocabulary::open(options.vocabulary);
    if (!opened) return tl::unexpected(opened.error());
    vocabulary.emplace(std::move(*opened));
  }
  const auto text =
      split_text(options.files, options.validation_share, vocabulary ? TextUnit::kCodePoint : TextUnit::kByte);
  if (!text) return tl::unexpected(text.error());

  std::uint64_t total = 0, done = 0;
  for (const auto& file : text->files) total += file.bytes().size();
  Packed packed;
  if (vocabulary) packed.vocabulary = vocabulary->size();
  const auto fill = [&](TokenShardWriter& shard, const std::vector<ByteView>& stretches,
                        PackedShard& figures) -> Status {
    for (ByteView stretch : stretches)
      while (!stretch.empty()) {
        const ByteView piece = take_piece(stretch);
        const auto ids =
            vocabulary ? vocabulary->encode(piece) : std::vector<std::uint32_t>(piece.begin(), piece.end());
        if (!ids) return tl::unexpected(ids.error());
        if (const auto written = shard.append(*ids); !written) return written;
        figures.bytes += piece.size();
        done += piece.size();
        if (options.progress) options.progress(done, total);
      }
    figures.tokens = shard.size();
    return {};
  };
  auto train = TokenShardWriter::create(options.train, packed.vocabulary, options.existing);
  if (!train) return tl::unexpected(train.error());
  auto validation = TokenShardWriter::create(options.validation, packed.vocabulary, options.existing);
  if (!validation) return tl::unexpected(validation.error());
  // Both are whole before one takes its place.
  return fill(*train, text->train, packed.train)
      .and_then([&] { return fill(*validation, text->validation, packed.validation); })
      .and_then([&] { return train->finish(); })
      .and_then([&] { return validation->finish(); })
      .map([&] { return packed; });
}

}  // namespace isthmus::data
