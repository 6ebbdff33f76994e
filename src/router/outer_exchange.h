#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "protocol/report.h"
#include "router/piece_requests.h"
#include "router/worker_context.h"

namespace isthmus::router {

// How the replicas of a stage that take steps of their own agree at a sync (sync.mode diloco, sparseloco, slices;
// docs/protocol.md, "Syncs"). Each tells the others how its weights of the version before moved; what is made of it is
// applied with the step's commit. All of it travels during the step, behind activations, and is pulled piece by piece,
// so nothing is sent twice after a connection broke, and nobody is sent more than it can take.
//
// A slice of the update is made by two replicas, its owners; the others take it from one of them and compare it with
// what the other says (IOTA's butterfly, arXiv 2507.17766). If they disagree everybody makes it for himself, and the
// liar is named. Without owners (sparse updates, two replicas) everybody makes every slice.
//
// One object per worker; pure. Updates are of a version and a session, not of an epoch: a change of the membership
// changes what is added up, not what was told.
class OuterExchange {
 public:
  explicit OuterExchange(WorkerContext& context) : context_(context) {}

  // Other weights now, or what was agreed on is in them. Who asked for what comes next is remembered.
  void forget();
  // Begins, or goes on. REQUIRES: live; the view's step syncs; `version` is the one before it.
  void pursue(std::uint64_t version, Time now);
  void updated(protocol::UpdateDone done, Time now);
  void agreed(protocol::AgreeDone done, Time now);

  // A sibling asks. What is not there yet is answered when it is. False: not for this one.
  bool received(const protocol::Fetch& fetch, PeerId from, std::uint64_t version, Time now);
  bool received(const protocol::Chunk& chunk, PeerId from, Time now);
  void forget_asked(PeerId peer);

  // Every slice is agreed on by the members of today.
  bool complete() const;
  // Whom it waits for, for people.
  std::string waiting_for() const;
  // Siblings that have sent nothing for long although nothing else is missing.
  std::vector<SessionId> stalled(Time now) const;
  // What makes the next version, for those that join: every update as it was told, or every slice as it was agreed on.
  std::vector<SharedBytes> outcome() const;
  const std::vector<protocol::Offence>& offences() const { return offences_; }
  Time next_due() const;

 private:
  // Bytes that come in pieces of kPieceBytes.
  struct Arriving {
    std::map<std::uint32_t, SharedBytes> pieces;
    SharedBytes whole;
  };
  struct Sibling {
    explicit Sibling(WorkerContext& context) : requests(context) {}
    PieceRequests requests;                     // of what only it has: its update, its verdicts
    std::map<std::uint32_t, Arriving> updates;  // by slice
    std::map<std::uint32_t, std::string> verdicts;
    Time heard{};
  };
  struct Slice {
    explicit Slice(WorkerContext& context) : requests(context) {}
    std::vector<SessionId> members;  // whose updates are meant
    PieceRequests requests;          // of what its owners made of them
    Arriving agreement;              // of another
    std::uint64_t number = 0;        // of the newest agreement that was asked of the device; 0: none
    bool asked = false;              // the device is at it
    bool disputed = false;           // the owners disagree: make it here
    bool settled = false;            // the device has it
    SharedBytes made;                // as the device wrote or took it
    std::string digest;
  };

  const std::vector<std::uint64_t>& update_bytes(std::uint64_t version) const {
    return context_.plan.update_bytes(context_.identity.stage, version);
  }
  std::uint64_t slice_bytes(std::uint32_t slice) const { return update_bytes(version_)[slice]; }
  bool has_owners(std::uint32_t slice) const {
    return !context_.plan.sparse_sync(version_) && slices_[slice].members.size() > 2;
  }
  std::uint64_t agreement_bytes(std::uint32_t slice) const;
  std::vector<SessionId> members() const;
  std::vector<SessionId> owners(std::uint32_t slice) const;
  bool owns(std::uint32_t slice, SessionId session) const;
  void begin(std::uint64_t version);
  void adopt_members(std::uint32_t slice);
  void want(std::uint32_t slice);
  void settle(std::uint32_t slice);
  void compare(std::uint32_t slice);
  void ask(Time now);
  void serve();
  bool answer(const protocol::Fetch& fetch, const protocol::Member& asker);
  Sibling& sibling(SessionId session);
  SharedBytes update_of(SessionId session, std::uint32_t slice) const;
  void accuse(SessionId session, std::string what);

  WorkerContext& context_;
  std::uint64_t version_ = 0;     // whose updates are exchanged; 0: none yet
  std::vector<SharedBytes> own_;  // by slice; empty: being made
  std::map<SessionId, Sibling> siblings_;
  std::vector<Slice> slices_;
  std::vector<protocol::Offence> offences_;
  std::map<std::pair<SessionId, protocol::Piece>, protocol::Fetch> waiting_;  // asked before it was there
  std::uint64_t agreements_ = 0;
};

}  // namespace isthmus::router
