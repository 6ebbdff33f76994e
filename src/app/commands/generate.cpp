#include <spdlog/spdlog.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <numeric>
#include <optional>
#include <span>
#include <vector>

#include "app/commands/command_line.h"
#include "app/commands/number_option.h"
#include "app/owned_run.h"
#include "base/counter_random.h"
#include "data/vocabulary.h"
#include "process/clock.h"
#include "stage/torch_module.h"

namespace isthmus::app {

namespace {

// `isthmus generate`: text that a run's checkpoint continues a prompt with, to stdout as it comes.
struct GenerateOptions {
  OwnedRunOptions run;
  std::string prompt;
  std::string vocabulary;  // sentencepiece model; empty: the ids are bytes
  std::uint32_t tokens = 200;
  double temperature = 0.8;  // 0: always the likeliest token
  std::uint32_t top_k = 40;  // the likeliest so many are drawn from; 0: all
  std::uint64_t seed = 1;    // equal seeds, equal text
};

// Text and ids: bytes, or a vocabulary's.
class TextIds {
 public:
  static Result<TextIds> open(const GenerateOptions& options, const spec::RunConfig& run) {
    TextIds text;
    if (options.vocabulary.empty()) {
      if (run.model.vocabulary == 256) return text;
      return fail(
          "the run has a vocabulary of {}, not of the 256 bytes; --vocabulary W.model names the one its data was "
          "packed with",
          run.model.vocabulary);
    }
    auto vocabulary = data::Vocabulary::open(options.vocabulary);
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
  std::string bytes_of(std::uint32_t id) const {
    return vocabulary_ ? vocabulary_->bytes_of(id) : std::string(1, static_cast<char>(id));
  }

 private:
  std::optional<data::Vocabulary> vocabulary_;
};

// `chance`: uniform in [0, 1).
std::uint32_t draw(std::span<const float> logits, const GenerateOptions& options, double chance) {
  std::vector<std::uint32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0u);
  const auto likelier = [&](std::uint32_t a, std::uint32_t b) {
    return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
  };
  const std::size_t kept = options.temperature == 0 ? 1
                           : options.top_k == 0     ? ids.size()
                                                    : std::min<std::size_t>(options.top_k, ids.size());
  std::partial_sort(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(kept), ids.end(), likelier);
  if (kept == 1) return ids[0];
  std::vector<double> upto(kept);
  double sum = 0;
  for (std::size_t i = 0; i < kept; ++i)
    upto[i] = sum += std::exp((static_cast<double>(logits[ids[i]]) - logits[ids[0]]) / options.temperature);
  const auto at = std::ranges::upper_bound(upto, chance * sum) - upto.begin();
  return ids[std::min(static_cast<std::size_t>(at), kept - 1)];
}

Status write_out(const std::string& bytes) {
  if (std::fwrite(bytes.data(), 1, bytes.size(), stdout) == bytes.size() && std::fflush(stdout) == 0) return {};
  return errno == EPIPE ? fail("nobody reads the text any more")
                        : fail("cannot write the text: {}", std::strerror(errno));
}

Status sample(const GenerateOptions& options) {
  if (options.prompt.empty()) return fail("the prompt is empty; expected some text to continue, in --prompt");
  const auto owned = open_owned_run(options.run);
  if (!owned) return tl::unexpected(owned.error());
  const auto text = TextIds::open(options, owned->run);
  if (!text) return tl::unexpected(text.error());
  auto ids = text->ids_of(options.prompt);
  if (!ids) return tl::unexpected(ids.error());
  const auto torch = stage::torch_module();
  if (!torch) return tl::unexpected(torch.error());
  const auto model = (*torch)->open_checkpoint(owned->run, owned->checkpoints, owned->version);
  if (!model) return tl::unexpected(model.error());

  if (auto written = write_out(options.prompt); !written) return written;
  const CounterRandom random(options.seed, "sample");
  const Time start = process::monotonic_now();
  for (std::uint32_t i = 0; i < options.tokens; ++i) {
    const std::size_t seen = std::min<std::size_t>(ids->size(), owned->run.model.context);
    const auto logits = (*model)->next(std::span(*ids).last(seen));
    if (!logits) return tl::unexpected(logits.error());
    // Ids that stand for nothing are never drawn.
    const auto id =
        draw(std::span(*logits).first(text->size()), options, static_cast<double>(random.bits(i) >> 11) * 0x1p-53);
    ids->push_back(id);
    if (auto written = write_out(text->bytes_of(id)); !written) return written;
  }
  if (auto written = write_out("\n"); !written) return written;
  const double seconds = to_seconds(process::monotonic_now() - start);
  spdlog::info("step {}, seed {}: {} tokens in {:.1f} s, {:.1f} tokens/s", owned->version, options.seed, options.tokens,
               seconds, options.tokens / std::max(seconds, 1e-9));
  return {};
}

int generate(const GenerateOptions& options) {
  const Status done = sample(options);
  if (done) return 0;
  spdlog::error("{}", done.error().message);
  return 1;
}

}  // namespace

void add_generate(CommandLine& line) {
  GenerateOptions& generate_options = line.keep<GenerateOptions>();
  auto* generate_command = line.app().add_subcommand("generate", "Continue a text with a run's checkpoint");
  add_owned_run(*generate_command, generate_options.run);
  generate_command->add_option("--prompt", generate_options.prompt, "Text to continue")->required();
  generate_command->add_option("--vocabulary", generate_options.vocabulary,
                               "Model of `data vocabulary` that the run's data was packed with (default: bytes)");
  add_number(*generate_command, "--tokens", generate_options.tokens, "Tokens to add", 0, 10'000'000);
  add_number(*generate_command, "--temperature", generate_options.temperature,
             "Divides the logits; 0: always the likeliest token", 0, 100);
  add_number(*generate_command, "--top-k", generate_options.top_k,
             "Draw from the likeliest so many tokens; 0: from all", 0, 1'000'000'000);
  add_number(*generate_command, "--seed", generate_options.seed,
             "Decides every draw; the same seed gives the same text", 0, kSeedMax);
  add_example(*generate_command, "isthmus generate runs/mine --prompt \"Ocean, n. \" --tokens 300");
  generate_command->callback([&] { line.chosen = [&] { return generate(generate_options); }; });
}

}  // namespace isthmus::app
