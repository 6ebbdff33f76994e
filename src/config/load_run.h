#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <vector>

#include "spec/run_config.h"

namespace isthmus::config {

// One thing wrong with a run file.
struct Problem {
  std::string file;  // or "--set" for an override
  int line = 0;      // 0: no place in the file (a missing table, an override)
  int column = 0;
  std::string what;      // unknown key "rnak" in boundary; boundary.rank is 300
  std::string expected;  // did you mean "rank"?; at most model.hidden = 256
  // "file:line:column: what, expected …", or the suggestion as it is.
  std::string text() const;
};

// Reads, checks and resolves a run file: defaults, mlp, factored_layers, and the layer map, after
// which layout is "explicit", except in a run with machines: replicas and how they agree are left to
// scheduler/planner/plan_fleet.h, and with layout = "auto" the map, which is empty. Returns every problem at once, in
// the order of the file; of a file that is wrong throughout, the first hundred. A missing or unreadable file, or one
// above 1 MiB, is a problem too. Opens no other file.
//
// `overrides` are "section.key=value" (TOML values; a bare word is a string) and go through the
// same checks. One that chooses another codec, device or layout than the file takes the file's keys
// for the old one out: boundary.rank and factored_layers with boundary.codec=identity, [emulated]
// with pipeline.device=cpu or cuda, [[pipeline.stage]] with pipeline.layout=auto.
//
// A relative path of [data] in a file starts at that file's folder; one of an override is left as it is.
//
// `measured`: a file of a fleet's tables alone, such as a run leaves behind as fleet.toml; empty: none. Its machines
// and links stand in the place of the run file's, and of its replica counts.
tl::expected<spec::RunConfig, std::vector<Problem>> load_run(const std::string& path,
                                                             const std::vector<std::string>& overrides = {},
                                                             const std::string& measured = {});
struct FileText {
  std::string text;
  std::string file;
};
tl::expected<spec::RunConfig, std::vector<Problem>> parse_run(std::string_view text, const std::string& file,
                                                              const std::vector<std::string>& overrides = {},
                                                              const FileText* measured = nullptr);

// The files that a run is read from; empty: there is none.
struct RunFiles {
  std::string run;
  std::vector<std::string> overrides{};
  std::string measured{};  // as above
  std::string host{};      // keys of this machine alone (configs/host.schema.json), in the place of the run file's
  // run.toml in the folder of a run that goes on: the length of the schedule and how replicas agree stay what they are
  // there, unless the run file says otherwise.
  std::string earlier{};
};
// Their texts, for what is found out only once it is planned.
struct RunSource {
  std::string text;
  std::string file;
  std::vector<std::string> overrides{};
  std::optional<FileText> measured{}, host{}, earlier{};
};
// The first half of load_run: reads the files.
tl::expected<RunSource, std::vector<Problem>> run_source(const RunFiles& files);
// The second one.
tl::expected<spec::RunConfig, std::vector<Problem>> parse_run(const RunSource& source);

// What is wrong with overrides that may name only what is one machine's own (configs/host.schema.json).
std::vector<Problem> host_override_problems(const std::vector<std::string>& overrides);

// The device that the text of a host file names; empty if it names none. What is wrong with the file is found when a
// run is parsed with it.
std::string host_device(std::string_view text);

// Something wrong with the value at "section.key" or "pipeline.stage[2].layers", or with what is missing there.
struct KeyProblem {
  std::string path;
  std::string what;
  std::string expected;
};
// The same at the lines of the run's files. REQUIRES: they have been parsed without a problem.
std::vector<Problem> problems_at(const RunSource& source, const std::vector<KeyProblem>& problems);

// The run that a planner made of one, checked as if its layer map had been written by hand: what is wrong, at the keys
// of the file that it comes from; nothing, if all is well. REQUIRES: as above.
std::vector<Problem> problems_of_planned(const RunSource& source, const spec::RunConfig& planned);

// The resolved run as a run file that load_run reads back to an equal RunConfig. The paths of [data] are written as
// seen from `folder`, where the file is going to be; empty: as they are.
std::string resolved_toml(const spec::RunConfig& run, const std::string& folder = {});
// Of these the run's half, as all its processes get it, and of this machine's half what a worker needs, as a host file:
// all but the shards.
std::string spec_toml(const spec::RunSpec& spec);
std::string host_toml(const spec::RunConfig& run);
// The same as a JSON text, for summary.json.
std::string resolved_json(const spec::RunConfig& run);

// What a run is known by: a digest (hexadecimal) of all that its processes must agree on, and of nothing else.
// REQUIRES: a resolved run.
std::string spec_digest(const spec::RunSpec& spec);

// Names every key in which the two differ, as "train.learning_rate: 0.001 / 0.002"; empty when
// equal.
std::vector<std::string> differences(const spec::RunSpec& a, const spec::RunSpec& b);

}  // namespace isthmus::config
