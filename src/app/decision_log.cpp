#include "app/decision_log.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/digest.h"

namespace isthmus {

using nlohmann::json;

namespace {

std::string line_checksum(std::string_view text) {
  return fmt::format("{:016x}",
                     checksum({reinterpret_cast<const std::uint8_t*>(text.data()), text.size()}));
}

json shares_of(const CommitRecord& record) {
  json shares = json::array();
  for (const auto& [session, share] : record.head_share) shares.push_back({session.value, share});
  return shares;
}

json stages_of(const std::vector<StageId>& stages) {
  json list = json::array();
  for (const auto stage : stages) list.push_back(stage.value);
  return list;
}

std::vector<StageId> stages_from(const json& list) {
  std::vector<StageId> stages;
  for (const auto& stage : list) stages.push_back(StageId(stage));
  return stages;
}

json to_json(const LogRecord& record) {
  return std::visit(
      [](const auto& r) -> json {
        using R = std::decay_t<decltype(r)>;
        if constexpr (std::is_same_v<R, InitRecord>) {
          return {{"record", "init"}, {"version", r.version}};
        } else if constexpr (std::is_same_v<R, AdmitRecord>) {
          return {{"record", "admit"},
                  {"version", r.version},
                  {"peer", r.member.peer.value},
                  {"session", r.member.session.value},
                  {"stage", r.member.stage.value},
                  {"replica", r.member.replica.value},
                  {"key", to_hex(r.member.key)},
                  {"control", r.member.endpoints.control},
                  {"bulk", r.member.endpoints.bulk}};
        } else if constexpr (std::is_same_v<R, ExpelRecord>) {
          return {{"record", "expel"}, {"session", r.session.value}, {"reason", r.reason}};
        } else if constexpr (std::is_same_v<R, CommitRecord>) {
          return {{"record", "commit"},
                  {"step", r.commit.step.value},
                  {"attempt", r.commit.attempt},
                  {"epoch", r.commit.epoch.value},
                  {"scale", r.commit.scale},
                  {"apply", r.commit.apply},
                  {"without", stages_of(r.commit.absent)},
                  {"next_without", stages_of(r.absent)},
                  {"head_share", shares_of(r)},
                  {"loss", r.figures.loss},
                  {"tokens", r.figures.tokens},
                  {"validation_loss", r.figures.validation_loss ? json(*r.figures.validation_loss) : json()},
                  {"grad_norm", r.figures.grad_norm},
                  {"replayed", r.figures.replayed},
                  {"reason", r.reason}};
        } else if constexpr (std::is_same_v<R, RollbackRecord>) {
          return {{"record", "rollback"},
                  {"version", r.version},
                  {"reason", r.reason},
                  {"left_out", {r.left_out.first.value, r.left_out.last.value}}};
        } else if constexpr (std::is_same_v<R, MoveRecord>) {
          return {{"record", "move"},
                  {"peer", r.peer.value},
                  {"stage", r.to.stage.value},
                  {"replica", r.to.replica.value},
                  {"reason", r.reason}};
        } else if constexpr (std::is_same_v<R, DealRecord>) {
          json to = json::array();
          for (const auto& [m, session] : r.to) to.push_back({m.value, session.value});
          return {{"record", "deal"}, {"from", r.from.value}, {"to", to}};
        } else if constexpr (std::is_same_v<R, AttemptRecord>) {
          return {{"record", "attempt"}, {"without", stages_of(r.absent)}};
        } else {
          return {{"record", "checkpoint"}, {"stage", r.stage.value}, {"version", r.version}};
        }
      },
      record);
}

PublicKey key_of(const std::string& hex) {
  PublicKey key{};
  if (hex.size() != 64) throw std::invalid_argument("a key has 64 hexadecimal digits");
  for (std::size_t i = 0; i < key.size(); ++i)
    key[i] = static_cast<std::uint8_t>(std::stoul(hex.substr(2 * i, 2), nullptr, 16));
  return key;
}

LogRecord from_json(const json& j) {
  const std::string kind = j.at("record");
  if (kind == "init") return InitRecord{j.at("version")};
  if (kind == "expel") return ExpelRecord{SessionId(j.at("session")), j.at("reason")};
  if (kind == "checkpoint") return CheckpointRecord{StageId(j.at("stage")), j.at("version")};
  if (kind == "attempt") return AttemptRecord{stages_from(j.at("without"))};
  if (kind == "move")
    return MoveRecord{PeerId(j.at("peer")), {StageId(j.at("stage")), ReplicaId(j.at("replica"))}, j.at("reason")};
  if (kind == "deal") {
    DealRecord record{SessionId(j.at("from")), {}};
    for (const auto& deal : j.at("to")) record.to[MicrobatchId(deal.at(0))] = SessionId(deal.at(1));
    return record;
  }
  if (kind == "rollback")
    return RollbackRecord{j.at("version"), j.at("reason"), {StepId(j.at("left_out").at(0)), StepId(j.at("left_out").at(1))}};
  if (kind == "commit") {
    CommitRecord record;
    record.commit = Commit{StepId(j.at("step")), j.at("attempt"), EpochId(j.at("epoch")), j.at("scale"), j.at("apply"), stages_from(j.at("without"))};
    record.absent = stages_from(j.at("next_without"));
    for (const auto& share : j.at("head_share")) record.head_share[SessionId(share.at(0))] = share.at(1);
    record.figures.loss = j.at("loss").is_number() ? j.at("loss").get<double>() : std::nan("");
    record.figures.tokens = j.at("tokens");
    if (j.at("validation_loss").is_number()) record.figures.validation_loss = j.at("validation_loss");
    record.figures.grad_norm = j.at("grad_norm").is_number() ? j.at("grad_norm").get<double>() : std::nan("");
    record.figures.replayed = j.at("replayed");
    record.reason = j.at("reason");
    return record;
  }
  if (kind == "admit")
    return AdmitRecord{Member{PeerId(j.at("peer")), SessionId(j.at("session")),
                              StageId(j.at("stage")), ReplicaId(j.at("replica")),
                              key_of(j.at("key")), Endpoints{j.at("control"), j.at("bulk")}},
                       j.at("version")};
  throw std::invalid_argument("unknown record " + kind);
}

}  // namespace

std::string encode_record(const LogRecord& record) {
  const std::string text = to_json(record).dump();
  return line_checksum(text) + " " + text;
}

Result<LogRecord> decode_record(const std::string& line) {
  if (line.size() < 18 || line[16] != ' ' || line.substr(0, 16) != line_checksum(std::string_view(line).substr(17)))
    return fail("its checksum does not match");
  try {
    return from_json(json::parse(line.substr(17)));
  } catch (const std::exception& error) {
    return fail("{}", error.what());
  }
}

Result<FileLock> FileLock::take(const std::string& path) {
  FileLock lock(::open(path.c_str(), O_RDONLY | O_CREAT | O_CLOEXEC, 0644));
  if (lock.fd_ < 0) return fail("cannot open {}: {}", path, std::strerror(errno));
  if (::flock(lock.fd_, LOCK_EX | LOCK_NB) != 0)
    return fail("{} is in use by another coordinator; stop it first, one run has one coordinator", path);
  return lock;
}

FileLock::~FileLock() {
  if (fd_ >= 0) ::close(fd_);
}

Result<DecisionLog> DecisionLog::open(const std::string& path) {
  // The lock first: opening for appending cuts off a torn line, which may be one that another process is writing.
  auto lock = FileLock::take(path);
  if (!lock) return tl::unexpected(lock.error());
  auto file = LineFile::open(path);
  if (!file) return tl::unexpected(file.error());
  DecisionLog log(std::move(*lock), std::move(*file));
  const auto text = read_whole(path);
  if (!text) return tl::unexpected(text.error());
  std::istringstream lines(*text);
  std::size_t number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    auto record = decode_record(line);
    if (!record)
      return fail("{}:{}: damaged log record: {}; restore the file or start again with another --out",
                  path, number, record.error().message);
    log.records_.push_back(std::move(*record));
  }
  return log;
}

Status DecisionLog::append(const LogRecord& record) {
  return file_.append(encode_record(record)).and_then([&] { return file_.sync(); });
}

}  // namespace isthmus
