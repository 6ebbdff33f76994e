#pragma once

#include <cstdint>
#include <set>
#include <vector>

#include "protocol/message.h"
#include "router/hop_choice.h"
#include "router/step_record.h"
#include "router/worker_context.h"

namespace isthmus::router {

// Brings every microbatch to one replica of the next stage: chooses it, searches for an earlier holder, asks until
// there is an answer, takes back what a slow one has not begun (docs/protocol.md, "Steps"). It owns the records' hops.
class Downstream {
 public:
  Downstream(WorkerContext& context, StepRecords& records);

  // The records are about to be dropped.
  void settle_all();
  // New or lost replicas of the next stage.
  void view_changed(bool epoch_changed, Time now);
  // The output is there.
  void forward(MicrobatchId m, StepRecord& record, Time now);
  // A gradient came back. False: from nobody who could have one.
  bool returned(StepRecord& record, SessionId from);

  void received(const protocol::Held& message, Time now);
  void received(const protocol::Free& message, Time now);
  void received(const protocol::Cancelled& message, Time now);
  void received(const protocol::Busy& message, Time now);
  void received(const protocol::TooLate& message, Time now);
  void received(const protocol::Receipt& message, Time now);

  void peer_connected(PeerId peer, Time now);
  void peer_lost(PeerId peer) { cut_.insert(peer); }
  void peer_heard(PeerId peer) { cut_.erase(peer); }
  void tick(Time now);
  Time next_due() const;

 private:
  void replace_lost_successors(Time now);
  void probe(Time now);
  void probe(SessionId session, Time now);
  void send(MicrobatchId m, StepRecord& record, Time now, SessionId avoid = kNoSession);
  void send_again(MicrobatchId m, StepRecord& record, Time now);
  void search(MicrobatchId m, StepRecord& record, Time now);
  void send_if_nobody_holds(MicrobatchId m, StepRecord& record, Time now);
  void ask(MicrobatchId m, StepRecord& record, Time now);
  bool wants_answer(MicrobatchId m, const StepRecord& record) const;
  void settle(StepRecord& record);
  void choose_another(MicrobatchId m, StepRecord& record, SessionId refuser, Time now);
  void cancel_if_slow(MicrobatchId m, StepRecord& record, Time now);
  void take_back(SessionId from, Time now);
  std::vector<SessionId> suspected() const;
  // The record, if the answer is to its latest choice.
  StepRecord* answered(MicrobatchId m, std::uint32_t n);

  WorkerContext& context_;
  StepRecords& records_;
  HopChoice hops_;
  std::set<SessionId> unprobed_;  // newcomers whose connection is not up yet
  std::set<PeerId> cut_;          // peers whose connection is down
};

}  // namespace isthmus::router
