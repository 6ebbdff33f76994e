#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "app/commands/command_line.h"
#include "app/commands/number_option.h"
#include "data/ngram_baseline.h"
#include "data/pack.h"
#include "data/vocabulary.h"

namespace isthmus::app {

namespace {

int pack_and_report(data::PackOptions& options, bool as_json) {
  int shown = -1;
  if (::isatty(STDERR_FILENO))
    options.progress = [&](std::uint64_t done, std::uint64_t total) {
      if (const int percent = static_cast<int>(100.0 * static_cast<double>(done) / static_cast<double>(total));
          percent != shown)
        fmt::print(stderr, "\rpacking {:3} %{}", shown = percent, done == total ? "\n" : "");
    };
  const auto packed = data::pack(options);
  if (!packed) {
    if (shown >= 0 && shown < 100) fmt::print(stderr, "\n");
    return report(tl::unexpected(packed.error()));
  }
  nlohmann::json json = {{"vocabulary", packed->vocabulary}};
  for (const auto& [name, shard] : {std::pair("train", packed->train), std::pair("validation", packed->validation)}) {
    json[name] = {{"bytes", shard.bytes}, {"tokens", shard.tokens}, {"bytes_per_token", shard.bytes_per_token()}};
    if (!as_json)
      fmt::print("{:<10}  {} bytes, {} tokens, {:.4f} bytes per token\n", name, shard.bytes, shard.tokens,
                 shard.bytes_per_token());
  }
  if (as_json)
    fmt::print("{}\n", json.dump());
  else
    fmt::print("model.vocabulary = {}; nats per byte = nats per token / {:.4f}\n", packed->vocabulary,
               packed->validation.bytes_per_token());
  return 0;
}

}  // namespace

void add_data(CommandLine& line) {
  bool& as_json = line.keep<bool>();
  auto* data_command = line.app().add_subcommand("data", "Prepare training text");
  data_command->require_subcommand(1);
  add_example(*data_command, "isthmus data pack --train train.bin --validation validation.bin book.txt");
  data::VocabularyOptions& vocabulary_options = line.keep<data::VocabularyOptions>();
  auto* vocabulary_command =
      data_command->add_subcommand("vocabulary", "Train a sentencepiece vocabulary on UTF-8 text files");
  vocabulary_command->add_option("FILE", vocabulary_options.files, "Text files, joined in this order")->required();
  vocabulary_command->add_option("--out", vocabulary_options.out, "Model to write")->required();
  add_number(*vocabulary_command, "--size", vocabulary_options.size, "Pieces, 256 single bytes among them", 300,
             1'000'000);
  add_number(*vocabulary_command, "--validation-share", vocabulary_options.validation_share,
             "Share of the text not looked at, from its end, as `data pack` holds it out; 0: none", 0, 1);
  add_force(*vocabulary_command, vocabulary_options.existing, "the model");
  add_example(*vocabulary_command, "isthmus data vocabulary --size 4096 --out words.model book.txt");
  vocabulary_command->callback([&] {
    line.chosen = [&] {
      if (::isatty(STDERR_FILENO))
        spdlog::info("training a vocabulary of {}; takes up to a minute", vocabulary_options.size);
      return report(data::train_vocabulary(vocabulary_options));
    };
  });

  data::PackOptions& pack_options = line.keep<data::PackOptions>();
  auto* pack_command = data_command->add_subcommand("pack", "Text files to shards of bytes or of a vocabulary's ids");
  pack_command->add_option("FILE", pack_options.files, "Text files, joined in this order")->required();
  pack_command->add_option("--train", pack_options.train, "Shard to write")->required();
  pack_command->add_option("--validation", pack_options.validation, "Held-out shard to write")->required();
  add_number(*pack_command, "--validation-share", pack_options.validation_share,
             "Share of the text held out, from its end", 0, 1);
  pack_command->add_option("--vocabulary", pack_options.vocabulary, "Model of `data vocabulary` (default: bytes)");
  add_force(*pack_command, pack_options.existing, "the shards");
  pack_command->add_flag("--json", as_json, "Machine-readable output");
  add_example(*pack_command, "isthmus data pack --train train.bin --validation validation.bin book.txt");
  pack_command->callback([&] { line.chosen = [&] { return pack_and_report(pack_options, as_json); }; });

  std::string& train_shard = line.keep<std::string>();
  std::string& validation_shard = line.keep<std::string>();
  auto* baseline_command =
      data_command->add_subcommand("baseline", "Loss of a trigram byte model with add-one smoothing");
  baseline_command->add_option("TRAIN", train_shard, "Shard to fit")->required();
  baseline_command->add_option("VALIDATION", validation_shard, "Shard to score")->required();
  baseline_command->add_flag("--json", as_json, "Machine-readable output");
  add_example(*baseline_command, "isthmus data baseline train.bin validation.bin");
  baseline_command->callback([&] {
    line.chosen = [&] {
      const auto loss = data::trigram_loss(train_shard, validation_shard);
      if (!loss) return report(tl::unexpected(loss.error()));
      if (as_json)
        fmt::print("{}\n", nlohmann::json{{"trigram_nats_per_byte", *loss}}.dump());
      else
        fmt::print("trigram, add-one smoothing: {:.4f} nats per byte\n", *loss);
      return 0;
    };
  });
}

}  // namespace isthmus::app
