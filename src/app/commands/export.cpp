#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>
#include <vector>

#include "app/commands/command_line.h"
#include "app/commands/number_option.h"
#include "app/export_folder.h"
#include "app/exported_tokenizer.h"
#include "app/modeling_isthmus.h"
#include "app/owned_run.h"
#include "base/output_file.h"
#include "data/mapped_file.h"
#include "data/vocabulary.h"
#include "record/line_file.h"
#include "stage/torch_module.h"
#include "store/whole_checkpoint.h"

namespace isthmus::app {

namespace {

// `isthmus export`: a checkpoint as a folder that Hugging Face's transformers load: a LlamaForCausalLM where the run's
// model is one, otherwise an IsthmusForCausalLM with its code beside it (src/app/modeling_isthmus.py). Weights are
// fp32.
struct ExportOptions {
  OwnedRunOptions run;
  std::string folder;                      // to make; nothing may be in it
  Existing existing = Existing::kRefused;  // with kReplaced it may hold an earlier export
  std::string vocabulary;                  // sentencepiece model that the tokenizer is made of; empty: none
  std::uint64_t shard_mb = 5000;           // 10^6 bytes of weights in a file, at least one tensor
  bool json = false;
};

namespace fs = std::filesystem;
using nlohmann::json;

// What both kinds of model call alike.
json common_config(const spec::RunConfig& run) {
  const auto& m = run.model;
  return {{"vocab_size", m.vocabulary},
          {"hidden_size", m.hidden},
          {"intermediate_size", m.mlp},
          {"num_hidden_layers", m.layers},
          {"num_attention_heads", m.heads},
          {"max_position_embeddings", m.context},
          {"rms_norm_eps", 1e-5},
          {"rope_theta", 10000.0},
          {"tie_word_embeddings", false},
          // A run's text is one stream: nothing begins, ends or is padded.
          {"bos_token_id", nullptr},
          {"eos_token_id", nullptr},
          {"pad_token_id", nullptr},
          {"torch_dtype", "float32"}};
}

json llama_config(const spec::RunConfig& run) {
  json config = common_config(run);
  config.update({{"architectures", json::array({"LlamaForCausalLM"})},
                 {"model_type", "llama"},
                 {"num_key_value_heads", run.model.heads},
                 {"head_dim", run.model.hidden / run.model.heads},
                 {"hidden_act", "silu"},
                 {"attention_bias", false},
                 {"mlp_bias", false}});
  return config;
}

json isthmus_config(const spec::RunConfig& run) {
  json config = common_config(run);
  json stages = json::array();
  for (const auto& stage : run.pipeline.stage) stages.push_back({stage.first_layer, stage.end_layer});
  config.update({{"architectures", json::array({"IsthmusForCausalLM"})},
                 {"model_type", "isthmus"},
                 {"auto_map",
                  {{"AutoConfig", "modeling_isthmus.IsthmusConfig"},
                   {"AutoModelForCausalLM", "modeling_isthmus.IsthmusForCausalLM"}}},
                 {"use_cache", false},
                 {"stages", stages},
                 {"codec", run.boundary.codec},
                 {"rank", run.boundary.rank},
                 {"factored_layers", run.boundary.factored_layers.value_or(0)},
                 {"token_path", run.model.token_path},
                 {"token_window", run.model.token_window},
                 {"token_width", run.model.token_width}});
  return config;
}

// Files of weights, each with as many tensors as fit.
std::vector<std::vector<store::NamedTensor>> shards_of(const std::vector<store::NamedTensor>& tensors,
                                                       std::uint64_t bytes_max) {
  std::vector<std::vector<store::NamedTensor>> shards(1);
  std::uint64_t bytes = 0;
  for (const auto& tensor : tensors) {
    if (bytes > 0 && bytes + tensor.bytes.size() > bytes_max) {
      shards.emplace_back();
      bytes = 0;
    }
    shards.back().push_back(tensor);
    bytes += tensor.bytes.size();
  }
  return shards;
}

class Export {
 public:
  explicit Export(const ExportOptions& options) : options_(options) {}
  ~Export() {
    std::error_code ignored;
    if (begun_) fs::remove_all(beside_, ignored);
  }

  Result<json> write() {
    if (auto found = find_place(); !found) return tl::unexpected(found.error());
    const auto owned = open_owned_run(options_.run);
    if (!owned) return tl::unexpected(owned.error());
    const spec::RunConfig& run = owned->run;
    if (auto fits = check_vocabulary(run); !fits) return tl::unexpected(fits.error());
    const auto whole = store::read_whole_checkpoint(run, owned->checkpoints, owned->version, store::Keep::kWeights);
    if (!whole) return tl::unexpected(whole.error());
    const auto torch = stage::torch_module();
    if (!torch) return tl::unexpected(torch.error());
    const bool llama = stage::is_llama(run);
    const stage::MergedModel model = (*torch)->merge(run, whole->weights);

    if (auto checked = check_beside(); !checked) return tl::unexpected(checked.error());
    std::error_code error;
    fs::remove_all(beside_, error);
    fs::create_directories(beside_, error);
    if (error) return fail("cannot make the folder {}: {}", beside_.string(), error.message());
    begun_ = true;
    std::uint64_t parameters = 0;
    for (const auto& [name, tensor] : whole->weights) parameters += tensor.bytes.size() / sizeof(float);
    Status written =
        write_weights(model)
            .and_then([&] {
              return write_text("config.json", (llama ? llama_config(run) : isthmus_config(run)).dump(2) + "\n");
            })
            .and_then([&] {
              return write_text("generation_config.json", json{{"use_cache", llama}}.dump(2) + "\n");
            })
            .and_then([&] { return write_tokenizer(run); })
            .and_then([&] { return llama ? Status() : write_text("modeling_isthmus.py", kModelingIsthmus); })
            .and_then([&] { return rename_whole(); });
    if (!written) return tl::unexpected(written.error());
    return json{{"folder", final_.string()}, {"architecture", llama ? "LlamaForCausalLM" : "IsthmusForCausalLM"},
                {"step", whole->version},    {"parameters", parameters},
                {"bytes", total_},           {"files", files_}};
  }

 private:
  // Where the folder goes; what is there may go.
  Status find_place() {
    fs::path named = fs::path(options_.folder).lexically_normal();
    if (!named.has_filename()) named = named.parent_path();  // it ended with a slash
    auto target = follow_links(named);
    if (!target) return tl::unexpected(target.error());
    final_ = std::move(*target);
    if (!names_file(final_)) return fail("\"{}\" names no folder that can be made", options_.folder);
    beside_ = final_.string() + ".writing";
    std::error_code error;
    if (auto checked = check_beside(); !checked) return checked;
    const fs::file_status there = fs::status(final_, error);
    if (there.type() == fs::file_type::not_found) return {};
    if (there.type() == fs::file_type::none) return fail("cannot look at {}: {}", options_.folder, error.message());
    if (there.type() != fs::file_type::directory)
      return fail("{} is there and not a folder; choose another name", options_.folder);
    if (auto checked = check_holds_export(final_); !checked) return checked;
    if (options_.existing == Existing::kReplaced || fs::is_empty(final_, error)) return {};
    return fail("{} exists and holds an export; --force replaces it", options_.folder);
  }

  // What a killed one left there is removed, and nothing else.
  Status check_beside() const {
    std::error_code error;
    if (fs::symlink_status(beside_, error).type() == fs::file_type::not_found) return {};
    return check_holds_export(beside_);
  }

  Status check_vocabulary(const spec::RunConfig& run) const {
    if (options_.vocabulary.empty()) {
      if (run.model.vocabulary != 256)
        spdlog::warn(
            "no tokenizer is written: the run has a vocabulary of {}; --vocabulary W.model puts the one its data was "
            "packed with beside it",
            run.model.vocabulary);
      return {};
    }
    const auto vocabulary = data::Vocabulary::open(options_.vocabulary);
    if (!vocabulary) return tl::unexpected(vocabulary.error());
    return vocabulary->check_fits(run.model.vocabulary);
  }

  Status write_weights(const stage::MergedModel& model) {
    std::uint64_t bytes = 0;
    for (const auto& tensor : model.tensors) bytes += tensor.bytes.size();
    total_ = bytes;
    const auto shards = shards_of(model.tensors, options_.shard_mb * 1'000'000);
    json map = json::object();
    for (std::size_t i = 0; i < shards.size(); ++i) {
      const std::string name = shards.size() == 1
                                   ? "model.safetensors"
                                   : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
      for (const auto& tensor : shards[i]) map[tensor.name] = name;
      if (auto written = write_shard(name, shards[i]); !written) return written;
    }
    if (shards.size() == 1) return {};
    return write_text("model.safetensors.index.json",
                      json{{"metadata", {{"total_size", bytes}}}, {"weight_map", map}}.dump(2) + "\n");
  }

  Status write_shard(const std::string& name, const std::vector<store::NamedTensor>& tensors) {
    auto file = OutputFile::create(beside_ / name, Existing::kReplaced);
    if (!file) return tl::unexpected(file.error());
    // transformers ask which program's tensors these are.
    if (auto written = file->append(store::safetensors_header(tensors, {{"format", "pt"}})); !written) return written;
    for (const auto& tensor : tensors) {
      if (auto written = file->append(tensor.bytes); !written) return written;
      tell(done_ += tensor.bytes.size());
    }
    files_.push_back(name);
    return file->commit();
  }

  void tell(std::uint64_t done) {
    if (!::isatty(STDERR_FILENO)) return;
    if (const int percent = static_cast<int>(100.0 * static_cast<double>(done) / static_cast<double>(total_));
        percent != shown_)
      fmt::print(stderr, "\rexporting {:3} %{}", shown_ = percent, done == total_ ? "\n" : "");
  }

  Status write_tokenizer(const spec::RunConfig& run) {
    std::optional<json> tokenizer;
    if (!options_.vocabulary.empty()) {
      const auto model = data::MappedFile::open(options_.vocabulary, "a sentencepiece model");
      if (!model) return tl::unexpected(model.error());
      if (auto written = write_bytes("tokenizer.model", model->bytes()); !written) return written;
      const auto vocabulary = data::Vocabulary::parse(model->bytes(), options_.vocabulary);
      if (!vocabulary) return tl::unexpected(vocabulary.error());
      tokenizer = word_tokenizer(*vocabulary);
      if (!tokenizer)
        spdlog::warn(
            "no tokenizer.json is written: {} was not made by byte pair encoding; it is there as tokenizer.model",
            options_.vocabulary);
    } else if (run.model.vocabulary == 256) {
      tokenizer = byte_tokenizer();
    }
    if (!tokenizer) return {};
    const json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                         {"model_max_length", run.model.context},
                         {"clean_up_tokenization_spaces", false}};
    return write_text("tokenizer.json", tokenizer->dump(1) + "\n").and_then([&] {
      return write_text("tokenizer_config.json", config.dump(2) + "\n");
    });
  }

  Status write_bytes(const std::string& name, ByteView bytes) {
    files_.push_back(name);
    auto file = OutputFile::create(beside_ / name, Existing::kReplaced);
    if (!file) return tl::unexpected(file.error());
    return file->append(bytes).and_then([&] { return file->commit(); });
  }
  Status write_text(const std::string& name, const std::string& text) { return write_bytes(name, bytes_of(text)); }

  Status rename_whole() {
    const auto placed = place_export(beside_, final_, options_.existing);
    if (!placed) return tl::unexpected(placed.error());
    begun_ = *placed == Placed::kExchanged;  // the earlier one is beside now, and goes
    return {};
  }

  const ExportOptions options_;
  fs::path final_;
  fs::path beside_;
  bool begun_ = false;                  // `beside_` is there
  std::uint64_t total_ = 0, done_ = 0;  // bytes of weights
  int shown_ = -1;
  std::vector<std::string> files_;
};

int export_run(const ExportOptions& options) {
  const auto done = Export(options).write();
  if (!done) {
    spdlog::error("{}", done.error().message);
    return 1;
  }
  const json& result = *done;
  if (options.json)
    fmt::print("{}\n", result.dump());
  else
    fmt::print("{}: step {} as {}, {} parameters, {} bytes of weights\n", result["folder"].get<std::string>(),
               result["step"].get<std::uint64_t>(), result["architecture"].get<std::string>(),
               result["parameters"].get<std::uint64_t>(), result["bytes"].get<std::uint64_t>());
  return 0;
}

}  // namespace

void add_export(CommandLine& line) {
  ExportOptions& export_options = line.keep<ExportOptions>();
  auto* export_command =
      line.app().add_subcommand("export", "A run's checkpoint as a folder for Hugging Face's transformers");
  add_owned_run(*export_command, export_options.run);
  export_command->add_option("DIR", export_options.folder, "Folder to make")->required();
  export_command->add_option("--vocabulary", export_options.vocabulary,
                             "Model of `data vocabulary`, to put beside the weights");
  add_number(*export_command, "--shard-mb", export_options.shard_mb, "Size of a file of weights, in 10^6 bytes", 1,
             1'000'000);
  add_force(*export_command, export_options.existing, "the folder");
  export_command->add_flag("--json", export_options.json, "Machine-readable output");
  add_example(*export_command, "isthmus export runs/mine hf/mine");
  export_command->callback([&] { line.chosen = [&] { return export_run(export_options); }; });
}

}  // namespace isthmus::app
