#include "app/generate.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <optional>
#include <span>
#include <vector>

#include "app/clock.h"
#include "base/counter_random.h"
#include "model/vocabulary.h"
#include "stage/checkpoint_model.h"

namespace isthmus {

namespace {

// Text and ids: bytes, or a vocabulary's.
class TextIds {
 public:
  static Result<TextIds> open(const GenerateOptions& options, const RunConfig& run) {
    TextIds text;
    if (options.vocabulary.empty()) {
      if (run.model.vocabulary == 256) return text;
      return fail("the run has a vocabulary of {}, not of the 256 bytes; --vocabulary W.model names the one its data was packed with", run.model.vocabulary);
    }
    auto vocabulary = Vocabulary::open(options.vocabulary);
    if (!vocabulary) return tl::unexpected(vocabulary.error());
    if (auto fits = vocabulary->check_fits(run.model.vocabulary); !fits) return tl::unexpected(fits.error());
    text.vocabulary_.emplace(std::move(*vocabulary));
    return text;
  }

  // Ids that stand for text; the model may know more.
  std::uint32_t size() const { return vocabulary_ ? vocabulary_->size() : 256; }
  Result<std::vector<std::uint32_t>> ids_of(const std::string& text) const {
    const ByteView bytes(reinterpret_cast<const std::uint8_t*>(text.data()), text.size());
    if (vocabulary_) return vocabulary_->encode(bytes);
    return std::vector<std::uint32_t>(bytes.begin(), bytes.end());
  }
  std::string bytes_of(std::uint32_t id) const { return vocabulary_ ? vocabulary_->bytes_of(id) : std::string(1, static_cast<char>(id)); }

 private:
  std::optional<Vocabulary> vocabulary_;
};

// `chance`: uniform in [0, 1).
std::uint32_t draw(std::span<const float> logits, const GenerateOptions& options, double chance) {
  std::vector<std::uint32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0u);
  const auto likelier = [&](std::uint32_t a, std::uint32_t b) { return logits[a] != logits[b] ? logits[a] > logits[b] : a < b; };
  const std::size_t kept = options.temperature == 0 ? 1 : options.top_k == 0 ? ids.size() : std::min<std::size_t>(options.top_k, ids.size());
  std::partial_sort(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(kept), ids.end(), likelier);
  if (kept == 1) return ids[0];
  std::vector<double> upto(kept);
  double sum = 0;
  for (std::size_t i = 0; i < kept; ++i) upto[i] = sum += std::exp((static_cast<double>(logits[ids[i]]) - logits[ids[0]]) / options.temperature);
  const auto at = std::ranges::upper_bound(upto, chance * sum) - upto.begin();
  return ids[std::min(static_cast<std::size_t>(at), kept - 1)];
}

Status write_out(const std::string& bytes) {
  if (std::fwrite(bytes.data(), 1, bytes.size(), stdout) == bytes.size() && std::fflush(stdout) == 0) return {};
  return fail("nobody reads the text any more");
}

Status sample(const GenerateOptions& options) {
  if (options.prompt.empty()) return fail("the prompt is empty; expected some text to continue, in --prompt");
  const auto owned = open_owned_run(options.run);
  if (!owned) return tl::unexpected(owned.error());
  const auto text = TextIds::open(options, owned->run);
  if (!text) return tl::unexpected(text.error());
  auto ids = text->ids_of(options.prompt);
  if (!ids) return tl::unexpected(ids.error());
  auto model = CheckpointModel::open(owned->run, owned->checkpoints, owned->version);
  if (!model) return tl::unexpected(model.error());

  if (auto written = write_out(options.prompt); !written) return written;
  const CounterRandom random(options.seed, "sample");
  const Time start = monotonic_now();
  for (std::uint32_t i = 0; i < options.tokens; ++i) {
    const std::size_t seen = std::min<std::size_t>(ids->size(), owned->run.model.context);
    const auto logits = model->next(std::span(*ids).last(seen));
    if (!logits) return tl::unexpected(logits.error());
    // Ids that stand for nothing are never drawn.
    const auto id = draw(std::span(*logits).first(text->size()), options, static_cast<double>(random.bits(i) >> 11) * 0x1p-53);
    ids->push_back(id);
    if (auto written = write_out(text->bytes_of(id)); !written) return written;
  }
  if (auto written = write_out("\n"); !written) return written;
  const double seconds = to_seconds(monotonic_now() - start);
  spdlog::info("step {}, seed {}: {} tokens in {:.1f} s, {:.1f} tokens/s", owned->version, options.seed, options.tokens, seconds,
               options.tokens / std::max(seconds, 1e-9));
  return {};
}

}  // namespace

int generate(const GenerateOptions& options) {
  const Status done = sample(options);
  if (done) return 0;
  spdlog::error("{}", done.error().message);
  return 1;
}

}  // namespace isthmus
