#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "base/ids.h"
#include "base/result.h"
#include "protocol/endpoints.h"
#include "record/run_record.h"
#include "scheduler/coordinator/coordinator.h"
#include "spec/run_config.h"

namespace isthmus::app {

// What an owner asks the coordinator through its admin socket (process/admin_socket.h): one JSON object there, one
// back. Pure: no socket or clock.
struct AskInvite {
  static constexpr std::string_view kName = "invite";
  std::uint32_t uses = 1;          // 0: any number
  std::uint64_t expires_in_s = 0;  // 0: never
  std::optional<StageId> stage{};
  bool trusted = false;
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit("trusted", self.trusted);
    visit("uses", self.uses);
    visit("expires_in_s", self.expires_in_s);
    visit("stage", self.stage);
  }
};
struct AskWithdraw {
  static constexpr std::string_view kName = "withdraw";
  protocol::PublicKey key{};  // the invite's public half
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit("key", self.key);
  }
};
struct AskPeers {
  static constexpr std::string_view kName = "peers";
  template <class Self>
  static void fields(Self&, auto&) {}
};
struct AskRevoke {
  static constexpr std::string_view kName = "revoke";
  PeerId peer;
  std::string reason;
  bool ban = false;
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit("peer", self.peer);
    visit("reason", self.reason, protocol::Most::kText);
    visit("ban", self.ban);
  }
};
struct AskStatus {
  static constexpr std::string_view kName = "status";
  template <class Self>
  static void fields(Self&, auto&) {}
};
using AdminAsk = std::variant<AskInvite, AskWithdraw, AskPeers, AskRevoke, AskStatus>;

std::string encode_ask(const AdminAsk& ask);
Result<AdminAsk> decode_ask(const std::string& line);

// Everybody who was ever enrolled, and every invite, as one JSON object. `now_s`: seconds since 1970.
std::string encode_peers(const coordinator::Decisions& decisions, const coordinator::RunStatus& status,
                         std::uint64_t now_s);
// The run as it is: figures, stages, workers with what they do and until when, invites. `vault`: what goes into it at
// the moment, for people. `now_s` as above.
std::string encode_status(const spec::RunConfig& run, std::uint64_t run_id, const record::RunFigures& figures,
                          const coordinator::Decisions& decisions, const coordinator::RunStatus& status,
                          const std::string& vault, std::uint64_t now_s);
// {"invite": TEXT}, {"done": TEXT} or {"error": TEXT}
std::string encode_said(const std::string& what, const std::string& text);

}  // namespace isthmus::app
