// What compilers do not check: who includes whom, and what pure code may not touch (docs/architecture.md).

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;
using Folders = std::set<std::string>;

const std::map<std::string, Folders> kMayInclude = {
    {"base", {}},
    {"config", {"base"}},
    {"compress", {"config", "base"}},
    {"scheduler", {"compress", "config", "base"}},
    {"wire", {"compress", "scheduler", "base"}},
    {"model", {"compress", "config", "base"}},
    {"router", {"wire", "compress", "scheduler", "base"}},
    {"stage", {"model", "compress", "scheduler", "config", "base"}},
    {"sim", {"router", "wire", "compress", "scheduler", "base"}},
    {"app", {"sim", "stage", "router", "model", "wire", "scheduler", "compress", "config", "base"}},
};

struct Line {
  std::string file;
  std::string folder;
  std::string text;
};

std::vector<Line> source_lines() {
  std::vector<Line> lines;
  const fs::path root = ISTHMUS_SOURCE_DIR "/src";
  for (const auto& entry : fs::recursive_directory_iterator(root)) {
    const auto extension = entry.path().extension();
    if (extension != ".h" && extension != ".cpp") continue;
    const std::string file = fs::relative(entry.path(), root).string();
    std::ifstream in(entry.path());
    for (std::string text; std::getline(in, text);) lines.push_back({file, file.substr(0, file.find('/')), text});
  }
  return lines;
}

TEST(Tidy, IncludesOnlyWhatTheArrowsAllow) {
  const std::regex include(R"re(^#include "([a-z_]+)/([a-z_]+\.h)")re");
  std::size_t seen = 0;
  for (const auto& line : source_lines()) {
    std::smatch match;
    if (!std::regex_search(line.text, match, include)) continue;
    ++seen;
    const std::string to = match[1];
    EXPECT_TRUE(to == line.folder || kMayInclude.at(line.folder).contains(to)) << line.file << ": " << line.text;
    // Without libtorch: the one header of compress that the wire needs.
    if (to == "compress" && (line.folder == "wire" || line.folder == "router" || line.folder == "sim")) {
      EXPECT_EQ(match[2], "encoded_tensor.h") << line.file;
    }
  }
  EXPECT_GT(seen, 100u);
}

TEST(Tidy, KeepsLibrariesInTheirFolders) {
  const std::vector<std::pair<std::regex, Folders>> homes = {
      {std::regex("#include <(torch|ATen)/"), {"model", "stage"}},
      {std::regex("#include <(zmq|msgpack)"), {"wire"}},
      {std::regex("#include <(toml\\+\\+)"), {"config"}},
      {std::regex("#include <CLI/"), {"app"}},
      {std::regex("#include <sentencepiece"), {"model"}},
  };
  for (const auto& line : source_lines())
    for (const auto& [library, folders] : homes)
      if (std::regex_search(line.text, library)) {
        EXPECT_TRUE(folders.contains(line.folder)) << line.file << ": " << line.text;
      }
}

TEST(Tidy, KeepsClocksSleepsAndThreadsOutOfPureFolders) {
  const std::regex impure("system_clock|steady_clock|sleep_for|sleep_until|std::thread|std::mutex|getenv|random_device|std::ifstream");
  for (const auto& line : source_lines())
    if (Folders{"scheduler", "router", "compress", "sim"}.contains(line.folder)) {
      EXPECT_FALSE(std::regex_search(line.text, impure)) << line.file << ": " << line.text;
    }
}

// What the README and the documents tell people to start is there and can be started.
TEST(Tidy, ProgramsThatTheDocumentsNameCanBeStarted) {
  const fs::path root = ISTHMUS_SOURCE_DIR;
  const std::regex program(R"re(\b(?:bench/[a-z_]+\.py|script/[a-z]+\b))re");
  std::set<std::string> named;
  for (const char* file : {"README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/convergence.md"}) {
    std::ifstream in(root / file);
    for (std::string text; std::getline(in, text);)
      for (std::sregex_iterator at(text.begin(), text.end(), program), end; at != end; ++at) named.insert(at->str());
  }
  EXPECT_GT(named.size(), 10u);
  for (const auto& name : named) {
    std::error_code error;
    const auto rights = fs::status(root / name, error).permissions();
    EXPECT_TRUE(!error && (rights & fs::perms::owner_exec) != fs::perms::none) << name;
  }
}

}  // namespace
