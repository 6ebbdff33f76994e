#include "app/admin.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/digest.h"
#include "record/json_fields.h"

namespace isthmus::app {

using nlohmann::json;

namespace {

const char* word_of(coordinator::Standing standing) {
  switch (standing) {
    case coordinator::Standing::kWaiting:
      return "waiting";
    case coordinator::Standing::kAway:
      return "away";
    case coordinator::Standing::kJoining:
      return "joining";
    case coordinator::Standing::kMember:
      return "member";
    case coordinator::Standing::kLeaving:
      return "leaving";
    case coordinator::Standing::kSuspected:
      break;
  }
  return "suspected";
}

json peer_json(PeerId peer, const coordinator::Peer& known) {
  json out = {{"peer", peer.value}, {"name", known.name}, {"identity", to_hex(known.identity)}};
  if (known.invite) out["invite"] = to_hex(*known.invite).substr(0, 8);
  if (known.revoked) {
    out["standing"] = known.banned ? "banned" : "revoked";
    out["reason"] = known.reason;
  }
  return out;
}

json invite_json(const protocol::PublicKey& key, const coordinator::Invite& invite, std::uint64_t now_s) {
  json out = {{"invite", to_hex(key).substr(0, 8)}, {"uses", invite.uses}, {"used", invite.used}};
  if (invite.expires_s != 0) out["expires_s"] = invite.expires_s;
  if (invite.stage) out["stage"] = invite.stage->value;
  const std::string flaw = coordinator::flaw_of(invite, now_s);
  out["good"] = flaw.empty();
  if (!flaw.empty()) out["reason"] = flaw.substr(0, flaw.find(';'));
  return out;
}

const char* word_of(protocol::Phase phase) {
  switch (phase) {
    case protocol::Phase::kRunning:
      return "running";
    case protocol::Phase::kStopping:
      return "stopping";
    case protocol::Phase::kFinished:
      return "finished";
    case protocol::Phase::kEnded:
      break;
  }
  return "ended";
}

void put_until(json& out, std::optional<Time> until, Time now) {
  if (until) out["seconds_left"] = std::max(0.0, to_seconds(*until - now));
}

json worker_json(const coordinator::RunStatus::Worker& worker, Time now) {
  json out = {{"peer", worker.peer.value},
              {"name", worker.name},
              {"standing", word_of(worker.standing)},
              {"does", worker.does},
              {"computing_queue", worker.stats.queued}};
  put_until(out, worker.until, now);
  if (worker.place) out["stage"] = worker.place->stage.value;
  if (worker.place) out["replica"] = worker.place->replica.value;
  if (worker.queued) out["queue"] = {worker.queued->place, worker.queued->length};
  if (worker.version) out["version"] = *worker.version;
  if (worker.heard) out["heard_seconds"] = to_seconds(*worker.heard);
  return out;
}

template <class Ask>
bool try_read(const std::string& name, const json& object, AdminAsk& ask, Status& read) {
  if (name != Ask::kName) return false;
  Ask asked;
  read = record::JsonReader::read(object, asked);
  ask = std::move(asked);
  return true;
}

}  // namespace

std::string encode_ask(const AdminAsk& ask) {
  return std::visit(
      [](const auto& a) {
        json out = record::JsonWriter::json_of(a);
        out["ask"] = a.kName;
        return out.dump(-1, ' ', false, json::error_handler_t::replace);
      },
      ask);
}

Result<AdminAsk> decode_ask(const std::string& line) {
  json object = json::parse(line, nullptr, false);
  if (!object.is_object() || !object.contains("ask") || !object["ask"].is_string())
    return fail("expected a JSON object with \"ask\"");
  const std::string name = object["ask"];
  object.erase("ask");
  AdminAsk ask;
  Status read;
  if (!try_read<AskInvite>(name, object, ask, read) && !try_read<AskWithdraw>(name, object, ask, read) &&
      !try_read<AskPeers>(name, object, ask, read) && !try_read<AskRevoke>(name, object, ask, read) &&
      !try_read<AskStatus>(name, object, ask, read))
    return fail("this coordinator does not know what was asked; is it of another version?");
  if (!read) return tl::unexpected(read.error());
  return ask;
}

std::string encode_peers(const coordinator::Decisions& decisions, const coordinator::RunStatus& status,
                         std::uint64_t now_s) {
  json peers = json::array(), invites = json::array();
  auto worker = status.workers.begin();
  for (const auto& [peer, known] : decisions.peers) {
    json& out = peers.emplace_back(peer_json(peer, known));
    if (known.revoked) continue;
    while (worker != status.workers.end() && worker->peer < peer) ++worker;
    if (worker == status.workers.end() || worker->peer != peer) continue;
    out["standing"] = word_of(worker->standing);
    if (worker->place) out["stage"] = worker->place->stage.value;
    if (worker->place) out["replica"] = worker->place->replica.value;
    if (worker->queued) out["queue"] = {worker->queued->place, worker->queued->length};
    if (worker->queued) out["reason"] = worker->queued->reason;
    if (worker->version) out["version"] = *worker->version;
  }
  for (const auto& [key, invite] : decisions.invites) invites.push_back(invite_json(key, invite, now_s));
  return json{{"step", decisions.step.value}, {"peers", peers}, {"invites", invites}}.dump(
      -1, ' ', false, json::error_handler_t::replace);
}

std::string encode_status(const spec::RunConfig& run, std::uint64_t run_id, const record::RunFigures& figures,
                          const coordinator::Decisions& decisions, const coordinator::RunStatus& status,
                          const std::string& vault, std::uint64_t now_s) {
  json stages = json::array(), workers = json::array(), invites = json::array();
  for (std::size_t s = 0; s < status.stages.size(); ++s) {
    const auto& stage = status.stages[s];
    const auto& layers = run.pipeline.stage[s];
    json& out = stages.emplace_back(json{{"stage", s},
                                         {"layers", {layers.first_layer, layers.end_layer}},
                                         {"wished", stage.wished},
                                         {"seated", stage.seated},
                                         {"members", stage.members},
                                         {"saved", decisions.checkpointed[s]},
                                         {"skipped", stage.skipped}});
    if (!stage.waits.empty()) out["waits"] = stage.waits;
    put_until(out, stage.until, status.at);
  }
  for (const auto& worker : status.workers) workers.push_back(worker_json(worker, status.at));
  for (const auto& [key, invite] : decisions.invites) invites.push_back(invite_json(key, invite, now_s));
  json out = {{"run", run.run.name},
              {"run_id", fmt::format("{:016x}", run_id)},
              {"phase", word_of(status.phase)},
              {"step", status.step.value},
              {"committed", figures.step.value},
              {"steps", run.run.steps},
              {"rollbacks", status.rollbacks},
              {"stages", stages},
              {"workers", workers},
              {"invites", invites}};
  if (!vault.empty()) out["vault"] = vault;
  if (!status.reason.empty()) out["reason"] = status.reason;
  if (figures.loss) out["loss"] = *figures.loss;
  if (figures.validation_loss) out["validation_loss"] = *figures.validation_loss;
  if (figures.step_seconds > 0) {
    out["step_seconds"] = figures.step_seconds;
    out["tokens_per_second"] = figures.tokens_per_second;
    out["seconds_left"] =
        figures.step_seconds * static_cast<double>(run.run.steps - std::min(run.run.steps, figures.step.value));
  }
  return out.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string encode_said(const std::string& what, const std::string& text) {
  return json{{what, text}}.dump(-1, ' ', false, json::error_handler_t::replace);
}

}  // namespace isthmus::app
