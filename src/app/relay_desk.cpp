#include "app/relay_desk.h"

#include <algorithm>
#include <utility>

#include "app/enrolment.h"
#include "process/clock.h"
#include "process/open_files.h"
#include "transport/address.h"

namespace isthmus::app {

namespace {

// The log, checkpoints and the workers' own connections need descriptors, too.
std::size_t streams_most() { return std::min<std::size_t>(process::allow_most_open_files() / 2, 65'536); }

}  // namespace

Result<RelayDesk> RelayDesk::open(const CoordinatorOptions& options, std::uint64_t run_id) {
  RelayDesk desk;
  desk.run_id_ = run_id;
  desk.others_ = options.relays;
  if (options.no_relay || transport::is_loopback(options.host)) return desk;
  relay::RelayServer::Options own;
  own.host = options.host;
  own.port = options.port == 0 ? std::uint16_t{0} : static_cast<std::uint16_t>(options.port + 3);
  own.limits.streams = streams_most();
  own.strangers = own.limits.streams / 16;
  // The same after a restart: workers that did not notice it have passes of before.
  const auto key = relay::keep_key(options.folder.relay_key());
  if (!key) return tl::unexpected(key.error());
  own.key = desk.key_ = *key;
  auto opened = relay::RelayServer::open(own);
  if (!opened) return tl::unexpected(opened.error());
  desk.own_ = std::move(*opened);
  return desk;
}

std::vector<relay::RelayPass> RelayDesk::passes_for(PeerId peer) const {
  std::vector<relay::RelayPass> passes;
  const std::uint64_t expires = process::seconds_since_1970() + kPassSeconds;
  if (own_)
    passes.push_back(
        {fmt::format("{}:{}", kAtCoordinator, own_->port()), relay::make_pass(key_, run_id_, peer, expires)});
  for (const auto& relay : others_)
    passes.push_back({relay.address, relay::make_pass(relay.key, run_id_, peer, expires)});
  return passes;
}

}  // namespace isthmus::app
