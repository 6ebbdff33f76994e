#include "app/owner_desk.h"

#include <utility>
#include <variant>

#include "process/clock.h"
#include "transport/keys.h"

namespace isthmus::app {

std::string OwnerDesk::asked(const std::string& line, Time now) {
  const auto ask = decode_ask(line);
  if (!ask) return encode_said("error", ask.error().message);
  return std::visit([&](const auto& a) { return answer(a, now); }, *ask);
}

std::string OwnerDesk::if_written(bool written, const std::string& key, const std::string& text) const {
  return written ? encode_said(key, text) : encode_said("error", "the coordinator cannot write its log any more");
}

std::string OwnerDesk::answer(const AskInvite& ask, Time now) {
  const auto& plan = run_.plan;
  if (ask.stage && ask.stage->value >= plan.stages.size())
    return encode_said("error",
                       fmt::format("there is no stage {}; the run has {}, from 0", *ask.stage, plan.stages.size()));
  const bool is_end = ask.stage && (ask.stage->value == 0 || *ask.stage == plan.last_stage());
  if (is_end && !ask.trusted && run_.config.trust.ends == "owner")
    return encode_said("error", fmt::format("stage {} is for machines that you trust; add --trusted", *ask.stage));
  Invite invite = run_.invite;
  invite.key = transport::new_key_pair();
  invite.stage = ask.stage;
  if (ask.expires_in_s != 0) invite.expires_s = process::seconds_since_1970() + ask.expires_in_s;
  const bool written = run_.carry_out(
      run_.coordinator.invite({invite.key.public_key, ask.uses, invite.expires_s, invite.stage, ask.trusted}, now));
  if (written) run_.front_desk.let_in(invite.key.public_key);
  return if_written(written, "invite", invite_text(invite));
}

std::string OwnerDesk::answer(const AskWithdraw& ask, Time now) {
  const auto& invites = run_.coordinator.decisions().invites;
  if (!invites.contains(ask.key)) return encode_said("error", "this invite is not one of this run's");
  const bool written = run_.carry_out(run_.coordinator.withdraw(ask.key, now));
  return if_written(written, "done", fmt::format("withdrawn; {} enrolled with it", invites.at(ask.key).used));
}

std::string OwnerDesk::answer(const AskPeers&, Time now) {
  return encode_peers(run_.coordinator.decisions(), run_.coordinator.status(now), process::seconds_since_1970());
}

std::string OwnerDesk::answer(const AskStatus&, Time now) {
  return encode_status(run_.config, run_.plan.run_id, run_.record.figures(), run_.coordinator.decisions(),
                       run_.coordinator.status(now), run_.progress(), process::seconds_since_1970());
}

std::string OwnerDesk::answer(const AskRevoke& ask, Time now) {
  const auto& peers = run_.coordinator.decisions().peers;
  const auto known = peers.find(ask.peer);
  if (known == peers.end()) return encode_said("error", fmt::format("there is no peer {}", ask.peer));
  const bool written =
      run_.carry_out(run_.coordinator.revoke(ask.peer, ask.reason.empty() ? "by the owner" : ask.reason, ask.ban, now));
  return if_written(written, "done",
                    fmt::format("peer {} ({}) is {}", ask.peer, known->second.name,
                                known->second.banned ? "banned" : "revoked; its identity may enrol again"));
}

}  // namespace isthmus::app
