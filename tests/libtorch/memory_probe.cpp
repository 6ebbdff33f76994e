// Takes a stage through two steps as it is fullest, with a checkpoint's copy in between, and prints the peak of its
// memory and what was planned, in bytes: memory_probe RUN.toml STAGE

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "compress/boundary_codec.h"
#include "compress/token_ids.h"
#include "config/load_run.h"
#include "process/cpu.h"
#include "scheduler/planner/make_plan.h"
#include "spec/stage_memory.h"
#include "stage/torch_module.h"

using namespace isthmus;

namespace {

// VmHWM of this process.
double peak_bytes() {
  std::ifstream in("/proc/self/status");
  for (std::string key; in >> key;) {
    double kibibytes = 0;
    if (key == "VmHWM:" && in >> kibibytes) return kibibytes * 1024;
  }
  return 0;
}

// A microbatch's token ids, all 1.
SharedBytes ones(const spec::RunConfig& run) {
  Bytes ids(planner::make_plan(run).token_bytes);
  const std::size_t width = ids.size() / (run.train.sequences_per_microbatch * (run.model.context + 1));
  for (std::size_t i = 0; i < ids.size(); i += width) ids[i] = 1;
  return share(std::move(ids));
}

// A boundary tensor with them.
compress::EncodedTensor crossing(const spec::RunConfig& run, compress::Direction direction) {
  const compress::BoundaryShape shape = compress::boundary_shape(run);
  std::vector<float> values(shape.numbers());
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = 0.01f * static_cast<float>(i % 17);
  compress::EncodedTensor tensor;
  const auto codec = compress::make_boundary_codec(run, direction);
  tensor.header.codec = codec->id();
  tensor.values = share(codec->encode(values, shape, 1));
  tensor.tokens = ones(run);
  return tensor;
}

int probe(const spec::RunConfig& run, StageId id) {
  const auto torch = stage::torch_module();
  if (!torch) {
    std::fprintf(stderr, "%s\n", torch.error().message.c_str());
    return 1;
  }
  auto made = (*torch)->make_stage(run, id, ReplicaId(0));
  if (!made) {
    std::fprintf(stderr, "%s\n", made.error().message.c_str());
    return 1;
  }
  runner::StageCompute& stage = **made;
  const protocol::Plan plan = planner::make_plan(run);
  const protocol::StagePlan& planned = plan.stages[id.value];
  spec::StageUse use = spec::fullest_use(run, planned.end_layer, planned.credits, planned.replicas);
  use.within_budget = false;
  const bool head = id == StageId(0), tail = planned.end_layer == run.model.layers;
  const auto in = head ? compress::EncodedTensor{nullptr, ones(run)} : crossing(run, compress::Direction::kForward),
             back = tail ? compress::EncodedTensor{} : crossing(run, compress::Direction::kBackward);
  std::vector<SharedBytes> sent;  // as the router keeps it until the commit
  const auto forward = [&](std::uint64_t step, std::uint32_t m) {
    auto result = stage.forward(StepId(step), MicrobatchId(m), true, in);
    if (!result) std::abort();
    sent.push_back(result->output.values);
  };
  const auto gradient = [&](std::uint32_t m) {
    auto result = stage.input_gradient(MicrobatchId(m), back);
    if (!result) std::abort();
    sent.push_back(result->values);
  };
  store::StageTensors copied;
  for (std::uint64_t step = 1; step <= 2; ++step) {
    // One for itself, so that there are sums; then those that wait for their W; then those in flight.
    forward(step, 0);
    gradient(0);
    stage.weight_gradient(MicrobatchId(0));
    std::uint32_t m = 1;
    for (; m <= use.waiting; ++m) {
      forward(step, m);
      gradient(m);
    }
    const std::uint32_t all = use.waiting + use.in_flight;
    for (std::uint32_t f = m; f <= all; ++f) forward(step, f);
    for (; m <= all; ++m) gradient(m);
    for (std::uint32_t w = 1; w <= all; ++w) stage.weight_gradient(MicrobatchId(w));
    (void)stage.prepare({}, true);
    protocol::Commit commit;
    commit.step = StepId(step);
    commit.scale = 0.5;
    stage.apply(commit, 1e-3);
    sent.clear();
    copied = {};  // written by now
    copied = stage.copy();
  }
  const auto boundary = static_cast<double>(plan.forward_bytes + plan.backward_bytes + plan.token_bytes);
  const bool bf16 = run.train.precision == "bf16" && process::cpu_multiplies_bf16();
  const spec::StageMemory memory = spec::stage_memory(run, planned.first_layer, planned.end_layer, use, boundary, bf16);
  std::printf("%.0f %.0f\n", peak_bytes(), memory.total());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const auto run = config::load_run(argv[1], {});
  if (!run) {
    std::fprintf(stderr, "%s\n", run.error().front().text().c_str());
    return 1;
  }
  // On a thread of its own, as in a worker.
  int code = 1;
  std::thread([&] { code = probe(*run, StageId(static_cast<std::uint32_t>(std::stoul(argv[2])))); }).join();
  return code;
}
