#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "router/worker_context.h"

namespace isthmus::router {

// What a worker gives to those that join: a snapshot of its stage and the combined gradients of the steps after it, to
// siblings; its journal, to a neighbour stage that is rebuilt. A snapshot takes what training leaves of the uplink.
// Updates leave as fast as it goes: they decide whether a joiner ever catches up, and are a step's worth.
class StateDonor {
 public:
  explicit StateDonor(WorkerContext& context) : context_(context) {}

  // Other weights now: nothing kept so far fits.
  void forget();
  void received(const protocol::Fetch& fetch, PeerId from, std::uint64_t version, Time now);
  // The worker applied this commit; `totals` is the stage's combined gradient in slices, empty if it is not at hand.
  // Where replicas step on their own: what they agreed on, after syncs only.
  void applied(const protocol::Commit& commit, std::vector<SharedBytes> totals);
  // Somebody is catching up, so totals of coming steps are wanted.
  bool is_followed(Time now) const;
  void snapshot_done(const protocol::SnapshotDone& done, Time now);
  void recalled(const protocol::RecallDone& done);
  void tick(Time now);
  Time next_due() const;

 private:
  struct Request {
    SessionId asker;
    protocol::Piece piece;
  };
  struct Snapshot {
    std::uint64_t version = 0;
    SharedBytes state;  // null: being taken
    std::string digest;
    Time used{};
    std::set<SessionId> askers;  // that have asked for nothing else since
  };
  struct Update {
    protocol::Commit commit;
    std::vector<SharedBytes> totals;
    std::uint64_t bytes() const;
  };
  const protocol::Member* find(SessionId session) const;
  void refuse(const Request& request);
  void send(const Request& request, protocol::Chunk chunk, Time now);
  void want_recall(const Request& request);
  void recall_next();
  void serve(Time now);
  void serve_updates(Time now);
  void serve_snapshots(Time now);
  void forget_updates(std::size_t most, std::uint64_t bytes_max);
  bool is_wanted(const Snapshot& snapshot, Time now) const;
  bool take_snapshot(std::uint64_t version, Time now);

  WorkerContext& context_;
  std::deque<Request> update_requests_, snapshot_requests_, recall_requests_;
  std::size_t recalls_ = 0;  // at the device
  std::map<std::uint64_t, Snapshot> snapshots_;
  std::map<std::uint64_t, Update> updates_;
  Time followed_until_{};
  Time free_at_{};  // when the next piece of an update may leave
};

}  // namespace isthmus::router
