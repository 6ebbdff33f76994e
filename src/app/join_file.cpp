#include "app/join_file.h"

#include <charconv>
#include <sstream>

#include "base/digest.h"
#include "base/input_file.h"
#include "protocol/endpoints.h"
#include "record/line_file.h"

namespace isthmus::app {

namespace {

constexpr std::uint64_t kJoinFileBytesMax = 4096;

Result<JoinFile> parse(const std::string& path, const std::string& text) {
  const auto bad = [&](const std::string& what) {
    return fail("{} is not a join file: {}; the coordinator of a run writes it into the run's folder", path, what);
  };
  std::istringstream in(text);
  std::string title, number, run, coordinator, seed;
  JoinFile join;
  std::array<std::string, 4> words;
  in >> title >> number >> words[0] >> run >> words[1] >> coordinator >> words[2] >> join.endpoint >> words[3] >> seed;
  if (title != "isthmus-join" || words != std::array<std::string, 4>{"run", "coordinator", "endpoint", "seed"})
    return bad("it does not say isthmus-join, run, coordinator, endpoint, seed");
  if (number != "1") return bad("it is of form " + number + ", this version reads form 1");
  const auto [end, error] = std::from_chars(run.data(), run.data() + run.size(), join.run_id, 16);
  if (error != std::errc() || end != run.data() + run.size()) return bad("run is not a hexadecimal number");
  std::array<std::uint8_t, 32> secret;
  if (!from_hex(coordinator, join.coordinator) || !from_hex(seed, secret))
    return bad("coordinator and seed have 64 hexadecimal digits each");
  if (!join.coordinator_key()) return bad("its coordinator is no Ed25519 key");
  if (!protocol::is_tcp(join.endpoint)) return bad("its endpoint is not tcp://ADDRESS:PORT");
  join.invite = transport::key_pair_of(secret);
  return join;
}

}  // namespace

Status write_join_file(const std::string& path, const JoinFile& join) {
  return record::write_whole(
      path,
      fmt::format("isthmus-join 1\nrun {:016x}\ncoordinator {}\nendpoint {}\nseed {}\n", join.run_id,
                  to_hex(join.coordinator), join.endpoint, to_hex(join.invite.secret_key)),
      0600);
}

Result<JoinFile> read_join_file(const std::string& path) {
  const auto text = read_secret(path, "a run's join file", kJoinFileBytesMax);
  if (!text) return tl::unexpected(text.error());
  return parse(path, *text);
}

}  // namespace isthmus::app
