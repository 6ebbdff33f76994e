#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/done_set.h"
#include "base/ids.h"
#include "protocol/endpoints.h"
#include "protocol/measurements.h"

namespace isthmus::protocol {

// Where a worker serves.
struct Place {
  StageId stage;
  ReplicaId replica;
  friend bool operator==(const Place&, const Place&) = default;
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit("stage", self.stage);
    visit("replica", self.replica);
  }
};

// One life of one worker, in its place.
struct Member {
  PeerId peer;
  SessionId session;
  StageId stage;
  ReplicaId replica;
  PublicKey key{};
  Endpoints endpoints;  // on its own network
  Location location{};
  friend bool operator==(const Member&, const Member&) = default;
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit("peer", self.peer);
    visit("session", self.session);
    visit("stage", self.stage);
    visit("replica", self.replica);
    visit("key", self.key);
    visit.flat(self.endpoints);
    visit.flat(self.location);
  }
};

// The one decision that ends a step: every member multiplies its summed gradient by `scale` and runs the optimizer,
// or (apply = false) leaves the weights alone. Either way its version becomes `step`.
struct Commit {
  StepId step;
  std::uint32_t attempt = 0;
  EpochId epoch;  // the epoch whose combination is meant; sums prepared in another epoch are void
  double scale = 1;
  bool apply = true;
  // Stages that nobody served, so that the step went without them (protocol/step_paths.h).
  std::vector<StageId> absent;
  friend bool operator==(const Commit&, const Commit&) = default;
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit("step", self.step);
    visit("attempt", self.attempt);
    visit("epoch", self.epoch);
    visit("scale", self.scale);
    visit("apply", self.apply);
    visit("without", self.absent, Most::kStages);
  }
};

// Parameters first … end-1 of a stage's gradient: what one of its replicas sums up for all.
struct Slice {
  std::uint64_t first = 0;
  std::uint64_t end = 0;
  std::uint64_t size() const { return end - first; }
};
inline Slice slice_of(std::uint64_t parameters, std::size_t index, std::size_t replicas) {
  return {parameters * index / replicas, parameters * (index + 1) / replicas};
}

enum class Phase : std::uint8_t {
  kRunning,
  // Stop now: drop the step, keep the weights of the last commit, write a checkpoint, report it, leave.
  kStopping,
  // Every step is committed: write the last checkpoint, report weight digests, leave.
  kFinished,
  // The coordinator has written down how the run ended and will not answer any more: leave at once.
  kEnded,
};

// What the coordinator tells a worker after each decision and once a second: the run, and of its members those of the
// stages within reach of the receiver's (Plan::reach). Idempotent, ordered by epoch; docs/protocol.md (State).
struct View {
  EpochId epoch;
  StepId step;  // being computed; 0 before the first decision
  std::uint32_t attempt = 0;
  // The members that this view leaves out are those the receiver knows from its view of this epoch or a later one, but
  // for `gone`; 0: it leaves out nobody. Members whose address changed are never left out.
  EpochId since;
  std::vector<Member> live;
  std::vector<SessionId> gone;
  std::vector<SessionId> head_owner;  // to the first stage, per microbatch of the step; kNoSession: not the receiver
  std::vector<bool> head_again;       // per microbatch: an earlier owner may have sent it on
  EpochId dealt_again;  // to the first stage: the decision about what the receiver returned last (Report::returned); 0:
                        // none
  std::vector<StageId> absent;  // stages that this attempt goes without
  std::optional<Commit> last_commit;
  bool preparing = false;
  std::map<SessionId, DoneSet> owners;  // while preparing: what the receiver owns
  SessionId last_session = kNoSession;  // newest session of the receiving peer that was ever admitted
  std::vector<std::uint64_t>
      checkpointed;  // per stage: newest version that is durable on every live replica; 0 out of reach
  // The newest version whose checkpoint all stages have, within reach or not, or that is on its way into the vault; 0:
  // none. It stays on the disks.
  std::uint64_t whole = 0;
  Phase phase = Phase::kRunning;
  std::string reason;  // why the run stops, for people
  // Live members that are silent or cut off: new work goes around them. A hint, not a decision.
  std::vector<SessionId> suspected;
  // Live members that say good-bye: new work goes around them, too.
  std::vector<SessionId> leaving;
  // Workers that are not members yet but may fetch what they need to become one.
  std::vector<Member> joining;
  // Every time the run went back to an older version: to which. Their number names a timeline.
  std::vector<std::uint64_t> rollbacks;
  // Only to a joining worker whose stage has no live member: the commits that its weights miss, oldest first.
  std::vector<Commit> replay;
  // … and the version of its stage that it can get from the vault; 0: none.
  std::uint64_t vaulted = 0;
  // Where the receiving peer serves, if it was moved or reports from another place: it has to begin again there.
  std::optional<Place> moved;
  LinkOrder measure;             // only to the receiver: a link it is to measure
  std::vector<Member> partners;  // with whom the receiver measures a link, or who measures one with it
  bool released = false;         // the receiver said good-bye and has no seat any more: nobody waits for anything of it
  friend bool operator==(const View&, const View&) = default;
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit("epoch", self.epoch);
    visit("step", self.step);
    visit("attempt", self.attempt);
    visit("since", self.since);
    visit("live", self.live, Most::kMembers);
    visit("gone", self.gone, Most::kMembers);
    visit("head_owner", self.head_owner, Most::kMicrobatches);
    visit("head_again", self.head_again, Most::kMicrobatches);
    visit("without", self.absent, Most::kStages);
    visit("last_commit", self.last_commit);
    visit("preparing", self.preparing);
    visit("owners", self.owners, Most::kMembers);
    visit("last_session", self.last_session);
    visit("checkpointed", self.checkpointed, Most::kStages);
    visit("whole", self.whole);
    visit("phase", self.phase, Phase::kEnded);
    visit("reason", self.reason, Most::kText);
    visit("suspected", self.suspected, Most::kMembers);
    visit("joining", self.joining, Most::kMembers);
    visit("rollbacks", self.rollbacks, Most::kCommits);
    visit("replay", self.replay, Most::kCommits);
    visit("moved", self.moved);
    visit.flat(self.measure);
    visit("partners", self.partners, Most::kMembers);
    visit("dealt_again", self.dealt_again);
    visit("leaving", self.leaving, Most::kMembers);
    visit("released", self.released);
    visit("vaulted", self.vaulted);
  }

  const Member* find(SessionId session) const {
    for (const auto& m : live)
      if (m.session == session) return &m;
    return nullptr;
  }
  std::uint32_t timeline() const { return static_cast<std::uint32_t>(rollbacks.size()); }
  const Member* find_joining(SessionId session) const {
    for (const auto& m : joining)
      if (m.session == session) return &m;
    return nullptr;
  }
  // Live members of a stage, by replica: the order in which slices of its gradient are dealt.
  std::vector<const Member*> replicas_of(StageId stage) const {
    std::vector<const Member*> members;
    for (const auto& m : live)
      if (m.stage == stage) members.push_back(&m);
    return members;
  }
  bool suspects(SessionId session) const {
    for (const auto s : suspected)
      if (s == session) return true;
    return false;
  }
};

}  // namespace isthmus::protocol
