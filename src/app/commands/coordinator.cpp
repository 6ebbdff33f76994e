#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "app/commands/command_line.h"
#include "app/commands/listen_option.h"
#include "app/commands/number_option.h"
#include "app/coordinator_process.h"
#include "app/owner_key.h"
#include "app/run_vault.h"
#include "base/input_file.h"
#include "config/load_run.h"
#include "record/run_folder.h"
#include "scheduler/planner/make_plan.h"
#include "store/vault.h"
#include "transport/address.h"
#include "transport/keys.h"

namespace isthmus::app {

namespace {

struct Wishes {
  std::vector<std::string> advertise, relays;
};

// What cannot be used should leave no run behind.
Status read_vault(CoordinatorOptions& options) {
  if (!options.owner_key.empty())
    if (const auto key = transport::read_key_file(options.owner_key); !key)
      return fail("{}; --owner-key FILE names the owner.key of the run, or a key that owns it from now on",
                  key.error().message);
  // The workers that `train` starts share a folder of checkpoints.
  if (options.vault.empty() && options.control_fd < 0) options.vault = vault_place_of(options.folder);
  if (options.vault.empty() && options.control_fd < 0) options.vault = "vault";
  if (options.vault == "none") options.vault.clear();
  if (options.vault.empty() || options.vault == "vault") return {};
  if (options.vault.find("://") == std::string::npos) options.vault = std::filesystem::absolute(options.vault).string();
  const auto there = store::open_vault(options.vault);
  return there ? Status() : tl::unexpected(there.error());
}

// Where it is reached, and through which relays, as it was written on the command line.
Status read(const Wishes& wishes, CoordinatorOptions& options) {
  auto advertise = read_advertised(wishes.advertise);
  if (!advertise) return tl::unexpected(advertise.error());
  options.advertise = std::move(*advertise);
  if (transport::is_wildcard(options.host) && options.advertise.empty())
    return fail("--listen {} says nothing about where others reach this machine; add --advertise NAME:PORT",
                options.host);
  for (const std::string& text : wishes.relays) {
    const bool is_file = text.find(' ') == text.npos;
    const auto secret = is_file ? read_secret(text, "a relay's name", 4096) : Result<std::string>(text);
    if (!secret) return tl::unexpected(secret.error());
    const auto relay = relay::read_relay(*secret);
    if (!relay) return fail("--relay: {}", relay.error().message);
    options.relays.push_back(*relay);
  }
  return read_vault(options);
}

// A new run's folder is made; one that holds a run has to hold this one, and to be free.
Status prepare(CoordinatorOptions& options, const spec::RunConfig& run, record::FolderClaim& claim) {
  if (record::check_no_run(options.folder)) {
    auto start = record::open_run_folder(options.folder, run, record::Begin::kFresh);
    if (!start) return tl::unexpected(start.error());
    options.begin_at = start->version;
    claim = std::move(start->claim);
    return make_owner_key(options.folder, options.owner_key);
  }
  auto mine = record::FolderClaim::take(options.folder.path);
  if (!mine) return tl::unexpected(mine.error());
  claim = std::move(*mine);
  if (auto owned = make_owner_key(options.folder, options.owner_key); !owned) return owned;
  const auto there = config::load_run(options.folder.run_file());
  if (!there) return fail("{}; restore it", there.error().front().text());
  const auto digest = [](const spec::RunConfig& config) { return planner::make_plan(config).run_id; };
  if (digest(*there) == digest(run)) return {};
  std::string different;
  for (const auto& difference : config::differences(*there, run)) different += "\n  " + difference;
  return fail("{} holds another run; then / now:{}\nchoose another --out, or change the run with `train --resume`",
              options.folder.path, different);
}

}  // namespace

void add_coordinator(CommandLine& line) {
  RunArguments& run = line.keep<RunArguments>();
  CoordinatorOptions& coordinator_options = line.keep<CoordinatorOptions>();
  Wishes& wishes = line.keep<Wishes>();
  auto* coordinator_command = line.app().add_subcommand(
      "coordinator", "Serve a run for as long as it lasts: who takes part, which steps are committed");
  coordinator_command->group("Processes of a run");
  run.add_to(*coordinator_command);
  run.add_host_to(*coordinator_command);
  coordinator_command->add_option("--out", coordinator_options.folder.path, "Folder of the run")->required();
  add_listen(*coordinator_command, coordinator_options.host, "Address of this machine at which workers reach it")
      ->capture_default_str();
  add_port(*coordinator_command, coordinator_options.port);
  coordinator_command
      ->add_option(
          "--advertise", wishes.advertise,
          "NAME or NAME:PORT at which others reach it: what the router's owner or a name service says, and the "
          "first of the ports that are forwarded (default: --listen and --port); up to three times")
      ->allow_extra_args(false);
  coordinator_command->add_flag("--no-relay", coordinator_options.no_relay,
                                "Join no streams of workers that nobody can dial; on loopback it never does");
  coordinator_command
      ->add_option("--relay", wishes.relays,
                   "A relay of others: what `isthmus relay` printed, or a file that holds it; may be repeated")
      ->allow_extra_args(false);
  coordinator_command->add_option("--vault", coordinator_options.vault,
                                  "Where every stage's checkpoints are kept, sealed: a folder, s3://BUCKET/PREFIX "
                                  "(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL_S3), or "
                                  "none: on the workers' disks alone (default: OUT/vault)");
  coordinator_command->add_option("--owner-key", coordinator_options.owner_key,
                                  "The owner's key file, with which the vault is sealed (default: OUT/owner.key)");
  add_number(*coordinator_command, "--expect", coordinator_options.expected,
             "Wait for so many workers, 5 s at most, and seat them in the order of their names; "
             "0: as they come",
             0, 1'000'000);
  // For `isthmus train`, which holds the folder and has prepared it.
  auto* control = add_number(*coordinator_command, "--control-fd", coordinator_options.control_fd,
                             "Descriptor to read commands from", -1, 1'000'000)
                      ->group("");
  add_number(*coordinator_command, "--begin-at", coordinator_options.begin_at,
             "Begin from the weights of this step (default: those of --out)", 0, kSeedMax)
      ->needs(control)
      ->group("");
  add_example(*coordinator_command, "isthmus coordinator configs/webster.toml --out runs/hand");
  coordinator_command->callback([&] {
    line.chosen = [&] {
      return with_named_run(run, [&](const spec::RunConfig& config) {
        if (auto fits = read(wishes, coordinator_options); !fits) return report(fits);
        // Before anything is written: what is missing or broken should leave no run behind.
        auto tokens = TokenServer::open(config);
        if (!tokens) return report(tl::unexpected(tokens.error()));
        record::FolderClaim claim;
        if (coordinator_options.control_fd < 0)
          if (auto ready = prepare(coordinator_options, config, claim); !ready) return report(ready);
        return serve_coordinator(config, coordinator_options, std::move(*tokens));
      });
    };
  });
}

}  // namespace isthmus::app
