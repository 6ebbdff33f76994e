#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace isthmus::spec {

// What all processes of a training run must agree on: its digest is the run's id (config/spec_digest.h). Nothing of one
// machine is here: no path, device or limit (spec/host_config.h). Filled and checked by config/load_run.h; const from
// then on. Keys of the run file have the names of the members. Defaults stand here and nowhere else.
struct RunSpec {
  struct Run {
    std::string name = "run";
    std::uint64_t seed = 1;
    std::uint64_t steps = 300;
    // Fixed-point gradient sums and one compute thread per worker: equal runs end with equal weight hashes, whatever
    // the layer-to-stage map.
    bool deterministic = false;
    friend bool operator==(const Run&, const Run&) = default;
  } run;

  struct Model {
    std::uint32_t layers = 8;
    std::uint32_t hidden = 256;
    std::uint32_t heads = 4;
    std::uint32_t context = 256;
    std::uint32_t vocabulary = 256;
    // Width of the SwiGLU middle. 0 in the file, or absent: 8/3 of hidden, rounded up to a multiple of 32; resolved
    // by the loader.
    std::uint32_t mlp = 0;
    // What a stage learns from the token ids that arrive with the coefficients, at no cost on the wire:
    // none | table (of each token) | window (an MLP over the last token_window tokens).
    std::string token_path = "window";
    std::uint32_t token_window = 8;
    std::uint32_t token_width = 32;  // numbers per token in the window's table
    friend bool operator==(const Model&, const Model&) = default;
  } model;

  // The token shards, wherever a machine keeps them (HostConfig::data).
  struct Shard {
    std::string digest;       // BLAKE2b-256 of the file, hexadecimal (`b2sum -l 256`); empty: not known yet
    std::uint64_t bytes = 0;  // of the file
    bool known() const { return !digest.empty(); }
    friend bool operator==(const Shard&, const Shard&) = default;
  };
  struct Data {
    Shard train;
    Shard validation;
    friend bool operator==(const Data&, const Data&) = default;
  } data;

  struct Train {
    std::uint32_t sequences_per_microbatch = 4;
    std::uint32_t microbatches_per_step = 16;
    std::string optimizer = "muon";  // adamw | muon: the layers' matrices by Muon, all else by AdamW
    double learning_rate = 1e-3;
    // Steps of the matrices that write into the residual stream (attention_out, down), in steps of the others. Every
    // later layer reads what they write; smaller steps were measured to be better
    // (configs/convergence/optimizers.toml).
    double writer_learning_rate = 0.25;
    double momentum = 0.95;  // Muon's
    // Linear warm-up, then cosine down to final_learning_rate × learning_rate at step schedule_steps, and no further.
    std::uint64_t warmup_steps = 20;
    // Absent: run.steps as the run begins; a continuation keeps it, however many steps that has. Resolved by the
    // loader.
    std::uint64_t schedule_steps = 0;
    double final_learning_rate = 0.1;
    double beta1 = 0.9;
    double beta2 = 0.95;
    double epsilon = 1e-8;
    double weight_decay = 0.1;
    // Largest norm of the whole model's gradient; 0 = no clipping.
    double clip = 1.0;
    // A step is skipped if its loss or its gradient's norm is more than so many standard deviations above the mean of
    // the last spike_window steps (scheduler/coordinator/step_guard.h); 0: only if one of them is not finite.
    double spike_sigma = 6;
    std::uint32_t spike_window = 128;
    // bf16 | fp32: arithmetic of the layers (model/arithmetic.h); master weights are fp32.
    std::string precision = "bf16";
    // Evaluation on held-out data before step 1 + n·evaluate_every and after the last step; 0 = after the last only.
    std::uint64_t evaluate_every = 50;
    std::uint32_t evaluation_microbatches = 8;
    friend bool operator==(const Train&, const Train&) = default;
  } train;

  struct Boundary {
    // What crosses (spec/boundary_form.h): subspace | projected | narrow | bottleneck | learned | projection | top_k
    // | identity.
    std::string codec = "subspace";
    // Numbers per token that cross; identity: all of them do. Absent: 4/17 of hidden, which in int4 is a sixteenth of
    // the bytes of the whole stream in bf16; resolved by the loader.
    std::uint32_t rank = 0;
    // fp32 | bf16 | int8 | int4: format of a number, forward. At equal bytes twice the numbers in half the bits lose
    // less.
    std::string values = "int4";
    std::string gradient_values;  // backward. Absent: as forward; resolved by the loader
    // Adds to what is sent what the codec dropped of the microbatch before (top_k only).
    bool error_feedback = false;
    // Layers 0 … factored_layers-1 write into the subspace only (subspace, narrow, projected). Absent: every layer
    // before the tail stage. Set it to compare layouts: the model is the same only if this number is. Resolved by the
    // loader.
    std::optional<std::uint32_t> factored_layers;
    friend bool operator==(const Boundary&, const Boundary&) = default;
  } boundary;

  struct Link {
    double bandwidth_mbps = 80;
    double latency_ms = 50;  // one way
    double jitter_ms = 0;    // uniform in [0, jitter_ms), added to the latency
    double loss = 0;         // probability that a frame has to be sent again, one round trip later, as TCP does
    bool emulate = false;    // shape every process's up- and downlink to these figures
    // The link of every two workers is measured, each once in so many seconds at most (OUT/fleet.toml); 0: none is.
    std::uint32_t measure_s = 0;
    friend bool operator==(const Link&, const Link&) = default;
  } link;

  struct Stage {
    std::uint32_t first_layer = 0;  // layers = "first:end" in the file
    std::uint32_t end_layer = 0;
    std::uint32_t replicas = 1;
    friend bool operator==(const Stage&, const Stage&) = default;
  };

  struct Pipeline {
    std::string layout = "explicit";  // explicit: [[pipeline.stage]]; auto: `stages` stages, resolved by the loader,
                                      // or, with a fleet, by its planner
    std::uint32_t stages = 0;         // = stage.size() after loading; 0 with a fleet: as many as are fastest
    std::uint32_t replicas = 1;       // of each stage that layout = "auto" makes; 1 after loading
    std::vector<Stage> stage;
    std::string schedule = "deep";  // deep: F / I / W apart, credits as below; 1f1b: I and W together, P - i credits
    std::string routing = "finish_time";  // finish_time | round_robin: which replica gets a microbatch
    // Share of all visits of a stage by a microbatch that each step leaves out on purpose (Skip-Pipe): the microbatch
    // passes the stage by unchanged. Every stage is left out equally often, never the first or the last.
    double skip_share = 0;
    std::string credits = "auto";  // auto, or a number: microbatches in flight at any stage
    friend bool operator==(const Pipeline&, const Pipeline&) = default;
  } pipeline;

  // How the replicas of a stage agree on its weights (docs/architecture.md, "Replicas"). Nothing of it matters to a run
  // whose stages have one replica each.
  struct Sync {
    // exact: every step they add up their gradients. The others take steps of their own and, `every` steps, tell each
    // other how their weights moved: diloco (all of it in bf16), sparseloco (the largest 64 of every 4,096 numbers, in
    // 2 bits), slices (bf16 of a share of the numbers, another each time). Absent: exact where that is quick on the
    // run's link, else sparseloco; resolved by the loader.
    std::string mode;
    std::uint32_t every = 0;  // steps; absent: 30, slices 1, exact 1; resolved by the loader
    double share = 0.05;      // slices: of the stage's numbers
    // Of the agreed movement, per sync, and its Nesterov momentum. Absent: diloco 0.7 and 0.9, sparseloco 2 (1 with
    // residual memory, or another rule than the mean) and 0, slices 1 and 0; resolved by the loader. The last sync of
    // sparseloco is a plain mean.
    std::optional<double> learning_rate;
    std::optional<double> momentum;
    // sparseloco: what was not told stays, times error_feedback, and where: weights (the replica goes on from its own),
    // or memory (it goes on from the common ones; published with 0.95).
    double error_feedback = 1;
    std::string residual = "weights";
    // mean | median | trimmed: of each number, over the replicas.
    std::string rule = "mean";
    std::uint32_t warmup = 1;  // syncs at which a replica that joined does not count yet
    friend bool operator==(const Sync&, const Sync&) = default;
  } sync;

  // Rehearses a replica that lies: what one worker tells its siblings at a sync is not what it computed.
  struct Rehearsal {
    std::uint32_t liar = 0;  // worker, counted from 1, stage by stage; 0: none
    std::string lie =
        "not_finite";  // not_finite | scale (100 times) | noise | stale (its first one again) | copy (of a sibling's)
    friend bool operator==(const Rehearsal&, const Rehearsal&) = default;
  } rehearsal;

  // The real sockets, scheduler and messages without the arithmetic.
  struct Emulated {
    bool devices = false;  // whether all are; the loader takes it from pipeline.device
    double forward_ms = 250;
    double input_gradient_ms = 500;
    double weight_gradient_ms = 250;
    std::uint64_t forward_bytes = 0;   // payload of a microbatch; 0: what the boundary codec would send
    std::uint64_t backward_bytes = 0;  // likewise
    std::uint64_t state_bytes = 0;     // what whoever joins a stage fetches; 0: its one number
    std::uint64_t parameters = 0;      // of a stage, for the syncs of its replicas
    // One worker (peers count from 1, stage by stage) that takes slow_factor times as long; 0: none.
    std::uint32_t slow_peer = 0;
    double slow_factor = 1;
    std::uint64_t slow_step = 0;   // in which it becomes slower, being as fast as the others before; 0: it always is
    std::uint64_t slow_after = 0;  // operations of that step that it still does at full speed
    friend bool operator==(const Emulated&, const Emulated&) = default;
  } emulated;

  struct Checkpoint {
    std::uint64_t every = 100;  // steps; 0: only after the last step and when interrupted
    std::uint32_t keep = 2;
    friend bool operator==(const Checkpoint&, const Checkpoint&) = default;
  } checkpoint;

  // Who may serve what, of those who came with an invite (scheduler/coordinator/trust.h).
  struct Trust {
    std::string ends = "owner";             // first and last stage; or "anyone"
    std::uint32_t stages_per_identity = 1;  // 0: any number
    friend bool operator==(const Trust&, const Trust&) = default;
  } trust;

  struct Recovery {
    // A stage between the first and the last that nobody has served for so long is skipped until somebody does; 0: the
    // run waits for it. Absent: 20, or 0 in deterministic mode and where only neighbours understand each other
    // (boundary.codec bottleneck, learned); resolved by the loader.
    std::optional<std::uint32_t> skip_after_s;
    // For so many steps in a row at most; then the run waits.
    std::uint32_t skip_steps = 100;
    // A replica moves from a stage that has more than it needs to the one that holds up the step
    // (scheduler/coordinator/rebalance.h).
    bool rebalance = true;
    // After so many bad steps in a row all stages go back to a checkpoint from before them; 0: never.
    std::uint32_t rollback_after = 8;
    // A member that says nothing for so long, or does not come back for so long after its connection broke, is no
    // member any more. Absent: 10 and 5, or 3 and 1 on the coordinator's own machine.
    std::optional<std::uint32_t> silence_s, reconnect_s;
    friend bool operator==(const Recovery&, const Recovery&) = default;
  } recovery;

  // Machines and links on paper, to be planned for (scheduler/planner/plan_fleet.h). Without machines there is no
  // fleet.
  struct Machine {
    std::string name;
    std::uint32_t count = 1;  // above 1: machines name.0, name.1, …
    double memory_gb = 0;     // 10^9 bytes
    // Measured speed in this program's arithmetic, in 10^9 operations per second; 0: the times below instead.
    double gflops = 0;
    // Per microbatch and layer.
    double forward_ms = 0;
    double input_gradient_ms = 0;
    double weight_gradient_ms = 0;
    // F, I and W of a microbatch in the embedding and in the head; 0: by their operations, at a layer's speed.
    double embedding_ms = 0;
    double head_ms = 0;
    double uplink_mbps = 0;    // absent: link.bandwidth_mbps; resolved by the loader
    double downlink_mbps = 0;  // likewise
    std::string region;        // absent: the name; resolved by the loader
    friend bool operator==(const Machine&, const Machine&) = default;
  };

  struct FleetLink {
    std::vector<std::string> between;  // two names of machines, [[fleet.machine]] tables or regions
    double mbps = 0;                   // of each pair of machines
    double latency_ms = 0;             // one way
    friend bool operator==(const FleetLink&, const FleetLink&) = default;
  };

  struct Fleet {
    std::vector<Machine> machine;
    std::vector<FleetLink> link;
    friend bool operator==(const Fleet&, const Fleet&) = default;
  } fleet;

  friend bool operator==(const RunSpec&, const RunSpec&) = default;
};

}  // namespace isthmus::spec
