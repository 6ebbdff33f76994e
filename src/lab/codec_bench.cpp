#include "lab/codec_bench.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <vector>

#include "base/counter_random.h"
#include "compress/boundary_codec.h"
#include "lab/local_pipeline.h"
#include "process/clock.h"

namespace isthmus::lab {

namespace {

struct Subject {
  std::string name;
  std::unique_ptr<compress::BoundaryCodec> codec;
};

// One operation that is timed, and the bytes of fp32 numbers that went in or came out of it each time.
struct Timed {
  std::function<void()> run;
  double bytes = 0;
  std::vector<double> speeds;  // bytes per second, one of each round

  double median() {
    const auto middle = speeds.begin() + static_cast<std::ptrdiff_t>(speeds.size() / 2);
    std::nth_element(speeds.begin(), middle, speeds.end());
    return *middle;
  }
};

// All operations in turn, so that a busy moment of the machine falls on all of them.
void measure(std::vector<Timed>& operations, double seconds) {
  constexpr int kRounds = 9;
  for (int round = 0; round < kRounds; ++round)
    for (auto& operation : operations) {
      const Time start = process::monotonic_now();
      std::uint64_t count = 0;
      double passed = 0;
      do {
        operation.run();
        ++count;
        passed = to_seconds(process::monotonic_now() - start);
      } while (passed < seconds / kRounds);
      operation.speeds.push_back(operation.bytes * static_cast<double>(count) / passed);
    }
}

std::vector<Subject> subjects_of(const spec::RunConfig& run) {
  std::vector<Subject> subjects;
  for (const char* name : {"fp32", "bf16", "int8", "int4"})
    subjects.push_back({name, compress::make_value_codec(name, compress::Rounding::kNearest)});
  for (const char* name : {"int8", "int4"})
    subjects.push_back(
        {fmt::format("{}, stochastic", name), compress::make_value_codec(name, compress::Rounding::kStochastic)});
  subjects.push_back(
      {fmt::format("top {} of {}, bf16", run.boundary.rank, run.model.hidden),
       compress::make_top_k(run.boundary.rank, compress::make_value_codec("bf16", compress::Rounding::kNearest))});
  return subjects;
}

// Seconds of one microbatch on a stage that has a boundary on both sides, codecs included; the mean over such stages,
// or over all where there is none.
Result<double> seconds_per_microbatch(spec::RunConfig run) {
  run.run.steps = 3;
  run.train.warmup_steps = 1;
  run.train.evaluation_microbatches = 0;
  auto pipeline = LocalPipeline::open(run);
  if (!pipeline) return tl::unexpected(pipeline.error());
  for (std::uint64_t step = 1; step <= run.run.steps; ++step)
    if (auto done = pipeline->run_step(); !done) return tl::unexpected(done.error());
  const auto& times = pipeline->times();
  const bool middle = times.size() > 2;
  double seconds = 0;
  std::size_t stages = 0;
  for (std::size_t s = middle ? 1 : 0; s < times.size() - (middle ? 1 : 0); ++s, ++stages)
    seconds += to_seconds(times[s].forward + times[s].input_gradient + times[s].weight_gradient);
  return seconds / static_cast<double>(stages) / static_cast<double>(run.run.steps * run.train.microbatches_per_step);
}

}  // namespace

int bench_codecs(const spec::RunConfig& run, const CodecBenchOptions& options) {
  const compress::BoundaryShape wide{std::uint64_t{run.train.sequences_per_microbatch} * run.model.context,
                                     run.model.hidden};
  const compress::BoundaryShape own = compress::boundary_shape(run);
  const auto numbers = [](std::uint64_t count) {
    const CounterRandom random(1, "bench");
    std::vector<float> values(count);
    for (std::size_t i = 0; i < count; ++i) values[i] = static_cast<float>(random.normal(i));
    return values;
  };
  const std::vector<float> hidden = numbers(wide.numbers()), sent = numbers(own.numbers());
  std::vector<float> out(wide.numbers()), received(own.numbers());
  const double wide_bytes = static_cast<double>(wide.numbers()) * 4;

  // 64 MiB: beyond any core's cache. Read and written once each.
  std::vector<std::uint8_t> from(64 << 20, 1), to(64 << 20, 2);
  std::vector<Timed> operations;
  operations.push_back({[&] { std::memcpy(to.data(), from.data(), from.size()); }, static_cast<double>(from.size())});
  const auto subjects = subjects_of(run);
  std::vector<Bytes> encoded;
  for (const auto& subject : subjects) encoded.push_back(subject.codec->encode(hidden, wide, 1));
  for (std::size_t i = 0; i < subjects.size(); ++i) {
    operations.push_back({[&, i] { subjects[i].codec->encode(hidden, wide, 1); }, wide_bytes});
    operations.push_back({[&, i] { (void)subjects[i].codec->decode(encoded[i], wide, out); }, wide_bytes});
  }
  const auto forward = compress::make_boundary_codec(run, compress::Direction::kForward),
             backward = compress::make_boundary_codec(run, compress::Direction::kBackward);
  const Bytes forward_bytes = forward->encode(sent, own, 1), backward_bytes = backward->encode(sent, own, 1);
  operations.push_back({[&] {
                          forward->encode(sent, own, 1);
                          (void)forward->decode(forward_bytes, own, received);
                          backward->encode(sent, own, 1);
                          (void)backward->decode(backward_bytes, own, received);
                        },
                        1});
  measure(operations, options.seconds);
  spec::RunConfig alone = run;
  alone.host.threads = 1;
  const auto stage = seconds_per_microbatch(alone);
  if (!stage) {
    spdlog::error("{}", stage.error().message);
    return 1;
  }
  const double codec_seconds = 1 / operations.back().median(), share = codec_seconds / *stage,
               copy = operations[0].median();

  nlohmann::ordered_json json = {{"tokens", wide.tokens}, {"hidden", wide.columns}, {"copy_gb_per_second", copy / 1e9}};
  std::string text = fmt::format(
      "{} tokens × {} numbers, one core; GB/s of fp32 numbers, medians of 9 interleaved rounds\n"
      "memory copy {:.1f} GB/s\n\n{:<24}{:>14}{:>10}{:>10}{:>18}\n",
      wide.tokens, wide.columns, copy / 1e9, "codec", "bytes/number", "encode", "decode", "encode over copy");
  for (std::size_t i = 0; i < subjects.size(); ++i) {
    const double encode = operations[1 + 2 * i].median(), decode = operations[2 + 2 * i].median();
    const double width = static_cast<double>(encoded[i].size()) / static_cast<double>(wide.numbers());
    json["codecs"].push_back({{"codec", subjects[i].name},
                              {"bytes_per_number", width},
                              {"encode_gb_per_second", encode / 1e9},
                              {"decode_gb_per_second", decode / 1e9}});
    text += fmt::format("{:<24}{:>14.3f}{:>10.2f}{:>10.2f}{:>18.2f}\n", subjects[i].name, width, encode / 1e9,
                        decode / 1e9, encode / copy);
  }
  json["run"] = {{"codec", run.boundary.codec},
                 {"values", run.boundary.values},
                 {"gradient_values", run.boundary.gradient_values},
                 {"columns", own.columns},
                 {"codec_seconds", codec_seconds},
                 {"stage_seconds", *stage},
                 {"share", share}};
  text += fmt::format(
      "\nthis run's boundary, {} {} / {}: both directions, both ends {:.3f} ms of the {:.1f} ms that a stage works on "
      "a microbatch: {:.2f} %\n",
      run.boundary.codec, run.boundary.values, run.boundary.gradient_values, codec_seconds * 1e3, *stage * 1e3,
      share * 100);
  fmt::print("{}", options.json ? json.dump() + "\n" : text);
  return 0;
}

}  // namespace isthmus::lab
