#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "base/bytes.h"
#include "base/ids.h"
#include "base/time.h"
#include "compress/encoded_tensor.h"
#include "protocol/message.h"
#include "protocol/stage_schedule.h"
#include "protocol/view.h"

namespace isthmus::protocol {

// Which life of which step a compute job belongs to. A result with another tag is thrown away.
struct JobTag {
  StepId step;
  std::uint32_t attempt = 0;
  SessionId session;
  friend bool operator==(const JobTag&, const JobTag&) = default;
};

// What the state machine of a worker asks its process to do, in this order. Jobs go to the compute thread through a
// first-in-first-out queue.
struct SendMessage {
  PeerId peer;
  Message message;
};
struct RunOperation {
  JobTag tag;
  Task task;
  bool training = true;
  compress::EncodedTensor tensor;  // F: the input, I: the gradient that came back; empty where there is none
};
// Gives out the worker's own gradient sum. Everything it sent in this step is in the journal on disk by then.
struct RunClose {
  JobTag tag;
  EpochId epoch;
};
// Adds up one slice, in this order.
struct RunAdd {
  JobTag tag;
  EpochId epoch;
  std::vector<SharedBytes> parts;
};
// Makes this the gradient that the next apply uses: the stage's sum, slice by slice, or (none) the worker's own.
struct RunPrepare {
  JobTag tag;
  EpochId epoch;
  std::vector<SharedBytes> totals;
  bool finite = true;       // of the totals
  bool keep_total = false;  // the sum is wanted in the result
  bool sync = false;        // what the replicas agreed on, of every slice, is applied with it
};
struct RunApply {
  Commit commit;
  bool sync = false;  // also moves the weights to where the replicas agreed
};
// How the weights of `version` moved since the last sync, slice by slice, for the siblings.
struct RunUpdate {
  std::uint64_t version;
};
// Makes one update of the slice's, in this order.
struct RunAgree {
  std::uint64_t version;
  std::uint32_t slice = 0;
  std::uint64_t number = 0;  // of this agreement; the result names it
  std::vector<SharedBytes> updates;
};
// Takes the slice's common update as its owner made it.
struct RunTake {
  std::uint64_t version;
  std::uint32_t slice = 0;
  std::uint64_t number = 0;
  SharedBytes agreement;
};
struct RunDropStep {};
// Copies weights and optimizer, and writes the copy while the jobs behind this one go on; they wait only if they are a
// RunSave or a RunLoad. Older checkpoints make room, but for version `whole`, which every stage has or the vault takes.
struct RunSave {
  std::uint64_t version;
  std::uint32_t timeline = 0;
  std::uint64_t whole = 0;
};
struct RunDigests {};
// Weights and optimizer of another version: from a checkpoint on this disk, or, if it is not there or damaged, from the
// run's vault, or from the newest older one, or the initial ones (version 0; the result says which). Newer checkpoints
// of an earlier timeline are removed.
struct RunLoad {
  std::uint64_t version;
  std::uint32_t timeline = 0;
};
// … or from siblings, in pieces. Refused if all of it has not this digest.
struct RunRestore {
  std::uint64_t version;
  std::vector<SharedBytes> pieces;
  std::string digest;
};
// Weights and optimizer as bytes, for a sibling that joins.
struct RunSnapshot {
  std::uint64_t version;
};
// Takes a step that the siblings summed: prepare with their total, which came in pieces, then apply.
struct RunFollow {
  Commit commit;
  std::vector<SharedBytes> pieces;
  bool sync = false;  // the total is what they agreed on
};
// Looks a tensor up in the journal for a neighbour that is rebuilt.
struct RunRecall {
  SessionId asker;
  Piece piece;
};
// Journal entries of steps up to this one are not needed any more.
struct RunTrim {
  std::uint64_t version;
};
// This member may connect to the worker.
struct LetIn {
  Member member;
};
// The worker connects to this one in this way, and in no other any more; it was let in before.
struct Dial {
  Member member;
  Way way = Way::kNetwork;
};
// Nothing more to do; the process may end once what was sent is out.
struct Leave {
  std::string reason;  // empty: the run is finished
};
// This life is over: the process begins another one in this place, with nothing of its stage left.
struct BeginAt {
  Place place;
};
using WorkerEffect = std::variant<SendMessage, RunOperation, RunClose, RunAdd, RunPrepare, RunApply, RunDropStep,
                                  RunSave, RunDigests, RunLoad, RunRestore, RunSnapshot, RunFollow, RunRecall, RunTrim,
                                  RunUpdate, RunAgree, RunTake, LetIn, Dial, BeginAt, Leave>;

// Results of jobs.
struct OperationDone {
  JobTag tag;
  Task task;
  compress::EncodedTensor tensor;    // F: the output, I: the gradient of the input; empty where there is none
  std::vector<MicrobatchLoss> loss;  // tail, F: one
  std::string error;                 // not empty: the operation failed and the worker cannot go on
  Duration took{};                   // on the device; zero: from when it was given out, for all one knows
};
struct CloseDone {
  JobTag tag;
  EpochId epoch;
  SharedBytes sum;
  bool finite = true;
};
struct AddDone {
  JobTag tag;
  EpochId epoch;
  SharedBytes total;
};
struct PrepareDone {
  JobTag tag;
  EpochId epoch;
  std::vector<UnitNorm> norms;
  bool finite = true;
  std::string sum_digest;
  SharedBytes total;  // if it was wanted
};
struct UpdateDone {
  std::uint64_t version = 0;
  std::vector<SharedBytes> updates;  // by slice
};
// Of RunAgree and RunTake.
struct AgreeDone {
  std::uint64_t version = 0;
  std::uint32_t slice = 0;
  std::uint64_t number = 0;
  SharedBytes agreement;
  std::string digest;
  std::vector<std::string> offences;  // by update; empty: none
  std::string error;                  // the agreement is none
};
struct SaveDone {
  std::uint64_t version = 0;
  std::uint32_t timeline = 0;
  std::string error;
};
struct DigestsDone {
  std::vector<UnitDigest> weights;
};
// Of RunLoad, RunRestore and a RunFollow of a sync.
struct LoadDone {
  std::uint64_t version = 0;
  std::string error;
};
struct SnapshotDone {
  std::uint64_t version = 0;
  SharedBytes state;
  std::string digest;
};
// Something that the device's thread could not do and that training can go on without.
struct Warned {
  std::string text;
};
struct RecallDone {
  SessionId asker;
  Piece piece;
  bool found = false;
  compress::EncodedTensor tensor;
};
using JobResult = std::variant<OperationDone, CloseDone, AddDone, PrepareDone, SaveDone, DigestsDone, LoadDone,
                               SnapshotDone, RecallDone, UpdateDone, AgreeDone, Warned>;

}  // namespace isthmus::protocol
