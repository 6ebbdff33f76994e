#include "app/roster_file.h"

#include <nlohmann/json.hpp>

#include "app/line_file.h"
#include "base/digest.h"

namespace isthmus {

using nlohmann::json;

namespace {

PublicKey key_from(const json& j) {
  const std::string hex = j;
  if (hex.size() != 64 || hex.find_first_not_of("0123456789abcdef") != std::string::npos)
    throw std::invalid_argument("a key has 64 hexadecimal digits, not '" + hex + "'");
  PublicKey key{};
  for (std::size_t i = 0; i < key.size(); ++i)
    key[i] = static_cast<std::uint8_t>(std::stoul(hex.substr(2 * i, 2), nullptr, 16));
  return key;
}

}  // namespace

std::vector<Seat> seats_of(const RunConfig& run) {
  std::vector<Seat> seats;
  for (std::uint32_t stage = 0; stage < run.pipeline.stage.size(); ++stage)
    for (std::uint32_t replica = 0; replica < run.pipeline.stage[stage].replicas; ++replica)
      seats.push_back(Seat{PeerId(static_cast<std::uint32_t>(seats.size()) + 1), StageId(stage),
                           ReplicaId(replica), {}});
  return seats;
}

Status write_roster(const std::string& path, const RosterFile& roster) {
  json j = {{"coordinator", to_hex(roster.coordinator)}, {"workers", json::array()}};
  for (const auto& seat : roster.seats)
    j["workers"].push_back({{"peer", seat.peer.value},
                            {"stage", seat.stage.value},
                            {"replica", seat.replica.value},
                            {"key", to_hex(seat.key)}});
  return write_whole(path, j.dump(2) + "\n");
}

Result<RosterFile> read_roster(const std::string& path) {
  const auto text = read_whole(path);
  if (!text) return tl::unexpected(text.error());
  try {
    const json j = json::parse(*text);
    RosterFile roster;
    roster.coordinator = key_from(j.at("coordinator"));
    for (const auto& w : j.at("workers"))
      roster.seats.push_back(Seat{PeerId(w.at("peer")), StageId(w.at("stage")),
                                  ReplicaId(w.at("replica")), key_from(w.at("key"))});
    return roster;
  } catch (const std::exception& error) {
    return fail("{} is not a roster: {}; it is written when a run starts", path, error.what());
  }
}

}  // namespace isthmus
