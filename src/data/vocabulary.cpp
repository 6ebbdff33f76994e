#include "data/vocabulary.h"

#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <algorithm>
#include <limits>
#include <unordered_map>
#include <utility>

#include "base/output_file.h"
#include "data/mapped_file.h"
#include "data/split_text.h"

namespace isthmus::data {

namespace {

constexpr std::size_t kModelBytesMax = 256 << 20;
// All 40 MB of Webster's dictionary give 2.848 bytes per token, too, and take longer.
constexpr double kSampleBytesMax = 8e6;

std::string_view characters(ByteView bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

// Feeds the trainer pieces of the text, without their line ends, which are byte pieces anyway.
class SampledLines : public sentencepiece::SentenceIterator {
 public:
  explicit SampledLines(std::vector<ByteView> text) : text_(std::move(text)) {
    double size = 0;
    for (const auto& stretch : text_) size += static_cast<double>(stretch.size());
    share_ = std::min(1.0, kSampleBytesMax / size);
    Next();
  }
  bool done() const override { return done_; }
  const std::string& value() const override { return line_; }
  sentencepiece::util::Status status() const override { return {}; }
  void Next() override {
    while (at_ < text_.size()) {
      if (text_[at_].empty()) {
        ++at_;
        continue;
      }
      std::string_view piece = characters(take_piece(text_[at_]));
      seen_ += static_cast<double>(piece.size());
      if (taken_ > share_ * seen_) continue;
      taken_ += static_cast<double>(piece.size());
      if (piece.ends_with('\n')) piece.remove_suffix(1);
      line_ = piece;
      return;
    }
    done_ = true;
  }

 private:
  std::vector<ByteView> text_;  // not yet seen
  std::size_t at_ = 0;
  double share_ = 1;
  double seen_ = 0;   // bytes
  double taken_ = 0;  // bytes
  std::string line_;
  bool done_ = false;
};

}  // namespace

Vocabulary::Vocabulary(std::unique_ptr<sentencepiece::SentencePieceProcessor> model, std::string name)
    : model_(std::move(model)), name_(std::move(name)) {}
Vocabulary::Vocabulary(Vocabulary&&) noexcept = default;
Vocabulary::~Vocabulary() = default;

Result<Vocabulary> Vocabulary::open(const std::string& path) {
  const auto file = MappedFile::open(path, "a sentencepiece model");
  if (!file) return fail("cannot read the vocabulary {}; isthmus data vocabulary makes one", file.error().message);
  return parse(file->bytes(), path);
}

Result<Vocabulary> Vocabulary::parse(ByteView bytes, const std::string& name) {
  auto model = std::make_unique<sentencepiece::SentencePieceProcessor>();
  if (bytes.empty() || bytes.size() > kModelBytesMax || !model->LoadFromSerializedProto(characters(bytes)).ok())
    return fail("{} is not a sentencepiece model; isthmus data vocabulary makes one", name);
  for (int byte = 0; byte < 256; ++byte)
    if (!model->IsByte(model->PieceToId(fmt::format("<0x{:02X}>", byte))))
      return fail(
          "{} has no piece for byte 0x{:02x}, expected a model with byte fallback, as isthmus data vocabulary "
          "makes it",
          name, byte);
  Vocabulary vocabulary(std::move(model), name);
  for (const char byte : kSpaceSymbol)
    vocabulary.space_symbol_.push_back(
        vocabulary.model_->PieceToId(fmt::format("<0x{:02X}>", static_cast<std::uint8_t>(byte))));
  return vocabulary;
}

std::uint32_t Vocabulary::size() const { return static_cast<std::uint32_t>(model_->GetPieceSize()); }

Status Vocabulary::check_fits(std::uint32_t vocabulary) const {
  if (size() <= vocabulary) return {};
  return fail("{} has {} pieces, the run's model.vocabulary is {}; expected the model its data was packed with", name_,
              size(), vocabulary);
}

Result<std::vector<std::uint32_t>> Vocabulary::encode(ByteView bytes) const {
  const std::string_view text = characters(bytes);
  std::vector<int> ids, part;
  for (std::size_t at = 0; at < text.size();) {
    // In a text it would come back as a space.
    const std::size_t symbol = std::min(text.find(kSpaceSymbol, at), text.size());
    if (!model_->Encode(text.substr(at, symbol - at), &part).ok()) return fail("{} cannot encode this text", name_);
    ids.insert(ids.end(), part.begin(), part.end());
    if (symbol < text.size()) ids.insert(ids.end(), space_symbol_.begin(), space_symbol_.end());
    at = symbol + kSpaceSymbol.size();
  }
  std::string back;
  if (!model_->Decode(ids, &back).ok() || back != text)
    return fail(
        "{} changes the text \"{}\"; expected a model without normalisation, as isthmus data vocabulary makes it",
        name_, text.substr(0, text.find('\n')));
  return std::vector<std::uint32_t>(ids.begin(), ids.end());
}

Result<std::string> Vocabulary::decode(std::span<const std::uint32_t> ids) const {
  for (const std::uint32_t id : ids)
    if (id >= size()) return fail("token id {} is not in {}, which has {}", id, name_, size());
  std::string text;
  if (!model_->Decode(std::vector<int>(ids.begin(), ids.end()), &text).ok())
    return fail("{} cannot decode these ids", name_);
  return text;
}

std::string Vocabulary::bytes_of(std::uint32_t id) const {
  const int piece = static_cast<int>(id);
  if (model_->IsControl(piece) || model_->IsUnknown(piece)) return "";
  std::string text = model_->IdToPiece(piece);
  if (model_->IsByte(piece)) return {static_cast<char>(std::stoi(text.substr(3, 2), nullptr, 16))};  // <0x0A>
  for (std::size_t at = 0; (at = text.find(kSpaceSymbol, at)) != std::string::npos; ++at)
    text.replace(at, kSpaceSymbol.size(), " ");
  return text;
}

std::string Vocabulary::piece(std::uint32_t id) const { return model_->IdToPiece(static_cast<int>(id)); }

bool Vocabulary::is_text(std::uint32_t id) const {
  const int piece = static_cast<int>(id);
  return !model_->IsControl(piece) && !model_->IsUnknown(piece) && !model_->IsByte(piece) && !model_->IsUnused(piece);
}

// Its scores count the merges; those of other models are logarithms of probabilities.
bool Vocabulary::merges_pairs() const {
  float expected = 0;
  for (std::uint32_t id = 0; id < size(); ++id) {
    if (!is_text(id)) continue;
    if (model_->GetScore(static_cast<int>(id)) != expected) return false;
    --expected;
  }
  return true;
}

Status train_vocabulary(const VocabularyOptions& options) {
  if (!(options.validation_share >= 0 && options.validation_share < 1))
    return fail("--validation-share is {}, expected 0 or a number below 1", options.validation_share);
  if (const auto checked = check_outputs(options.files, {options.out}); !checked) return checked;
  auto text = split_text(options.files, options.validation_share, TextUnit::kCodePoint);
  if (!text) return tl::unexpected(text.error());
  // Before the long work.
  auto out = OutputFile::create(options.out, options.existing);
  if (!out) return tl::unexpected(out.error());
  SampledLines lines(std::move(text->train));
  std::string model;
  const auto trained = sentencepiece::SentencePieceTrainer::Train(
      // The unigram model needs 0.5 % fewer tokens and several times as long.
      {{"model_type", "bpe"},
       {"vocab_size", std::to_string(options.size)},
       {"byte_fallback", "true"},
       // The three that make decode(encode(text)) the text.
       {"normalization_rule_name", "identity"},
       {"add_dummy_prefix", "false"},
       {"remove_extra_whitespaces", "false"},
       {"allow_whitespace_only_pieces", "true"},  // indentation
       // A shard is one stream of text: nothing begins, ends or is padded.
       {"bos_id", "-1"},
       {"eos_id", "-1"},
       {"pad_id", "-1"},
       {"num_threads", "1"},
       {"minloglevel", "4"}},
      &lines, &model);
  if (!trained.ok())
    return fail("no vocabulary of {} pieces can be made of this text: {}", options.size, trained.ToString());
  const ByteView bytes(reinterpret_cast<const std::uint8_t*>(model.data()), model.size());
  if (const auto read = Vocabulary::parse(bytes, options.out); !read) return tl::unexpected(read.error());
  return out->append(bytes).and_then([&] { return out->commit(); });
}

}  // namespace isthmus::data
