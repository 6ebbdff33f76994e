// What becomes of a run's checkpoints: exported, continued as text, taken to another layer-to-stage map.

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "app/command_line_test.h"
#include "config/load_run.h"
#include "data/vocabulary.h"
#include "stage/torch_module.h"
#include "store/whole_checkpoint.h"

namespace {

namespace fs = std::filesystem;
using nlohmann::json;

class ExportTest : public CommandLineTest {
 protected:
  using Arguments = std::vector<std::string>;

  static Arguments joined(Arguments arguments, const Arguments& more) {
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
  std::string path(const std::string& name) const { return folder_ + "/" + name; }
  // `settings`: "section.key=value", apart by spaces.
  Arguments train(const std::string& out, const std::string& settings, const Arguments& more = {}) const {
    Arguments arguments = joined({"train", path("run.toml"), "--out", path(out)}, more);
    std::istringstream words(settings);
    for (std::string word; words >> word;) arguments.insert(arguments.end(), {"--set", word});
    return arguments;
  }
  void trained(const std::string& out, const std::string& settings, const Arguments& more = {}) const {
    const auto done = run(train(out, settings, more));
    ASSERT_EQ(done.code, 0) << done.output;
  }
  // The same for all tests that want a run of these settings.
  void trained_once(const std::string& out, std::string settings) const {
    std::istringstream words(settings);
    std::ranges::replace(settings, ' ', '-');
    const std::string made = run_once("trained-" + settings, {std::istream_iterator<std::string>(words), {}});
    ASSERT_FALSE(made.empty());
    fs::copy(made, path(out), fs::copy_options::recursive);
  }
  static void expect(const Finished& done, int code, const std::vector<std::string>& words) {
    EXPECT_EQ(done.code, code) << done.output;
    for (const auto& word : words)
      EXPECT_NE(done.output.find(word), std::string::npos) << "'" << word << "' is not in: " << done.output;
  }
  // Logits after each of `ids`, by our own stages, from the newest checkpoint.
  std::vector<std::vector<float>> logits(const std::string& out, const std::vector<std::uint32_t>& ids,
                                         std::optional<std::uint64_t> step = std::nullopt) const {
    const auto model = opened(out, step);
    std::vector<std::vector<float>> all;
    for (std::size_t n = 1; n <= ids.size(); ++n) all.push_back(*model->next(std::span(ids).first(n)));
    return all;
  }
  // `ids` and so many more, each the likeliest.
  std::vector<std::uint32_t> greedy(const std::string& out, std::vector<std::uint32_t> ids, std::size_t more) const {
    const auto model = opened(out, std::nullopt);
    for (std::size_t i = 0; i < more; ++i) {
      const std::size_t seen = std::min<std::size_t>(ids.size(), 32);  // the run file's context
      const auto next = *model->next(std::span<const std::uint32_t>(ids).last(seen));
      ids.push_back(static_cast<std::uint32_t>(std::ranges::max_element(next) - next.begin()));
    }
    return ids;
  }
  std::unique_ptr<isthmus::stage::CheckpointModel> opened(const std::string& out,
                                                          std::optional<std::uint64_t> step) const {
    const auto config = isthmus::config::load_run(path(out) + "/run.toml");
    EXPECT_TRUE(config);
    const std::string checkpoints = path(out) + "/checkpoint";
    const auto version =
        isthmus::store::choose_version(checkpoints, static_cast<std::uint32_t>(config->pipeline.stage.size()), step);
    EXPECT_TRUE(version) << version.error().message;
    const auto torch = isthmus::stage::torch_module();
    EXPECT_TRUE(torch) << torch.error().message;
    auto model = (*torch)->open_checkpoint(*config, checkpoints, *version);
    EXPECT_TRUE(model) << model.error().message;
    return std::move(*model);
  }
  // Kills the command while the file it works on is there. Whether it could be caught.
  bool is_killed_while(const Arguments& arguments, const std::string& working_on) const {
    std::error_code error;
    const pid_t pid = start(arguments, path("killed.txt"));
    const bool begun = eventually([&] { return fs::exists(working_on, error); }, 100);
    ::kill(pid, SIGKILL);
    (void)finish(pid, path("killed.txt"));
    return begun && fs::exists(working_on, error);
  }
  // See tests/reference/exported.py.
  void compare_in_python(const json& cases) const {
    std::ofstream(path("cases.json")) << cases.dump();
    const std::string command = std::string(ISTHMUS_PYTHON) + " " ISTHMUS_SOURCE_DIR "/tests/reference/exported.py " +
                                path("cases.json") + " > " + path("python.txt") + " 2>&1";
    EXPECT_EQ(std::system(command.c_str()), 0) << read(path("python.txt"));
    std::fputs(read(path("python.txt")).c_str(), stdout);
  }
  json summary(const std::string& out) const { return json::parse(read(path(out) + "/summary.json")); }
  // Of the lines that a run which goes on from `step` writes; the evaluation of its weights is one of them.
  std::vector<double> losses(const std::string& out, int step) const {
    std::istringstream lines(read(path(out) + "/metrics.jsonl"));
    std::vector<double> all;
    for (std::string line; std::getline(lines, line);) {
      const json j = json::parse(line);
      if (j["step"] > step || (j["step"] == step && j.contains("validation_loss")))
        all.push_back(j.contains("loss") ? j["loss"] : j["validation_loss"]);
    }
    return all;
  }
};

// Few steps, and large ones, so that nothing is near its initial value any more.
constexpr const char* kQuick =
    "run.steps=5 train.warmup_steps=1 train.learning_rate=0.02 train.precision=fp32 train.evaluate_every=0 "
    "checkpoint.every=0 checkpoint.keep=10 ";

TEST_F(ExportTest, HasTheSameLogitsInTransformers) {
  struct Case {
    const char* name;
    const char* architecture;
    const char* settings;
    std::vector<std::string> flags = {};
  };
  const std::vector<Case> cases = {
      {"subspace-window", "IsthmusForCausalLM",
       "pipeline.stages=3 model.token_path=window model.token_window=3 model.token_width=5"},
      {"identity", "LlamaForCausalLM", "boundary.codec=identity"},
      {"identity-window", "IsthmusForCausalLM", "boundary.codec=identity model.token_path=window"},
      {"subspace-shards", "LlamaForCausalLM", "model.hidden=128", {"--shard-mb", "1"}},
      {"narrow-alone", "LlamaForCausalLM", "boundary.codec=narrow model.token_path=window pipeline.stages=1"},
      {"projected", "LlamaForCausalLM", "boundary.codec=projected"},
      {"projected-window", "IsthmusForCausalLM", "boundary.codec=projected model.token_path=window"},
      {"subspace-table", "IsthmusForCausalLM", "model.token_path=table"},
      {"narrow", "IsthmusForCausalLM", "boundary.codec=narrow"},
      {"bottleneck", "IsthmusForCausalLM", "boundary.codec=bottleneck model.token_path=window pipeline.stages=3"},
      {"learned", "IsthmusForCausalLM", "boundary.codec=learned"},
      {"projection", "IsthmusForCausalLM", "boundary.codec=projection"},
      {"top_k", "IsthmusForCausalLM", "boundary.codec=top_k"},
  };
  const std::string prompt = "the quick brown ";
  std::vector<std::uint32_t> ids;
  for (const char c : std::string("fox 41 jumps over the lazy dog\n")) ids.push_back(static_cast<std::uint8_t>(c));
  json all = json::array();
  for (const auto& one : cases) {
    const std::string out = std::string("run-") + one.name, folder = path(one.name);
    trained_once(out, kQuick + std::string(one.settings));
    const auto done = run(joined({"export", path(out), folder, "--json"}, one.flags));
    ASSERT_EQ(done.code, 0) << done.output;
    const json result = json::parse(done.output);
    EXPECT_EQ(result["architecture"], one.architecture) << one.name;
    EXPECT_EQ(result["step"], 5);
    for (const auto& file : result["files"]) EXPECT_TRUE(fs::exists(folder + "/" + file.get<std::string>())) << file;
    // Our own model's window moves on past the context; Llama's does not.
    const std::size_t tokens = one.architecture == std::string("LlamaForCausalLM") ? 16 : 24;
    const auto made = greedy(out, {prompt.begin(), prompt.end()}, tokens);
    // And the command, for one of either architecture.
    if (std::string_view(one.name) == "subspace-shards" || std::string_view(one.name) == "subspace-window") {
      const auto text =
          run({"generate", path(out), "--prompt", prompt, "--tokens", std::to_string(tokens), "--temperature", "0"});
      ASSERT_EQ(text.code, 0) << text.output;
      EXPECT_EQ(text.output.substr(0, made.size()), std::string(made.begin(), made.end())) << one.name;
    }
    const std::string text = "naïve — \n\t 中 <s> \x01 end";
    all.push_back({{"folder", folder},
                   {"architecture", one.architecture},
                   {"ids", ids},
                   {"logits", logits(out, ids)},
                   {"prompt", prompt},
                   {"greedy", made},
                   {"text", text},
                   {"tokens", isthmus::Bytes(text.begin(), text.end())}});
  }
  EXPECT_TRUE(fs::exists(path("subspace-shards/model.safetensors.index.json")));
  compare_in_python(all);
}

TEST_F(ExportTest, PutsTheRunsVocabularyBesideTheWeights) {
  const std::string model = path("W.model");
  ASSERT_EQ(run({"data", "vocabulary", "--size", "330", "--out", model, path("text")}).code, 0);
  ASSERT_EQ(run({"data", "pack", "--vocabulary", model, "--train", path("words.bin"), "--validation", path("held.bin"),
                 path("text")})
                .code,
            0);
  trained("words", std::string(kQuick) + "model.vocabulary=330 data.train=" + path("words.bin") +
                       " data.validation=" + path("held.bin"));
  const auto bare = run({"export", path("words"), path("bare")});
  expect(bare, 0, {"no tokenizer is written", "330", "--vocabulary", "LlamaForCausalLM"});
  EXPECT_FALSE(fs::exists(path("bare/tokenizer.json")));
  ASSERT_EQ(run({"export", path("words"), path("dressed"), "--vocabulary", model}).code, 0);
  EXPECT_EQ(read(path("dressed/tokenizer.model")), read(model));
  // In transformers a text has the ids that it has here, and comes back from them.
  const auto vocabulary = isthmus::data::Vocabulary::open(model);
  ASSERT_TRUE(vocabulary);
  const std::string words = read(path("text")).substr(0, 3000) + "  naïve — \n\t 中 <s> <unk> <0x0A> \x7f   end ";
  const auto ids = vocabulary->encode({reinterpret_cast<const std::uint8_t*>(words.data()), words.size()});
  ASSERT_TRUE(ids);
  EXPECT_LT(ids->size(), words.size() * 3 / 4);
  compare_in_python(json::array({{{"folder", path("dressed")}, {"text", words}, {"tokens", *ids}}}));

  const Arguments generate = {"generate", path("words"), "--prompt", "fox — 中", "--tokens", "5"};
  expect(run(generate), 1, {"330", "--vocabulary"});
  const auto text = run(joined(generate, {"--vocabulary", model}));
  expect(text, 0, {"fox — 中"});
  expect(run(joined(generate, {"--vocabulary", path("text")})), 1, {"not a sentencepiece model"});
  trained("bytes", kQuick);
  const auto unwritten =
      run({"export", path("bytes"), path("whole"), "--json"}, [] { ::dup2(::open("/dev/full", O_WRONLY), 1); });
  expect(unwritten, 1, {"cannot write the output"});
  expect(run({"export", path("bytes"), path("misfit"), "--vocabulary", model}), 1, {"330 pieces", "256"});
  EXPECT_FALSE(fs::exists(path("misfit")));
}

TEST_F(ExportTest, ContinuesATextTheSameWayForASeed) {
  trained("run", std::string(kQuick) + "model.token_path=window train.precision=bf16 boundary.values=int4");
  const auto text = [&](const Arguments& more) {
    const auto quiet = [] { ::close(2); };
    const auto done = run(joined({"generate", path("run"), "--prompt", "the quick", "--tokens", "60"}, more), quiet);
    EXPECT_EQ(done.code, 0) << done.output;
    EXPECT_EQ(done.output.size(), 9 + 60 + 1u);  // the prompt, a byte for each token, the end of the line
    EXPECT_TRUE(done.output.starts_with("the quick"));
    return done.output;
  };
  const std::string once = text({"--seed", "7"});
  EXPECT_EQ(text({"--seed", "7"}), once);
  EXPECT_NE(text({"--seed", "8"}), once);
  EXPECT_EQ(text({"--temperature", "0"}), text({"--temperature", "0", "--seed", "9"}));
  EXPECT_EQ(text({"--top-k", "1"}), text({"--temperature", "0"}));
  expect(run({"generate", path("run"), "--prompt", "the quick", "--tokens", "3"}), 0,
         {"step 5, seed 1: 3 tokens", "tokens/s"});
}

TEST_F(ExportTest, AsksForTheOwnersKey) {
  for (const char* out : {"ours", "theirs"}) trained(out, kQuick);
  struct stat info {};
  ASSERT_EQ(::stat(path("ours/owner.key").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  const std::string open_half = read(path("ours/owner.pub"));
  EXPECT_NE(read(path("ours/owner.key")).find(open_half), std::string::npos);
  ASSERT_EQ(run(train("ours", kQuick, {"--resume"})).code, 0);
  EXPECT_EQ(read(path("ours/owner.pub")), open_half);

  fs::rename(path("ours/owner.key"), path("kept"));
  const std::vector<Arguments> commands = {{"export", path("ours"), path("out")},
                                           {"generate", path("ours"), "--prompt", "fox", "--tokens", "1"},
                                           train("new", kQuick, {"--from", path("ours")})};
  for (const auto& command : commands) {
    expect(run(command), 1, {"only its owner", path("ours/owner.key"), "--owner-key"});
    expect(run(joined(command, {"--owner-key", path("theirs/owner.key")})), 1,
           {"is not the key of the owner", path("ours/owner.pub")});
    EXPECT_FALSE(fs::exists(path("out")) || fs::exists(path("new")));
  }
  for (const auto& command : commands) expect(run(joined(command, {"--owner-key", path("kept")})), 0, {});
  fs::permissions(path("kept"), fs::perms::others_read, fs::perm_options::add);
  expect(run({"export", path("ours"), path("again"), "--owner-key", path("kept")}), 1, {"can be read by others"});
}

TEST_F(ExportTest, SaysWhatIsWrongAndWhatToDo) {
  trained("run", std::string(kQuick) + "run.steps=6 checkpoint.every=3");
  const auto exported = [&](const std::string& run_folder, const Arguments& more = {}) {
    return run(joined({"export", path(run_folder), path("out")}, more));
  };
  expect(exported("nothing"), 1, {"there is no run in", "run.toml"});
  expect(exported("run", {"--step", "5"}), 1, {"of step 5", "stage 0: 3, 6", "stage 1: 3, 6"});
  expect(run({"generate", path("run"), "--prompt", ""}), 1, {"the prompt is empty"});
  expect(run({"export", path("run")}), 2, {"DIR"});
  fs::create_directories(path("full/x"));
  expect(run({"export", path("run"), path("full")}), 1, {path("full") + " holds x, which no export has written"});
  expect(run({"export", path("run"), path("full"), "--force"}), 1, {"holds x"});
  EXPECT_TRUE(fs::exists(path("full/x")));
  fs::create_directories(path("out.writing/x"));
  expect(exported("run"), 1, {path("out.writing") + " holds x, which no export has written"});
  fs::remove_all(path("out.writing"));
  for (const char* nameless : {"", ".", "..", "/"})
    expect(run({"export", path("run"), nameless, "--force"}), 1, {"names no folder"});
  // Both stages at once.
  for (const char* stage : {"stage-0", "stage-1"}) {
    std::fstream file(path(std::string("run/checkpoint/") + stage + "/step-00000006/weights.safetensors"),
                      std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(-1, std::ios::end);
    file.put('x');
  }
  expect(exported("run"), 1, {"stage-0", "stage-1", "digest"});
  expect(exported("run", {"--step", "3"}), 0, {"step 3 as LlamaForCausalLM"});
  const std::string config = read(path("out/config.json"));
  std::ofstream(path("out/config.json")) << "an older one";
  expect(exported("run", {"--step", "3"}), 1, {"exists and holds an export; --force replaces it"});
  EXPECT_EQ(read(path("out/config.json")), "an older one");
  expect(exported("run", {"--step", "3", "--force"}), 0, {"step 3"});
  EXPECT_EQ(read(path("out/config.json")), config);
  EXPECT_FALSE(fs::exists(path("out.writing")));
  fs::create_directory_symlink("linked", path("link"));
  expect(run({"export", path("run"), path("link"), "--step", "3"}), 0, {});
  EXPECT_EQ(read(path("linked/config.json")), config);
  fs::remove_all(path("run/checkpoint/stage-1"));
  fs::remove_all(path("out"));
  expect(exported("run"), 1, {"there is no step", "stage 0: 3, 6", "stage 1: none"});
  trained("hollow",
          "run.steps=2 train.warmup_steps=1 pipeline.device=emulated emulated.forward_ms=1 "
          "emulated.input_gradient_ms=1 emulated.weight_gradient_ms=1");
  expect(exported("hollow"), 1, {"emulated", "no weights"});
  EXPECT_FALSE(fs::exists(path("out")));
  EXPECT_FALSE(fs::exists(path("out.writing")));
}

TEST_F(ExportTest, LeavesNothingThatLooksWholeWhenKilled) {
  trained("run", std::string(kQuick) + "model.hidden=128");
  ASSERT_TRUE(is_killed_while({"export", path("run"), path("out"), "--shard-mb", "1"}, path("out.writing")));
  EXPECT_FALSE(fs::exists(path("out")));
  const auto again = run({"export", path("run"), path("out"), "--json"});
  ASSERT_EQ(again.code, 0) << again.output;
  EXPECT_FALSE(fs::exists(path("out.writing")));
  // Nothing of the one that was killed is left among the files.
  EXPECT_EQ(std::distance(fs::directory_iterator(path("out")), fs::directory_iterator()),
            static_cast<std::ptrdiff_t>(json::parse(again.output)["files"].size()));
}

// A run that goes on from the checkpoint of another one.

constexpr const char* kMany = "run.steps=10 checkpoint.keep=10 train.precision=fp32 ";

TEST_F(ExportTest, GoesOnOnAnotherMapAsIfNothingHadHappened) {
  const std::map<std::string, std::vector<std::string>> maps_of = {
      {"train.optimizer=muon ", {"pipeline.stages=1", "pipeline.stages=4"}},
      {"boundary.codec=identity ", {"pipeline.stages=3 pipeline.replicas=2"}}};
  for (const auto& [form, maps] : maps_of) {
    trained("whole", kMany + form);
    for (const auto& map : maps) {
      const auto done = run(train("other", kMany + form + map, {"--from", path("whole"), "--step", "5"}));
      expect(done, 0, {"from step 5 of", "2 stages become"});
      EXPECT_EQ(losses("other", 5), losses("whole", 5)) << form << map;
      EXPECT_EQ(summary("other")["weights_hash"], summary("whole")["weights_hash"]) << form << map;
      fs::remove_all(path("other"));
    }
    fs::remove_all(path("whole"));
  }
}

TEST_F(ExportTest, TakesEveryTensorToAnotherMap) {
  for (const std::string codec : {"subspace", "projected", "identity", "top_k", "projection"}) {
    const std::string settings = std::string(kQuick) + "boundary.codec=" + codec;
    trained_once("whole", settings);
    const auto done = run(train("other", settings + " run.steps=6 pipeline.stages=4", {"--from", path("whole")}));
    ASSERT_EQ(done.code, 0) << done.output;
    const auto tensors = [&](const std::string& out) {
      auto whole = isthmus::store::read_whole_checkpoint(*isthmus::config::load_run(path(out) + "/run.toml"),
                                                         path(out) + "/checkpoint", 5,
                                                         isthmus::store::Keep::kWeightsAndOptimizer);
      EXPECT_TRUE(whole) << whole.error().message;
      std::map<std::string, std::vector<std::uint8_t>> all;
      for (const auto* set : {&whole->weights, &whole->moments})
        for (const auto& [name, tensor] : *set) all[name].assign(tensor.bytes.begin(), tensor.bytes.end());
      return all;
    };
    EXPECT_EQ(tensors("other"), tensors("whole")) << codec;
    EXPECT_EQ(done.output.find("loses something") != std::string::npos, codec == "top_k" || codec == "projection")
        << done.output;
    for (const char* out : {"whole", "other"}) fs::remove_all(path(out));
  }
}

TEST_F(ExportTest, IsTheSameModelWhereACutIsAdded) {
  const std::vector<std::uint32_t> ids = {116, 104, 101, 32, 102, 111, 120};
  for (const std::string form :
       {"model.token_path=window", "model.token_path=table", "boundary.codec=identity model.token_path=window",
        "boundary.codec=identity model.token_path=table", "boundary.codec=narrow model.token_path=window",
        "boundary.codec=narrow"}) {
    const std::string settings = std::string(kQuick) + form;
    trained_once("whole", settings);
    // Of layers 0:2 and 2:4.
    const auto done = run(train("other", settings + " run.steps=7 pipeline.stages=4", {"--from", path("whole")}));
    ASSERT_EQ(done.code, 0) << done.output;
    if (form.find("token_path") != std::string::npos) {
      EXPECT_NE(done.output.find("token_path.1 is new and adds nothing at first"), std::string::npos) << done.output;
    }
    EXPECT_EQ(logits("other", ids, 5), logits("whole", ids)) << form;
    EXPECT_NE(logits("other", ids, 7), logits("whole", ids)) << form;
    for (const char* out : {"whole", "other"}) fs::remove_all(path(out));
  }
}

TEST_F(ExportTest, AsksBeforeItMakesAnotherModelOfIt) {
  const std::string window = std::string(kQuick) + "model.token_path=window ";
  trained("four", window + "pipeline.stages=4");
  const auto merged = [&](const Arguments& more) {
    return run(train("two", window + "run.steps=6", joined({"--from", path("four")}, more)));
  };
  expect(merged({}), 1,
         {"not the same", "token_path.1 has no place", "token_path.3 has no place", "--allow-model-change"});
  EXPECT_FALSE(fs::exists(path("two")));
  expect(merged({"--allow-model-change"}), 0, {"token_path.1 has no place", "4 stages become 2"});
  const json origin = json::parse(read(path("two/checkpoint/from.json")));
  EXPECT_EQ(origin["step"], 5);
  EXPECT_EQ(origin["changes"].size(), 2u);
  const std::string bottleneck = std::string(kQuick) + "boundary.codec=bottleneck ";
  trained("narrow", bottleneck);
  expect(run(train("wide", bottleneck + "pipeline.stages=4", {"--from", path("narrow")})), 1,
         {"border.1.encoder is new", "border.3.decoder is new"});
}

TEST_F(ExportTest, NamesAllThatKeepsARunFromGoingOnElsewhere) {
  trained("run", kQuick);
  fs::resize_file(path("run/checkpoint/stage-1/step-00000005/optimizer.safetensors"), 100);
  const std::string other = std::string(kQuick) + "run.steps=4 model.hidden=64 boundary.factored_layers=4 run.seed=2 ";
  expect(run(train("other", other, {"--from", path("run")})), 1,
         {"another model", "model.hidden", "run.seed", "boundary.factored_layers: 3 / 4", "set it to 3", "step 5",
          "run.steps", "optimizer.safetensors", "truncated"});
  EXPECT_FALSE(fs::exists(path("other")));
  expect(run(train("run", std::string(kQuick) + "pipeline.stages=4", {"--resume"})), 1,
         {"layer-to-stage map", "--out NEW --from " + path("run")});
  expect(run(train("run", kQuick, {"--from", path("run")})), 1, {"already holds a run"});
  expect(run(train("other", kQuick, {"--from", path("run"), "--resume"})), 2, {"--resume"});
  expect(run(train("other", kQuick, {"--step", "5"})), 2, {"--from"});
}

TEST_F(ExportTest, BeginsFromNothingHalfWritten) {
  trained("whole", kMany);
  const Arguments restored =
      train("other", std::string(kMany) + "pipeline.stages=4", {"--from", path("whole"), "--step", "5"});
  ASSERT_TRUE(is_killed_while(restored, path("other/checkpoint.writing")));
  EXPECT_FALSE(fs::exists(path("other/checkpoint/stage-0")));
  ASSERT_EQ(run(restored).code, 0);
  EXPECT_EQ(summary("other")["weights_hash"], summary("whole")["weights_hash"]);
  EXPECT_FALSE(fs::exists(path("other/checkpoint.writing")));
  // Nor from a start that was cut short before its run began: what is left of it is in the way until it is cleared.
  fs::remove(path("other/coordinator.log"));
  EXPECT_EQ(run(train("other", std::string(kMany) + "pipeline.stages=4")).code, 1);
  ASSERT_EQ(run(train("other", std::string(kMany) + "pipeline.stages=4", {"--force"})).code, 0);
  EXPECT_FALSE(fs::exists(path("other/checkpoint/from.json")));
  EXPECT_EQ(summary("other")["weights_hash"], summary("whole")["weights_hash"]);
}

}  // namespace
