#pragma once

#include "spec/run_config.h"

namespace isthmus::config {

// Calls visit(section, key, member) for every scalar of a run, in the order of the file: the one
// list that loading, writing and comparing share. [[pipeline.stage]] and the fleet are not scalars and
// are treated apart. First what all must agree on, then what is the machine's own.
template <class Spec, class Visit>
void for_each_spec_field(Spec& r, Visit&& visit) {
  visit("run", "name", r.run.name);
  visit("run", "seed", r.run.seed);
  visit("run", "steps", r.run.steps);
  visit("run", "deterministic", r.run.deterministic);
  visit("model", "layers", r.model.layers);
  visit("model", "hidden", r.model.hidden);
  visit("model", "heads", r.model.heads);
  visit("model", "context", r.model.context);
  visit("model", "vocabulary", r.model.vocabulary);
  visit("model", "mlp", r.model.mlp);
  visit("model", "token_path", r.model.token_path);
  visit("model", "token_window", r.model.token_window);
  visit("model", "token_width", r.model.token_width);
  visit("data", "train_digest", r.data.train.digest);
  visit("data", "train_bytes", r.data.train.bytes);
  visit("data", "validation_digest", r.data.validation.digest);
  visit("data", "validation_bytes", r.data.validation.bytes);
  visit("train", "sequences_per_microbatch", r.train.sequences_per_microbatch);
  visit("train", "microbatches_per_step", r.train.microbatches_per_step);
  visit("train", "optimizer", r.train.optimizer);
  visit("train", "learning_rate", r.train.learning_rate);
  visit("train", "writer_learning_rate", r.train.writer_learning_rate);
  visit("train", "momentum", r.train.momentum);
  visit("train", "warmup_steps", r.train.warmup_steps);
  visit("train", "schedule_steps", r.train.schedule_steps);
  visit("train", "final_learning_rate", r.train.final_learning_rate);
  visit("train", "beta1", r.train.beta1);
  visit("train", "beta2", r.train.beta2);
  visit("train", "epsilon", r.train.epsilon);
  visit("train", "weight_decay", r.train.weight_decay);
  visit("train", "clip", r.train.clip);
  visit("train", "spike_sigma", r.train.spike_sigma);
  visit("train", "spike_window", r.train.spike_window);
  visit("train", "precision", r.train.precision);
  visit("train", "evaluate_every", r.train.evaluate_every);
  visit("train", "evaluation_microbatches", r.train.evaluation_microbatches);
  visit("boundary", "codec", r.boundary.codec);
  visit("boundary", "rank", r.boundary.rank);
  visit("boundary", "values", r.boundary.values);
  visit("boundary", "gradient_values", r.boundary.gradient_values);
  visit("boundary", "error_feedback", r.boundary.error_feedback);
  visit("boundary", "factored_layers", r.boundary.factored_layers);
  visit("link", "bandwidth_mbps", r.link.bandwidth_mbps);
  visit("link", "latency_ms", r.link.latency_ms);
  visit("link", "jitter_ms", r.link.jitter_ms);
  visit("link", "loss", r.link.loss);
  visit("link", "emulate", r.link.emulate);
  visit("link", "measure_s", r.link.measure_s);
  visit("pipeline", "layout", r.pipeline.layout);
  visit("pipeline", "stages", r.pipeline.stages);
  visit("pipeline", "replicas", r.pipeline.replicas);
  visit("pipeline", "schedule", r.pipeline.schedule);
  visit("pipeline", "routing", r.pipeline.routing);
  visit("pipeline", "skip_share", r.pipeline.skip_share);
  visit("pipeline", "credits", r.pipeline.credits);
  visit("sync", "mode", r.sync.mode);
  visit("sync", "every", r.sync.every);
  visit("sync", "share", r.sync.share);
  visit("sync", "learning_rate", r.sync.learning_rate);
  visit("sync", "momentum", r.sync.momentum);
  visit("sync", "error_feedback", r.sync.error_feedback);
  visit("sync", "residual", r.sync.residual);
  visit("sync", "rule", r.sync.rule);
  visit("sync", "warmup", r.sync.warmup);
  visit("rehearsal", "liar", r.rehearsal.liar);
  visit("rehearsal", "lie", r.rehearsal.lie);
  visit("emulated", "forward_ms", r.emulated.forward_ms);
  visit("emulated", "input_gradient_ms", r.emulated.input_gradient_ms);
  visit("emulated", "weight_gradient_ms", r.emulated.weight_gradient_ms);
  visit("emulated", "forward_bytes", r.emulated.forward_bytes);
  visit("emulated", "backward_bytes", r.emulated.backward_bytes);
  visit("emulated", "state_bytes", r.emulated.state_bytes);
  visit("emulated", "parameters", r.emulated.parameters);
  visit("emulated", "slow_peer", r.emulated.slow_peer);
  visit("emulated", "slow_factor", r.emulated.slow_factor);
  visit("emulated", "slow_step", r.emulated.slow_step);
  visit("emulated", "slow_after", r.emulated.slow_after);
  visit("checkpoint", "every", r.checkpoint.every);
  visit("checkpoint", "keep", r.checkpoint.keep);
  visit("trust", "ends", r.trust.ends);
  visit("trust", "stages_per_identity", r.trust.stages_per_identity);
  visit("recovery", "skip_after_s", r.recovery.skip_after_s);
  visit("recovery", "skip_steps", r.recovery.skip_steps);
  visit("recovery", "rebalance", r.recovery.rebalance);
  visit("recovery", "rollback_after", r.recovery.rollback_after);
  visit("recovery", "silence_s", r.recovery.silence_s);
  visit("recovery", "reconnect_s", r.recovery.reconnect_s);
}
template <class Host, class Visit>
void for_each_host_field(Host& h, Visit&& visit) {
  visit("data", "train", h.data.train);
  visit("data", "validation", h.data.validation);
  visit("link", "uplink_mbps", h.uplink_mbps);
  visit("link", "downlink_mbps", h.downlink_mbps);
  visit("pipeline", "device", h.device);
  visit("pipeline", "threads", h.threads);
  visit("pipeline", "activation_mb", h.activation_mb);
  visit("pipeline", "recompute", h.recompute);
  visit("recovery", "journal_mb", h.journal_mb);
  visit("recovery", "replace", h.replace);
}
template <class Run, class Visit>
void for_each_field(Run& r, Visit&& visit) {
  for_each_spec_field(r, visit);
  for_each_host_field(r.host, visit);
}

// The same for the scalars of a [[fleet.machine]] and of a [[fleet.link]]: visit(key, member).
template <class Machine, class Visit>
void for_each_machine_field(Machine& m, Visit&& visit) {
  visit("name", m.name);
  visit("count", m.count);
  visit("memory_gb", m.memory_gb);
  visit("gflops", m.gflops);
  visit("forward_ms", m.forward_ms);
  visit("input_gradient_ms", m.input_gradient_ms);
  visit("weight_gradient_ms", m.weight_gradient_ms);
  visit("embedding_ms", m.embedding_ms);
  visit("head_ms", m.head_ms);
  visit("uplink_mbps", m.uplink_mbps);
  visit("downlink_mbps", m.downlink_mbps);
  visit("region", m.region);
}
template <class Link, class Visit>
void for_each_link_field(Link& l, Visit&& visit) {
  visit("mbps", l.mbps);
  visit("latency_ms", l.latency_ms);
}

}  // namespace isthmus::config
