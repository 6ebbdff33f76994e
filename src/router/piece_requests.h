#pragma once

#include <map>
#include <optional>
#include <set>
#include <vector>

#include "router/worker_context.h"

namespace isthmus::router {

// Pieces of one sort that a joining worker wants, and whom it has asked for which: several sources at once, a few
// pieces in flight at each, another source when one gives nothing any more. Resumes where it was when a source goes
// away.
class PieceRequests {
 public:
  explicit PieceRequests(WorkerContext& context) : context_(context) {}

  void clear();
  void want(const protocol::Piece& piece);
  bool wants(const protocol::Piece& piece) const { return wanted_.contains(piece) || asked_.contains(piece); }
  bool empty() const { return wanted_.empty() && asked_.empty(); }
  // Asks these members for what nobody was asked for yet.
  void ask(const std::vector<const protocol::Member*>& sources, Time now);
  // True if this piece was asked of this peer: it is not wanted any more.
  bool arrived(const protocol::Piece& piece, PeerId from);
  // The peer does not have it.
  void absent(const protocol::Piece& piece, PeerId from);
  // The connection to the peer was made or lost: what was asked of it may never have arrived.
  void forget_asked(PeerId peer);
  // A piece that no source of the last ask() has.
  std::optional<protocol::Piece> lost() const;
  // Nobody had it then; somebody may have it now.
  void forget_absences();
  Time next_due() const;

 private:
  struct Asked {
    PeerId of;
    Time at{};
  };
  Time silent_since(const Asked& asked) const;
  Duration patience(const protocol::Piece& piece) const;
  bool is_absent(const protocol::Piece& piece, PeerId source) const;

  WorkerContext& context_;
  std::set<protocol::Piece> wanted_;  // and nobody is asked
  std::map<protocol::Piece, Asked> asked_;
  std::map<protocol::Piece, std::set<PeerId>> absent_;  // of those two
  std::set<PeerId> sources_;
  std::set<PeerId> gave_;           // since the last ask()
  std::map<PeerId, Time> gave_at_;  // about
  Time free_at_{};                  // when the next piece of a snapshot may be asked for
  bool paused_ = false;             // until then
};

}  // namespace isthmus::router
