#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/done_set.h"
#include "protocol/measurements.h"
#include "protocol/view.h"

namespace isthmus::protocol {

// Loss of one microbatch, summed over its tokens, in nats. Only the tail stage knows it.
struct MicrobatchLoss {
  MicrobatchId microbatch;
  double sum = 0;
  std::uint32_t tokens = 0;
  friend bool operator==(const MicrobatchLoss&, const MicrobatchLoss&) = default;
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit("microbatch", self.microbatch);
    visit("sum", self.sum);
    visit("tokens", self.tokens);
  }
};

// A separately hashed piece of the model: "embedding", "layer.0" …, "head".
struct UnitNorm {
  std::string unit;
  double norm2 = 0;  // squared norm of the summed gradient
  friend bool operator==(const UnitNorm&, const UnitNorm&) = default;
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit("unit", self.unit, Most::kDigest);
    visit("norm2", self.norm2);
  }
};
struct UnitDigest {
  std::string unit;
  std::string hex;
  friend bool operator==(const UnitDigest&, const UnitDigest&) = default;
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit("unit", self.unit, Most::kDigest);
    visit("hex", self.hex, Most::kDigest);
  }
};

// What a replica finds wrong with what a sibling told it at a sync.
struct Offence {
  SessionId session;
  std::uint64_t version = 0;  // of the weights that were told of
  std::string what;           // for people
  friend bool operator==(const Offence&, const Offence&) = default;
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit("session", self.session);
    visit("version", self.version);
    visit("what", self.what, Most::kNote);
  }
};

// Counters since the worker started. Bytes are frame bytes handed to the socket, headers included.
struct WorkerStats {
  std::uint64_t forward_ns = 0;
  std::uint64_t input_gradient_ns = 0;
  std::uint64_t weight_gradient_ns = 0;
  std::uint64_t optimizer_ns = 0;
  std::uint64_t boundary_bytes_sent = 0;      // Fwd and Bwd
  std::uint64_t boundary_bytes_received = 0;  // likewise
  std::uint64_t sync_bytes_sent = 0;          // what the replicas of a stage tell each other to agree
  std::uint64_t state_bytes_sent = 0;         // Chunk: weights and journals for those that join
  std::uint64_t control_bytes_sent = 0;       // everything else
  std::uint64_t control_bytes_received = 0;
  std::uint64_t rejected_frames = 0;  // damaged, or refused by the fences
  std::uint64_t service_us = 0;       // F + I + W of one microbatch, moving average; 0: none done yet
  std::uint32_t queued = 0;           // microbatches waiting for compute now
  std::string waiting_for;            // why the device is idle now; empty when it is busy
  friend bool operator==(const WorkerStats&, const WorkerStats&) = default;
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit("forward_ns", self.forward_ns);
    visit("input_gradient_ns", self.input_gradient_ns);
    visit("weight_gradient_ns", self.weight_gradient_ns);
    visit("optimizer_ns", self.optimizer_ns);
    visit("boundary_bytes_sent", self.boundary_bytes_sent);
    visit("boundary_bytes_received", self.boundary_bytes_received);
    visit("control_bytes_sent", self.control_bytes_sent);
    visit("control_bytes_received", self.control_bytes_received);
    visit("rejected_frames", self.rejected_frames);
    visit("sync_bytes_sent", self.sync_bytes_sent);
    visit("state_bytes_sent", self.state_bytes_sent);
    visit("service_us", self.service_us);
    visit("queued", self.queued);
    visit("waiting_for", self.waiting_for, Most::kNote);
  }
};

// Of a worker that was asked to leave: how far it is with what it has begun.
enum class Leaving : std::uint8_t {
  kNo,
  kFinishing,    // its part of the step counts once that commits
  kEmptyHanded,  // it holds nothing of the step: the others lose nothing by it
  kAtOnce,       // its last report: it goes, whatever it holds
};

// Reported while the weights are of no version that could be admitted.
inline constexpr std::uint64_t kNoVersion = UINT64_MAX;

// A worker's whole state as the coordinator needs it: idempotent, sent on change and as a heartbeat.
struct Report {
  SessionId session;
  StageId stage;
  ReplicaId replica;
  Endpoints endpoints;
  std::uint64_t version = 0;  // steps applied, or kNoVersion
  StepId step;
  std::uint32_t attempt = 0;
  EpochId epoch;           // of its view: it knows the members around its stage as of then; 0: it has none
  DoneSet done;            // of (step, attempt)
  EpochId prepared_epoch;  // 0: none
  std::vector<UnitNorm> norms;
  bool finite = true;
  std::string sum_digest;              // of the combined gradient; compared inside a stage
  std::vector<MicrobatchLoss> losses;  // tail only: of the microbatches in `done`
  std::uint64_t checkpointed = 0;      // newest version durable on this worker's disk
  std::vector<UnitDigest> weights;     // once the phase is kFinished
  bool left = false;                   // last report: everything asked for is done, the worker leaves
  std::string fault;                   // an error this worker cannot go on with (bad data); empty: none
  std::string warning;                 // an error it goes on with (disk full: no checkpoint); empty: none
  std::string fetching;  // how far a joiner is with its siblings' snapshot, told anew when another one gives; empty: it
                         // fetches none
  // A joining worker of an empty stage cannot be rebuilt from checkpoint and journals; why.
  std::string unrecoverable;
  std::uint32_t timeline = 0;          // that its weights belong to: rollbacks before them
  std::vector<SessionId> unreachable;  // members whose connection stays down
  WorkerStats stats;
  DeviceFigures device;
  LinkFigures link;               // of the newest order it has carried out
  std::vector<Offence> offences;  // of the last sync
  // A head that got slow: microbatches that it has not begun, and will not before they are dealt again. Empty: none.
  DoneSet returned;
  Leaving leaving = Leaving::kNo;  // anything else: it is to have no new work, nor its seat
  friend bool operator==(const Report&, const Report&) = default;
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit("session", self.session);
    visit("stage", self.stage);
    visit("replica", self.replica);
    visit.flat(self.endpoints);
    visit("version", self.version);
    visit("step", self.step);
    visit("attempt", self.attempt);
    visit("epoch", self.epoch);
    visit("done", self.done);
    visit("prepared_epoch", self.prepared_epoch);
    visit("norms", self.norms, Most::kUnits);
    visit("finite", self.finite);
    visit("sum_digest", self.sum_digest, Most::kDigest);
    visit("losses", self.losses, Most::kMicrobatches);
    visit("checkpointed", self.checkpointed);
    visit("weights", self.weights, Most::kUnits);
    visit("left", self.left);
    visit("fault", self.fault, Most::kText);
    visit("warning", self.warning, Most::kText);
    visit("fetching", self.fetching, Most::kText);
    visit("unrecoverable", self.unrecoverable, Most::kText);
    visit("timeline", self.timeline);
    visit("unreachable", self.unreachable, Most::kMembers);
    visit("stats", self.stats);
    visit("device", self.device);
    visit("link", self.link);
    visit("offences", self.offences, Most::kMembers);
    visit("returned", self.returned);
    visit("leaving", self.leaving, Leaving::kAtOnce);
  }
};

}  // namespace isthmus::protocol
