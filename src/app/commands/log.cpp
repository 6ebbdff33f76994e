#include <fmt/format.h>

#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>

#include "app/commands/command_line.h"
#include "base/digest.h"
#include "record/line_file.h"
#include "record/run_folder.h"
#include "record/signed_lines.h"

namespace isthmus::app {

namespace {

struct VerifyOptions {
  record::RunFolder folder;
  std::string signer;  // expected; empty: whoever the first line names
  bool as_json = false;
};

nlohmann::json as_json(const record::CheckedLines& log) {
  return {{"whole", true},
          {"lines", log.number},
          {"signer", to_hex(log.signer)},
          {"last_hash", log.last_hash},
          {"torn", log.torn}};
}

std::string as_text(const std::string& path, const record::CheckedLines& log) {
  return fmt::format("{}: {} lines, all good; signed by {}\nhash of the last line: {}\n{}", path, log.number,
                     to_hex(log.signer), log.last_hash,
                     log.torn ? "an unfinished line follows, upon which nobody acted\n" : "");
}

int verify(const VerifyOptions& options) {
  const std::string path = options.folder.decision_log();
  const auto text = record::read_whole(path, record::kLogBytesMax);
  if (!text) return report(tl::unexpected(text.error()));
  auto checked = record::check_lines(*text, record::Signatures::kAll);
  if (checked && checked->number == 0)
    checked = tl::unexpected(record::LineFlaw{1, "is missing: the log is empty"});
  else if (checked && !options.signer.empty() && options.signer != to_hex(checked->signer))
    checked = tl::unexpected(
        record::LineFlaw{1, fmt::format("names {} as the signer, not {}", to_hex(checked->signer), options.signer)});
  if (options.as_json)
    fmt::print(
        "{}\n",
        (checked ? as_json(*checked)
                 : nlohmann::json{{"whole", false}, {"line", checked.error().line}, {"what", checked.error().what}})
            .dump());
  else if (checked)
    fmt::print("{}", as_text(path, *checked));
  else
    fmt::print("{}: line {} {}\n", path, checked.error().line, checked.error().what);
  return checked ? 0 : 1;
}

}  // namespace

void add_log(CommandLine& line) {
  VerifyOptions& options = line.keep<VerifyOptions>();
  auto* log_command = line.app().add_subcommand("log", "What the coordinator of a run has decided");
  log_command->require_subcommand(1);
  add_example(*log_command, "isthmus log verify runs/mine");
  auto* verify_command = log_command->add_subcommand(
      "verify", "Find the first line of a run's log that was changed, dropped, moved or added since it was written");
  verify_command->add_option("DIR", options.folder.path, "Folder of the run")->required();
  verify_command->add_option("--signer", options.signer,
                             "Whose log it has to be, 64 hexadecimal digits (default: whoever its first line names)");
  verify_command->add_flag("--json", options.as_json, "Machine-readable output");
  add_example(*verify_command, "isthmus log verify runs/mine");
  verify_command->callback([&] { line.chosen = [&] { return verify(options); }; });
}

}  // namespace isthmus::app
