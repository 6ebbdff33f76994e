#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

#include "base/ids.h"
#include "base/time.h"
#include "protocol/plan.h"
#include "protocol/view.h"
#include "scheduler/coordinator/decisions.h"
#include "scheduler/coordinator/liveness.h"
#include "scheduler/coordinator/trust.h"

namespace isthmus::coordinator {

// Who serves which place.
struct Seat {
  PeerId peer;
  StageId stage;
  ReplicaId replica;
  protocol::PublicKey key{};
};

// Whoever asks to take part.
struct Enrolment {
  protocol::PublicKey identity{};  // Ed25519; the caller has checked that whoever asks holds it and `key`
  protocol::PublicKey key{};       // CURVE
  std::string name;                // for people: at most 64 bytes of UTF-8, no control characters
  std::optional<StageId> wish;     // the stage it would rather serve
  // The key that let it in at the door; nothing: its host vouches for it.
  std::optional<protocol::PublicKey> invite{};
  bool again = false;         // as who it was before: never as somebody new, nor as one that had left and is back
  std::uint64_t asked_s = 0;  // now, in seconds since 1970, by which invites expire
  std::uint64_t life = 0;     // which process of this identity asks: random
};

// Why nobody new may enrol with the invite, for people; empty: somebody may. `now_s`: seconds since 1970.
std::string flaw_of(const Invite& invite, std::uint64_t now_s);

// Where a peer stands among those that wait.
struct Queued {
  std::size_t place = 0;   // from 1
  std::size_t length = 0;  // of the queue
  std::string reason;      // why it waits, for people
  friend bool operator==(const Queued&, const Queued&) = default;
};

// The lowest number of a replica that is free at the stage.
ReplicaId free_replica(const Decisions& decisions, StageId stage);

// Who may take part, who has a seat, and who gets the next one. What is decided is in the log; beside it this knows who
// asks for a seat, and whose process is gone for good. Pure: the coordinator appends the records that it asks for.
//
// There are as many seats as the plan has replicas, and one more for a stage that nobody has a seat at. Whoever waits
// longest and is there comes first. It goes to the stage that its invite names, if that lacks somebody; otherwise to
// one that nobody has a seat at, otherwise to the one that lacks most. Stages that it may not serve
// (scheduler/coordinator/trust.h) are none for it, and whoever waits behind it comes first there.
class Seating {
 public:
  struct Options {
    // Who was heard of so lately is expected back, and who asked so lately takes a seat.
    Duration expected_back = seconds(20);
    std::uint32_t peers_max = 65'536;  // identities, in the whole run
  };
  Seating(const protocol::Plan& plan, Options options, const Trust& trust = {});

  // Takes the seats that the log gives, after a record that gave or took one.
  void follow(const Decisions& decisions);
  const std::vector<Seat>& seats() const { return seats_; }  // by peer
  const Seat* find(PeerId peer) const;
  // Of a seat of seats(), in it.
  std::size_t index(const Seat& seat) const { return static_cast<std::size_t>(&seat - seats_.data()); }

  // Why somebody may not take part, for people, theirs too.
  struct Refusal {
    std::string reason;
  };
  // Refused; the peer that it is already; or the record that makes it one.
  using Answer = std::variant<Refusal, PeerId, EnrolRecord>;
  Answer answer(const Decisions& decisions, const Enrolment& enrolment) const;
  // Whoever waits and is not connected has to ask again and again: nobody else is seated.
  void asked(PeerId peer, std::uint64_t life, Time now) { asked_[peer] = {life, now}; }
  // Another process takes part as this peer, or asked a moment ago: a home folder was copied. Two that took turns would
  // drive each other out for ever, so the first one stays.
  bool is_taken(PeerId peer, const Enrolment& enrolment, const Liveness& liveness) const;
  // Its process will not be started again, for this reason. Whether that is news.
  bool gone(PeerId peer, std::string why) { return gone_.emplace(peer, std::move(why)).second; }
  // Why the peer is gone; null: it is not.
  const std::string* why_gone(PeerId peer) const;
  void forget(PeerId peer);
  // It says good-bye: its seat is as good as free, and it gets none, until it is back.
  void leaves(PeerId peer) { leaving_.insert(peer); }
  void is_back(PeerId peer) { leaving_.erase(peer); }
  bool is_leaving(PeerId peer) const { return leaving_.contains(peer); }

  // The next seat that is given; nothing: none is free, or nobody is there to take it.
  std::optional<SeatRecord> next(const Decisions& decisions, const Liveness& liveness) const;
  // Seats whose holders stayed away, as many as others would take. `is_there`: members and candidates.
  std::vector<UnseatRecord> given_up(const Decisions& decisions, const Liveness& liveness,
                                     const std::function<bool(const Seat&)>& is_there) const;
  // Nothing: it does not wait. Those that are not there are not counted.
  std::optional<Queued> queued(const Decisions& decisions, const Liveness& liveness, PeerId peer) const;

 private:
  bool would_take(PeerId peer, const Liveness& liveness) const;
  std::optional<StageId> stage_for(const Decisions& decisions, PeerId peer) const;
  std::string why_not(const Decisions& decisions, PeerId peer) const;

  std::vector<std::uint32_t> wished_;  // replicas, by stage
  Options options_;
  Trust trust_;
  std::vector<Seat> seats_;
  std::unordered_map<PeerId, std::size_t> index_;
  struct Asked {
    std::uint64_t life = 0;
    Time at{};
  };
  std::map<PeerId, Asked> asked_;       // who asked last as this peer, and when
  std::map<PeerId, std::string> gone_;  // will not be started again, and why
  std::set<PeerId> leaving_;            // said good-bye, and are not back yet
};

}  // namespace isthmus::coordinator
