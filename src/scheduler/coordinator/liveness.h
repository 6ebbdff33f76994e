#pragma once

#include <optional>
#include <set>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/ids.h"
#include "base/time.h"
#include "protocol/view.h"
#include "scheduler/coordinator/events.h"

namespace isthmus::coordinator {

// Who is there, for all that can be seen from here: whose connection stands, and when each was last heard. Who is cut
// off or silent for a moment is suspected, and new work goes around it; who stays away is lost. Silence that may be
// this machine's own is nobody's fault: after a start, after its own loop stood still, or once if most members fall
// silent together, nobody is lost for a while. Pure; one thread.
class Liveness {
 public:
  struct Options {
    // So that a worker is suspected within a second of its last moment, the way of its last report included.
    Duration suspicion = std::chrono::milliseconds(900);
    Duration silence = seconds(3);
    Duration reconnect = seconds(1);
    // Of members on other machines: between them is somebody's Wi-Fi.
    Duration remote_silence = seconds(10);
    Duration remote_reconnect = seconds(5);
    Duration grace = seconds(10);
    Duration pause = std::chrono::milliseconds(500);  // a loop that turns less often stood still
  };
  explicit Liveness(Options options) : options_(options) {}

  // Begins every turn of the coordinator.
  void turn(Time now);
  Time now() const { return now_; }
  Time started() const { return started_; }

  void connected(PeerId peer);
  void disconnected(PeerId peer);
  // It spoke.
  void heard(PeerId peer);
  // … in a report that counts. Whether it is the first over this connection: before that there is nobody to tell, or
  // nobody knows what it knows.
  bool reported(PeerId peer);
  void forget(PeerId peer) { contacts_.erase(peer); }

  bool is_connected(PeerId peer) const;
  // Whether anything was seen of it since the start.
  bool was_seen(PeerId peer) const { return contacts_.contains(peer); }
  bool has_reported(PeerId peer) const;
  // When its connection was lost; nothing: it stands, or nothing was seen of it yet.
  std::optional<Time> lost_since(PeerId peer) const;
  // When a member that stays away is lost, as things are now.
  Time lost_at(const protocol::Member& member) const;
  // When it was last heard, or the start: what came before is not known.
  Time last_heard(PeerId peer) const;
  bool is_prompt(PeerId peer) const { return now_ - last_heard(peer) < options_.suspicion; }

  bool suspects(SessionId session) const { return suspected_.contains(session); }
  const std::set<SessionId>& suspected() const { return suspected_; }
  // Its connection is lost. Whether it was not suspected yet.
  bool suspect(SessionId session) { return suspected_.insert(session).second; }
  void clear(SessionId session) { suspected_.erase(session); }
  // Who is suspected now, of these members; none if there are none. Nothing: the same as before; otherwise those that
  // were not suspected yet, each as an event.
  std::optional<std::vector<events::Suspected>> judge(std::span<const protocol::Member> live);

  struct Lost {
    protocol::Member member;
    std::string reason;
  };
  // Members that stay away.
  std::vector<Lost> lost(std::span<const protocol::Member> live);
  // When the next of these members is silent for long enough to be suspected.
  Time next_suspicion(std::span<const protocol::Member> live) const;

 private:
  struct Contact {
    Time heard{};
    std::optional<Time> lost;  // disconnected since
    bool reported = false;     // over this connection
  };
  const Contact* find(PeerId peer) const;
  Duration silence(const protocol::Member& member) const {
    return member.location.is_local() ? options_.silence : options_.remote_silence;
  }
  Duration reconnect(const protocol::Member& member) const {
    return member.location.is_local() ? options_.reconnect : options_.remote_reconnect;
  }
  bool is_disconnected(PeerId peer) const;

  Options options_;
  std::unordered_map<PeerId, Contact> contacts_;
  std::set<SessionId> suspected_;
  Time now_{};
  Time started_{};
  Time patient_until_{};
  bool was_patient_ = false;  // most members were given time once; if they are still silent it was not this machine
};

}  // namespace isthmus::coordinator
