#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "base/ids.h"
#include "compress/encoded_tensor.h"
#include "scheduler/stage_schedule.h"
#include "scheduler/view.h"
#include "wire/message.h"

namespace isthmus {

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
  EncodedTensor tensor;  // F: the input, I: the gradient that came back; empty where there is none
};
struct RunPrepare {
  JobTag tag;
  EpochId epoch;
};
struct RunApply {
  Commit commit;
};
struct RunDropStep {};
struct RunSave {
  std::uint64_t version;
};
struct RunDigests {};
// The members of the newest view: whom to connect to and whom to let in.
struct KnowMembers {
  std::vector<Member> members;
};
// Nothing more to do; the process may end once what was sent is out.
struct Leave {
  std::string reason;  // empty: the run is finished
};
using WorkerEffect = std::variant<SendMessage, RunOperation, RunPrepare, RunApply, RunDropStep,
                                  RunSave, RunDigests, KnowMembers, Leave>;

// Results of jobs.
struct OperationDone {
  JobTag tag;
  Task task;
  EncodedTensor tensor;  // F: the output, I: the gradient of the input; empty where there is none
  std::vector<MicrobatchLoss> loss;  // tail, F: one
  std::string error;     // not empty: the operation failed and the worker cannot go on
};
struct PrepareDone {
  JobTag tag;
  EpochId epoch;
  std::vector<UnitNorm> norms;
  bool finite = true;
  std::string sum_digest;
};
struct SaveDone {
  std::uint64_t version = 0;
  std::string error;
};
struct DigestsDone {
  std::vector<UnitDigest> weights;
};
using JobResult = std::variant<OperationDone, PrepareDone, SaveDone, DigestsDone>;

}  // namespace isthmus
