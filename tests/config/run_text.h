#pragma once

#include <string>
#include <vector>

#include "config/load_run.h"

namespace isthmus::config {

// The shortest run file: everything else is a default.
inline constexpr const char* kShortest = R"([data]
train = "train.bin"
validation = "validation.bin"
[[pipeline.stage]]
layers = "0:8"
)";

// A run file with something in every table, two stages.
inline constexpr const char* kFull = R"(# comment
[run]
name = "full"
seed = 7
steps = 40
deterministic = true
[model]
layers = 8
hidden = 128
heads = 4
context = 64
vocabulary = 300
mlp = 96
token_path = "window"
token_window = 4
token_width = 16
[data]
train = "data/train.bin"
validation = 'data/validation.bin'
train_digest = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
train_bytes = 1000
validation_digest = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210"
validation_bytes = 2000
[train]
sequences_per_microbatch = 2
microbatches_per_step = 6
optimizer = "muon"
learning_rate = 3.7e-4
writer_learning_rate = 1.5
momentum = 0.9
warmup_steps = 4
schedule_steps = 39
final_learning_rate = 0
beta1 = 0.91
beta2 = 0.955
epsilon = 1e-9
weight_decay = 0.01
clip = 0
spike_sigma = 4.5
spike_window = 64
precision = "fp32"
evaluate_every = 10
evaluation_microbatches = 3
[boundary]
codec = "subspace"
rank = 12
values = "int4"
gradient_values = "fp32"
factored_layers = 6
[link]
bandwidth_mbps = 12.5
uplink_mbps = 3.5
downlink_mbps = 7.5
latency_ms = 20
jitter_ms = 0.1
loss = 0.003
emulate = true
measure_s = 60
[pipeline]
schedule = "1f1b"
routing = "round_robin"
credits = 9
device = "emulated"
threads = 1
activation_mb = 100
recompute = "always"
stage = [{layers = "0:3"}, {layers = "3:8", replicas = 1}]
[sync]
mode = "exact"
[rehearsal]
liar = 2
lie = "noise"
[emulated]
forward_ms = 1.5
input_gradient_ms = 2
weight_gradient_ms = 0.3
forward_bytes = 1000
backward_bytes = 2000
state_bytes = 2500
parameters = 3000
[checkpoint]
every = 5
keep = 3
[recovery]
journal_mb = 17
replace = false
skip_after_s = 9
skip_steps = 11
rebalance = false
rollback_after = 3
)";

// A fleet in three regions, with every key of one.
inline constexpr const char* kFleet = R"([data]
train = "train.bin"
validation = "validation.bin"
[pipeline]
layout = "auto"
stages = 3
[[fleet.machine]]
name = "gpu"
count = 3
memory_gb = 8
gflops = 500
uplink_mbps = 40
downlink_mbps = 200.5
region = "eu"
[[fleet.machine]]
name = "old"
memory_gb = 4
forward_ms = 20
input_gradient_ms = 22
weight_gradient_ms = 21
embedding_ms = 2
head_ms = 30
[[fleet.machine]]
name = "far"
count = 2
memory_gb = 16
gflops = 900
region = "us"
[[fleet.link]]
between = ["eu", "eu"]
mbps = 300
latency_ms = 10
[[fleet.link]]
between = ["us", "us"]
mbps = 300
latency_ms = 12
[[fleet.link]]
between = ["eu", "us"]
mbps = 60
latency_ms = 45
[[fleet.link]]
between = ["old", "eu"]
mbps = 20
latency_ms = 5
[[fleet.link]]
between = ["old", "us"]
mbps = 15
latency_ms = 50
[[fleet.link]]
between = ["gpu.1", "far"]
mbps = 90
latency_ms = 40.5
)";

// Every problem of a text, as a user reads it; empty if it is a run.
inline std::vector<std::string> problems_of(const std::string& text, const std::vector<std::string>& overrides = {}) {
  const auto run = parse_run(text, "run.toml", overrides);
  std::vector<std::string> out;
  if (!run)
    for (const auto& problem : run.error()) out.push_back(problem.text());
  return out;
}

// `text` with its first `from` replaced.
inline std::string with(std::string text, const std::string& from, const std::string& to) {
  return text.replace(text.find(from), from.size(), to);
}

}  // namespace isthmus::config
