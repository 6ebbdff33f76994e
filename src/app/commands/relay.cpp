#include <spdlog/spdlog.h>
#include <sys/poll.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string>

#include "app/commands/command_line.h"
#include "app/commands/number_option.h"
#include "process/open_files.h"
#include "process/signals.h"
#include "record/line_file.h"
#include "relay/pass.h"
#include "relay/relay_server.h"
#include "transport/address.h"

namespace isthmus::app {

namespace {

struct RelayOptions {
  std::string listen = "0.0.0.0:7010", advertise, home;
  double megabits = 0;
  std::uint32_t streams = 65'536;
};

constexpr int kTellEvery = 60'000;  // milliseconds

int serve_relay(const RelayOptions& options) {
  process::catch_signals();
  const auto address = transport::read_address(options.listen);
  if (!address || !address->is_numeric())
    return report(fail("--listen {}: expected ADDRESS:PORT, such as 0.0.0.0:7010", options.listen));
  const std::string named = options.advertise.empty() ? options.listen : options.advertise;
  const auto outside = transport::read_address(named);
  if (!outside || !outside->is_numeric() || transport::is_wildcard(outside->host))
    return report(fail("workers have to be told one address of this machine; add --advertise ADDRESS:PORT"));
  std::error_code error;
  std::filesystem::create_directories(options.home, error);
  if (error) return report(fail("cannot make the folder {}: {}", options.home, error.message()));
  const auto key = relay::keep_key(options.home + "/relay.key");
  if (!key) return report(tl::unexpected(key.error()));
  relay::RelayServer::Options server;
  server.host = address->host;
  server.port = address->port;
  server.key = *key;
  constexpr std::uint64_t kOthers = 64;
  server.limits.streams = std::min<std::uint64_t>(options.streams, process::allow_most_open_files() - kOthers);
  server.strangers = std::min<std::size_t>(server.strangers, server.limits.streams / 8);
  server.bytes_per_second = options.megabits * 1e6 / 8;
  auto opened = relay::RelayServer::open(server);
  if (!opened) return report(tl::unexpected(opened.error()));
  const std::string name = relay::relay_text({outside->text(), *key}) + "\n";
  if (auto kept = record::write_whole(options.home + "/name", name, 0600); !kept) return report(kept);
  fmt::print("{}", name);
  std::fflush(stdout);
  spdlog::info("relays streams at {}; coordinators name it with --relay and the line above, or {}/name; it is a secret",
               options.listen, options.home);
  relay::RelayServer::Figures before;
  while (process::received_signal() == 0) {
    pollfd signal{process::signal_descriptor(), POLLIN, 0};
    (void)::poll(&signal, 1, kTellEvery);
    const auto now = (*opened)->figures();
    if (now.bytes != before.bytes || now.registered != before.registered || now.refused != before.refused)
      spdlog::info("{} workers registered, {} streams, {} joined and {:.1f} MB since the start, {} refused",
                   now.registered, now.streams, now.joined, static_cast<double>(now.bytes) * 1e-6, now.refused);
    before = now;
  }
  return 0;
}

}  // namespace

void add_relay(CommandLine& line) {
  RelayOptions& options = line.keep<RelayOptions>();
  auto* command =
      line.app().add_subcommand("relay", "Join the streams of workers that nobody can dial; it sees ciphertext only");
  command->group("Processes of a run");
  command->add_option("--listen", options.listen, "ADDRESS:PORT")->capture_default_str();
  command->add_option("--advertise", options.advertise,
                      "ADDRESS:PORT at which workers reach it (default: as --listen)");
  command->add_option("--home", options.home, "Folder of its key")->required();
  add_number(*command, "--up-to", options.megabits, "Mb/s for each worker; 0: as much as comes", 0, 1e6);
  add_number(*command, "--streams", options.streams, "Streams at once, of all workers", 2, 1'000'000);
  add_example(*command, "isthmus relay --listen 0.0.0.0:7010 --advertise 203.0.113.9:7010 --home relay");
  command->callback([&] { line.chosen = [&] { return serve_relay(options); }; });
}

}  // namespace isthmus::app
