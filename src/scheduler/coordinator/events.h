#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "base/ids.h"
#include "base/time.h"
#include "protocol/view.h"

namespace isthmus::coordinator {

// What happened in a run, as values: for its files, for whoever watches it, for checkers. `kName` is the event's name
// in events.jsonl; `peer` is whom it is about.
namespace events {

struct Invited {
  static constexpr std::string_view kName = "invited";
  std::uint32_t uses = 0;  // 0: any number
  std::optional<StageId> only_stage;
};
struct Withdrawn {
  static constexpr std::string_view kName = "withdrawn";
  std::uint32_t used = 0;  // identities that have enrolled with it
};
struct Enrolled {
  static constexpr std::string_view kName = "enrolled";
  PeerId peer;
  std::string name;
};
struct Seated {
  static constexpr std::string_view kName = "seated";
  PeerId peer;
  protocol::Place place;
};
struct Unseated {
  static constexpr std::string_view kName = "unseated";
  PeerId peer;
  std::string reason;
};
struct Revoked {
  static constexpr std::string_view kName = "revoked";
  PeerId peer;
  std::string reason;
  bool ban = false;
};
// A candidate that lacks versions.
struct Joining {
  static constexpr std::string_view kName = "joining";
  PeerId peer;
  std::optional<std::uint64_t> version;  // that it holds; nothing: of none that could be admitted
  std::uint64_t needed = 0;              // by the running step
};
struct Fetching {
  static constexpr std::string_view kName = "fetching";
  PeerId peer;
  std::string what;  // in its words
};
struct Admitted {
  static constexpr std::string_view kName = "admitted";
  PeerId peer;
  protocol::Place place;
  std::uint64_t version = 0;
};
// It can be reached elsewhere from now on.
struct AddressChanged {
  static constexpr std::string_view kName = "address";
  PeerId peer;
  std::string network;  // protocol::Location
};
struct Suspected {
  static constexpr std::string_view kName = "suspected";
  PeerId peer;
  bool disconnected = false;  // otherwise it is silent
};
struct Expelled {
  static constexpr std::string_view kName = "expelled";
  PeerId peer;
  std::string reason;
};
// It was asked to leave, and finishes what it has begun.
struct Leaving {
  static constexpr std::string_view kName = "leaving";
  PeerId peer;
  protocol::Place place;
};
// It said good-bye, and has no seat any more.
struct Left {
  static constexpr std::string_view kName = "left";
  PeerId peer;
  protocol::Place place;
  std::string when;  // in words: what it left behind
};
struct Moved {
  static constexpr std::string_view kName = "moved";
  PeerId peer;
  StageId from;
  StageId to;
  std::string reason;
};
// Its process will not be started again.
struct Gone {
  static constexpr std::string_view kName = "gone";
  PeerId peer;
  std::string what;
};
// Microbatches that a head returned.
struct Dealt {
  static constexpr std::string_view kName = "dealt";
  PeerId peer;
  std::uint64_t away = 0;  // to other heads
  std::uint64_t returned = 0;
};
struct Committed {
  static constexpr std::string_view kName = "committed";
  std::string skipped;  // why it was skipped on every stage; empty: it was not
};
struct Checkpointed {
  static constexpr std::string_view kName = "checkpoint";
  PeerId peer;  // who said so last
  StageId stage;
  std::uint64_t version = 0;
};
struct RolledBack {
  static constexpr std::string_view kName = "rolled back";
  PeerId peer;  // the coordinator: because of bad steps
  std::uint64_t version = 0;
  std::string reason;
};
// The step goes on without a stage that nobody serves.
struct StageSkipped {
  static constexpr std::string_view kName = "skipped";
  StageId stage;
  Duration empty{};  // for so long
};
// It has been skipped for as many steps as it may be.
struct StageAwaited {
  static constexpr std::string_view kName = "waiting";
  StageId stage;
  std::uint32_t skipped = 0;
};
// An error that its worker cannot go on with.
struct Fault {
  static constexpr std::string_view kName = "fault";
  PeerId peer;
  std::string what;
};
struct Warning {
  static constexpr std::string_view kName = "warning";
  PeerId peer;  // the coordinator's, too
  std::string what;
};
// Messages that did not count.
struct Refused {
  static constexpr std::string_view kName = "refused";
  PeerId peer;  // who refused them
  std::string what;
};
// Two members cannot reach each other, and nobody else can take the place of either: the step waits.
struct Unreachable {
  static constexpr std::string_view kName = "unreachable";
  PeerId peer;    // who says so
  PeerId other;   // whom it cannot reach
  StageId stage;  // the other's
  std::string endpoint;
};
// What it told its siblings at the sync was at fault, say most of them.
struct Offender {
  static constexpr std::string_view kName = "offender";
  PeerId peer;
  std::uint64_t version = 0;  // of the weights that were told of
  std::string what;
};
struct Stopping {
  static constexpr std::string_view kName = "stopping";
  std::string reason;
};
struct Finished {
  static constexpr std::string_view kName = "finished";
};

}  // namespace events

using Event = std::variant<events::Invited, events::Withdrawn, events::Enrolled, events::Seated, events::Unseated,
                           events::Revoked, events::Joining, events::Fetching, events::Admitted, events::AddressChanged,
                           events::Suspected, events::Expelled, events::Leaving, events::Left, events::Moved,
                           events::Gone, events::Dealt, events::Committed, events::Checkpointed, events::RolledBack,
                           events::StageSkipped, events::StageAwaited, events::Fault, events::Warning, events::Refused,
                           events::Unreachable, events::Offender, events::Stopping, events::Finished>;

// Something happened in this step.
struct Happened {
  StepId step;
  Event event;
};
std::string_view name_of(const Event& event);
// Whom it is about; the coordinator where it is about nobody.
PeerId peer_of(const Event& event);
// All else that it says, in words; may be empty.
std::string text_of(const Event& event);

}  // namespace isthmus::coordinator
