#include "app/doctor.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "app/commands/command_line.h"
#include "app/commands/invite_option.h"
#include "app/commands/worker_home.h"

namespace isthmus::app {

namespace {

struct DoctorOptions {
  std::string invite;
  record::WorkerHome home;
  bool as_json = false;
};

const char* name_of(Finding::Kind kind) {
  return kind == Finding::Kind::kGood ? "good" : kind == Finding::Kind::kNote ? "note" : "bad";
}

int doctor(DoctorOptions& options) {
  if (auto found = find_home(options.home); !found) return report(found);
  std::optional<Invite> invite;
  if (auto source = invite_source(options.invite, options.home)) {
    auto looked = source->look();
    if (!looked) return report(tl::unexpected(looked.error()));
    invite = std::move(*looked);
  } else if (!options.invite.empty()) {
    return report(tl::unexpected(source.error()));
  }
  const auto findings = examine(options.home.path, invite);
  const bool bad = std::ranges::any_of(findings, [](const Finding& f) { return f.kind == Finding::Kind::kBad; });
  if (options.as_json) {
    auto lines = nlohmann::json::array();
    for (const auto& f : findings)
      lines.push_back({{"kind", name_of(f.kind)}, {"about", f.about}, {"what", f.what}, {"advice", f.advice}});
    fmt::print("{}\n", nlohmann::json{{"good", !bad}, {"findings", lines}}.dump());
    return bad ? 1 : 0;
  }
  for (const auto& f : findings) {
    fmt::print("{:4}  {:<12}{}\n", name_of(f.kind), f.about, f.what);
    if (!f.advice.empty()) fmt::print("{:6}{:<12}{}\n", "", "", f.advice);
  }
  if (!invite) fmt::print("With an invite it also looks at the way to the run: isthmus doctor INVITE\n");
  return bad ? 1 : 0;
}

}  // namespace

void add_doctor(CommandLine& line) {
  DoctorOptions& options = line.keep<DoctorOptions>();
  auto* command =
      line.app().add_subcommand("doctor", "Whether this machine can take part in a run, and what to do if not");
  command->group("Who takes part");
  command->add_option("INVITE", options.invite,
                      "As for `isthmus join`; it is not used up (default: that of the run that was joined last)");
  add_home(*command, options.home, "Folder of the worker");
  command->add_flag("--json", options.as_json, "Machine-readable output");
  add_example(*command, "isthmus doctor runs/hand/join");
  command->callback([&] { line.chosen = [&] { return doctor(options); }; });
}

}  // namespace isthmus::app
