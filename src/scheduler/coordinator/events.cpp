#include "scheduler/coordinator/events.h"

#include <fmt/format.h>

namespace isthmus::coordinator {

namespace {

std::string place_text(const protocol::Place& place) {
  return fmt::format("stage {} replica {}", place.stage, place.replica);
}

std::string text(const events::Invited& e) {
  std::string words = e.uses == 0   ? "for any number of machines"
                      : e.uses == 1 ? "for one machine"
                                    : fmt::format("for {} machines", e.uses);
  if (e.only_stage) words += fmt::format(", at stage {}", *e.only_stage);
  return words;
}
std::string text(const events::Withdrawn& e) { return fmt::format("{} enrolled with it", e.used); }
std::string text(const events::Enrolled& e) { return e.name; }
std::string text(const events::Seated& e) { return place_text(e.place); }
std::string text(const events::Unseated& e) { return e.reason; }
std::string text(const events::Revoked& e) { return e.ban ? "banned: " + e.reason : e.reason; }
std::string text(const events::Joining& e) {
  const std::string holds = e.version ? fmt::format("version {}", *e.version) : "no weights yet";
  return fmt::format("it holds {}, step {} needs version {}", holds, e.needed + 1, e.needed);
}
std::string text(const events::Fetching& e) { return e.what; }
std::string text(const events::Admitted& e) { return fmt::format("{}, version {}", place_text(e.place), e.version); }
std::string text(const events::AddressChanged& e) {
  return e.network.empty() ? "it has another one" : fmt::format("it is at {} now", e.network);
}
std::string text(const events::Suspected& e) { return e.disconnected ? "its connection is lost" : "silent"; }
std::string text(const events::Expelled& e) { return e.reason; }
std::string text(const events::Leaving& e) { return place_text(e.place) + "; it finishes what it has begun"; }
std::string text(const events::Left& e) { return place_text(e.place) + ", " + e.when; }
std::string text(const events::Moved& e) {
  return fmt::format("from stage {} to stage {}: {}", e.from, e.to, e.reason);
}
std::string text(const events::Gone& e) { return e.what; }
std::string text(const events::Dealt& e) {
  return fmt::format("{} of {} microbatches that it had not begun go to other heads", e.away, e.returned);
}
std::string text(const events::Committed& e) { return e.skipped.empty() ? "" : "skipped on every stage: " + e.skipped; }
std::string text(const events::Checkpointed& e) { return fmt::format("stage {}, version {}", e.stage, e.version); }
std::string text(const events::RolledBack& e) {
  return fmt::format("to version {} on every stage; {}", e.version, e.reason);
}
std::string text(const events::StageSkipped& e) {
  return fmt::format("stage {}: nobody has served it for {:.1f} s", e.stage, to_seconds(e.empty));
}
std::string text(const events::StageAwaited& e) {
  return fmt::format(
      "stage {} has been skipped for {} steps in a row, as many as recovery.skip_steps allows: the run waits for it",
      e.stage, e.skipped);
}
std::string text(const events::Fault& e) { return e.what; }
std::string text(const events::Warning& e) { return e.what; }
std::string text(const events::Refused& e) { return e.what; }
std::string text(const events::Unreachable& e) {
  return fmt::format(
      "no connection with worker {} of stage {} at {}, and nobody else serves in the place of either: the step waits; "
      "see whether a firewall stands between them",
      e.other, e.stage, e.endpoint);
}
std::string text(const events::Offender& e) { return fmt::format("sync of version {}: {}", e.version, e.what); }
std::string text(const events::Stopping& e) { return e.reason; }
std::string text(const events::Finished&) { return ""; }

}  // namespace

std::string_view name_of(const Event& event) {
  return std::visit([](const auto& e) { return std::decay_t<decltype(e)>::kName; }, event);
}

PeerId peer_of(const Event& event) {
  return std::visit(
      [](const auto& e) {
        if constexpr (requires { e.peer; })
          return e.peer;
        else
          return kCoordinator;
      },
      event);
}

std::string text_of(const Event& event) {
  return std::visit([](const auto& e) { return text(e); }, event);
}

}  // namespace isthmus::coordinator
