// What an owner says to the coordinator of a run: invite, peers, revoke.

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "app/admin.h"
#include "app/commands/command_line.h"
#include "app/commands/number_option.h"
#include "app/invite.h"
#include "base/plain_duration.h"
#include "process/admin_socket.h"

namespace isthmus::app {

namespace {

using nlohmann::json;

struct InviteOptions {
  std::string folder;
  AskInvite ask;
  std::optional<std::uint32_t> stage;
  std::string expires = "24h";
  bool as_json = false;
};
struct PeersOptions {
  std::string folder;
  bool as_json = false;
};
struct RevokeOptions {
  std::string folder, whom;
  AskRevoke ask;
  bool as_json = false;
};

// The coordinator's answer; its error is ours.
Result<json> ask_coordinator(const std::string& folder, const AdminAsk& ask) {
  const auto answer = process::ask_admin(folder, "coordinator", encode_ask(ask), seconds(10));
  if (!answer)
    return fail("{}; `isthmus coordinator RUN.toml --out {}` goes on with a run", answer.error().message, folder);
  json said = json::parse(*answer, nullptr, false);
  if (!said.is_object()) return fail("the coordinator of {} answers what this version does not know", folder);
  if (said.contains("error")) return fail("{}", said["error"].get<std::string>());
  return said;
}

int make_invite(InviteOptions& options) {
  const auto expires = read_duration(options.expires);
  if (!expires) {
    fmt::print(stderr, "--expires is '{}', expected a time such as 90min, 24h or 7d; 0: never\n", options.expires);
    return kUsage;
  }
  options.ask.expires_in_s = *expires;
  if (options.stage) options.ask.stage = StageId(*options.stage);
  const auto said = ask_coordinator(options.folder, options.ask);
  if (!said) return report(tl::unexpected(said.error()));
  if (options.as_json) {
    fmt::print("{}\n", said->dump());
    return 0;
  }
  fmt::print("{}\n", said->at("invite").get<std::string>());
  spdlog::info("whoever has it may take part ({}, {}): isthmus join INVITE",
               options.ask.uses == 0   ? "any number of machines"
               : options.ask.uses == 1 ? "one machine"
                                       : fmt::format("{} machines", options.ask.uses),
               *expires == 0 ? "for as long as the run lasts" : "for " + plain_duration(*expires));
  return 0;
}

std::string place_text(const json& peer) {
  if (peer.contains("stage")) return fmt::format("{}.{}", peer["stage"].get<int>(), peer["replica"].get<int>());
  if (peer.contains("queue")) return fmt::format("{} of {}", peer["queue"][0].get<int>(), peer["queue"][1].get<int>());
  return "-";
}

int show_peers(const PeersOptions& options) {
  const auto said = ask_coordinator(options.folder, AskPeers{});
  if (!said) return report(tl::unexpected(said.error()));
  if (options.as_json) {
    fmt::print("{}\n", said->dump());
    return 0;
  }
  fmt::print("{:>5}  {:<20} {:<10} {:<8} {:>8}  {}\n", "peer", "name", "standing", "place", "version", "");
  for (const auto& peer : said->at("peers"))
    fmt::print("{:>5}  {:<20} {:<10} {:<8} {:>8}  {}\n", peer["peer"].get<int>(), peer["name"].get<std::string>(),
               peer.value("standing", ""), place_text(peer),
               peer.contains("version") ? peer["version"].dump() : std::string("-"), peer.value("reason", ""));
  for (const auto& invite : said->at("invites"))
    fmt::print("invite {}: {} of {} used{}\n", invite["invite"].get<std::string>(), invite["used"].get<int>(),
               invite["uses"] == 0 ? std::string("any number") : invite["uses"].dump(),
               invite["good"] ? "" : "; " + invite.value("reason", ""));
  return 0;
}

int revoke(RevokeOptions& options) {
  AdminAsk ask;
  if (const auto peer = read_number<std::uint64_t>(options.whom, 1, UINT32_MAX)) {
    options.ask.peer = PeerId(static_cast<std::uint32_t>(*peer));
    ask = options.ask;
  } else {
    const auto invite = read_invite(options.whom);
    if (!invite) return report(fail("'{}' is neither a peer's number (`isthmus peers`) nor an invite", options.whom));
    ask = AskWithdraw{invite->key.public_key};
  }
  const auto said = ask_coordinator(options.folder, ask);
  if (!said) return report(tl::unexpected(said.error()));
  fmt::print("{}\n", options.as_json ? said->dump() : said->at("done").get<std::string>());
  return 0;
}

}  // namespace

void add_invite(CommandLine& line) {
  InviteOptions& options = line.keep<InviteOptions>();
  auto* command = line.app().add_subcommand("invite", "Print a string with which somebody can join a run");
  command->group("Who takes part");
  command->add_option("DIR", options.folder, "Folder of the run, which its coordinator serves")->required();
  add_number(*command, "--uses", options.ask.uses, "Machines that may join with it; 0: any number", 0, 1'000'000);
  command->add_option("--expires", options.expires, "How long it lasts: 90min, 24h, 7d; 0: as long as the run")
      ->capture_default_str();
  add_number(*command, "--stage", options.stage, "Stage that whoever joins with it serves (default: any)", 0, 100'000);
  command->add_flag("--trusted", options.ask.trusted,
                    "Whoever joins with it may serve any stage, the first and the last included (trust.ends)");
  command->add_flag("--json", options.as_json, "Machine-readable output");
  add_example(*command, "isthmus invite runs/open --uses 3 --expires 7d");
  command->callback([&] { line.chosen = [&] { return make_invite(options); }; });
}

void add_peers(CommandLine& line) {
  PeersOptions& options = line.keep<PeersOptions>();
  auto* command = line.app().add_subcommand("peers", "Who takes part in a run, and which invites are open");
  command->group("Who takes part");
  command->add_option("DIR", options.folder, "Folder of the run, which its coordinator serves")->required();
  command->add_flag("--json", options.as_json, "Machine-readable output");
  add_example(*command, "isthmus peers runs/open");
  command->callback([&] { line.chosen = [&] { return show_peers(options); }; });
}

void add_revoke(CommandLine& line) {
  RevokeOptions& options = line.keep<RevokeOptions>();
  auto* command = line.app().add_subcommand("revoke", "Shut somebody out of a run at once, or withdraw an invite");
  command->group("Who takes part");
  command->add_option("DIR", options.folder, "Folder of the run, which its coordinator serves")->required();
  command->add_option("PEER", options.whom, "Number of the peer, as `isthmus peers` shows it, or an invite")
      ->required();
  command->add_flag("--ban", options.ask.ban, "Never let this identity enrol again");
  command->add_option("--reason", options.ask.reason,
                      "Why, for the log and for who is shut out (default: by the owner)");
  command->add_flag("--json", options.as_json, "Machine-readable output");
  add_example(*command, "isthmus revoke runs/open 3 --ban");
  command->callback([&] { line.chosen = [&] { return revoke(options); }; });
}

}  // namespace isthmus::app
