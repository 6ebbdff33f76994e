#include "app/export.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>
#include <vector>

#include "app/exported_tokenizer.h"
#include "app/line_file.h"
#include "app/modeling_isthmus.h"
#include "model/mapped_file.h"
#include "model/merged_model.h"
#include "model/output_file.h"
#include "model/vocabulary.h"
#include "stage/whole_checkpoint.h"

namespace isthmus {

namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// What both kinds of model call alike.
json common_config(const RunConfig& run) {
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

json llama_config(const RunConfig& run) {
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

json isthmus_config(const RunConfig& run) {
  json config = common_config(run);
  json stages = json::array();
  for (const auto& stage : run.pipeline.stage) stages.push_back({stage.first_layer, stage.end_layer});
  config.update({{"architectures", json::array({"IsthmusForCausalLM"})},
                 {"model_type", "isthmus"},
                 {"auto_map", {{"AutoConfig", "modeling_isthmus.IsthmusConfig"}, {"AutoModelForCausalLM", "modeling_isthmus.IsthmusForCausalLM"}}},
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
std::vector<std::vector<NamedTensor>> shards_of(const std::vector<NamedTensor>& tensors, std::uint64_t bytes_max) {
  std::vector<std::vector<NamedTensor>> shards(1);
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
  explicit Export(const ExportOptions& options) : options_(options), final_(fs::path(options.folder).lexically_normal()) {
    if (!final_.has_filename()) final_ = final_.parent_path();  // it ended with a slash
    beside_ = final_.string() + ".writing";
  }
  ~Export() {
    std::error_code ignored;
    if (begun_) fs::remove_all(beside_, ignored);
  }

  Result<json> write() {
    std::error_code error;
    if (fs::exists(final_, error) && !(fs::is_directory(final_, error) && fs::is_empty(final_, error)))
      return fail("{} is there and not an empty folder; choose another one, or remove it", final_.string());
    const auto owned = open_owned_run(options_.run);
    if (!owned) return tl::unexpected(owned.error());
    const RunConfig& run = owned->run;
    if (auto fits = check_vocabulary(run); !fits) return tl::unexpected(fits.error());
    const auto whole = read_whole_checkpoint(run, owned->checkpoints, owned->version, Keep::kWeights);
    if (!whole) return tl::unexpected(whole.error());
    const bool llama = is_llama(run);
    const MergedModel model = llama ? llama_model(run, whole->weights) : isthmus_model(run, whole->weights);

    // What a killed one left behind.
    fs::remove_all(beside_, error);
    fs::create_directories(beside_, error);
    if (error) return fail("cannot make the folder {}: {}", beside_.string(), error.message());
    begun_ = true;
    std::uint64_t parameters = 0;
    for (const auto& [name, tensor] : whole->weights) parameters += tensor.bytes.size() / sizeof(float);
    Status written = write_weights(model)
                         .and_then([&] { return write_text("config.json", (llama ? llama_config(run) : isthmus_config(run)).dump(2) + "\n"); })
                         .and_then([&] { return write_text("generation_config.json", json{{"use_cache", llama}}.dump(2) + "\n"); })
                         .and_then([&] { return write_tokenizer(run); })
                         .and_then([&] { return llama ? Status() : write_text("modeling_isthmus.py", kModelingIsthmus); })
                         .and_then([&] { return rename_whole(); });
    if (!written) return tl::unexpected(written.error());
    return json{{"folder", final_.string()}, {"architecture", llama ? "LlamaForCausalLM" : "IsthmusForCausalLM"}, {"step", whole->version},
                {"parameters", parameters}, {"bytes", total_}, {"files", files_}};
  }

 private:
  Status check_vocabulary(const RunConfig& run) const {
    if (options_.vocabulary.empty()) {
      if (run.model.vocabulary != 256)
        spdlog::warn("no tokenizer is written: the run has a vocabulary of {}; --vocabulary W.model puts the one its data was packed with beside it",
                     run.model.vocabulary);
      return {};
    }
    const auto vocabulary = Vocabulary::open(options_.vocabulary);
    if (!vocabulary) return tl::unexpected(vocabulary.error());
    return vocabulary->check_fits(run.model.vocabulary);
  }

  Status write_weights(const MergedModel& model) {
    std::uint64_t bytes = 0;
    for (const auto& tensor : model.tensors) bytes += tensor.bytes.size();
    total_ = bytes;
    const auto shards = shards_of(model.tensors, options_.shard_mb * 1'000'000);
    json map = json::object();
    for (std::size_t i = 0; i < shards.size(); ++i) {
      const std::string name = shards.size() == 1 ? "model.safetensors" : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
      for (const auto& tensor : shards[i]) map[tensor.name] = name;
      if (auto written = write_shard(name, shards[i]); !written) return written;
    }
    if (shards.size() == 1) return {};
    return write_text("model.safetensors.index.json", json{{"metadata", {{"total_size", bytes}}}, {"weight_map", map}}.dump(2) + "\n");
  }

  Status write_shard(const std::string& name, const std::vector<NamedTensor>& tensors) {
    auto file = OutputFile::create(beside_ / name);
    if (!file) return tl::unexpected(file.error());
    // transformers ask which program's tensors these are.
    if (auto written = file->append(safetensors_header(tensors, {{"format", "pt"}})); !written) return written;
    for (const auto& tensor : tensors) {
      if (auto written = file->append(tensor.bytes); !written) return written;
      tell(done_ += tensor.bytes.size());
    }
    files_.push_back(name);
    return file->commit();
  }

  void tell(std::uint64_t done) {
    if (!::isatty(STDERR_FILENO)) return;
    if (const int percent = static_cast<int>(100.0 * static_cast<double>(done) / static_cast<double>(total_)); percent != shown_)
      fmt::print(stderr, "\rexporting {:3} %{}", shown_ = percent, done == total_ ? "\n" : "");
  }

  Status write_tokenizer(const RunConfig& run) {
    std::optional<json> tokenizer;
    if (!options_.vocabulary.empty()) {
      const auto model = MappedFile::open(options_.vocabulary);
      if (!model) return tl::unexpected(model.error());
      if (auto written = write_bytes("tokenizer.model", model->bytes()); !written) return written;
      const auto vocabulary = Vocabulary::parse(model->bytes(), options_.vocabulary);
      if (!vocabulary) return tl::unexpected(vocabulary.error());
      tokenizer = word_tokenizer(*vocabulary);
      if (!tokenizer) spdlog::warn("no tokenizer.json is written: {} was not made by byte pair encoding; it is there as tokenizer.model", options_.vocabulary);
    } else if (run.model.vocabulary == 256) {
      tokenizer = byte_tokenizer();
    }
    if (!tokenizer) return {};
    const json config = {{"tokenizer_class", "PreTrainedTokenizerFast"}, {"model_max_length", run.model.context}, {"clean_up_tokenization_spaces", false}};
    return write_text("tokenizer.json", tokenizer->dump(1) + "\n").and_then([&] {
      return write_text("tokenizer_config.json", config.dump(2) + "\n");
    });
  }

  Status write_bytes(const std::string& name, ByteView bytes) {
    files_.push_back(name);
    auto file = OutputFile::create(beside_ / name);
    if (!file) return tl::unexpected(file.error());
    return file->append(bytes).and_then([&] { return file->commit(); });
  }
  Status write_text(const std::string& name, const std::string& text) {
    return write_bytes(name, {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()});
  }

  Status rename_whole() {
    std::error_code error;
    fs::rename(beside_, final_, error);
    if (error) return fail("cannot rename {} to {}: {}", beside_.string(), final_.string(), error.message());
    begun_ = false;
    return {};
  }

  const ExportOptions options_;
  fs::path final_;
  fs::path beside_;
  bool begun_ = false;  // `beside_` is there
  std::uint64_t total_ = 0, done_ = 0;  // bytes of weights
  int shown_ = -1;
  std::vector<std::string> files_;
};

}  // namespace

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
    fmt::print("{}: step {} as {}, {} parameters, {} bytes of weights\n", result["folder"].get<std::string>(), result["step"].get<std::uint64_t>(),
               result["architecture"].get<std::string>(), result["parameters"].get<std::uint64_t>(), result["bytes"].get<std::uint64_t>());
  return 0;
}

}  // namespace isthmus
