// What compilers do not check: who includes whom, and what pure code may not touch (docs/architecture.md).

#include <gtest/gtest.h>

#include <algorithm>
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

// The rooms of docs/architecture.md, lowest floor first.
const std::map<std::string, Folders> kMayInclude = {
    {"base", {}},
    {"process", {"base"}},
    {"spec", {"base"}},
    {"config", {"spec", "base"}},
    {"compress", {"spec", "base"}},
    {"data", {"spec", "base"}},
    {"protocol", {"compress", "base"}},
    {"store", {"compress", "spec", "base"}},
    {"transport", {"protocol", "base"}},
    {"relay", {"transport", "protocol", "process", "base"}},
    {"scheduler/planner", {"protocol", "compress", "config", "spec", "base"}},
    {"scheduler/coordinator", {"protocol", "spec", "base"}},
    {"scheduler/paths", {"config", "base"}},
    {"router", {"protocol", "compress", "base"}},
    {"runner", {"store", "protocol", "compress", "base"}},
    {"wire", {"transport", "protocol", "base"}},
    {"record", {"scheduler/coordinator", "scheduler/planner", "store", "protocol", "config", "spec", "base"}},
    {"sim", {"router", "runner", "store", "wire", "scheduler/coordinator", "protocol", "compress", "base"}},
    {"stage", {"runner", "scheduler/planner", "store", "protocol", "compress", "spec", "process", "base"}},
    {"model", {"store", "compress", "spec", "process", "base"}},
    {"libtorch",
     {"model", "stage", "runner", "scheduler/planner", "store", "protocol", "compress", "spec", "process", "base"}},
    {"lab",
     {"stage", "runner", "record", "wire", "scheduler/paths", "scheduler/coordinator", "scheduler/planner", "protocol",
      "data", "compress", "config", "spec", "process", "base"}},
    {"app",
     {"lab", "sim", "stage", "record", "wire", "router", "runner", "scheduler/coordinator", "scheduler/planner",
      "relay", "transport", "store", "protocol", "data", "config", "spec", "process", "base"}},
};

// Rooms that know only these headers of another one.
const std::map<std::pair<std::string, std::string>, Folders> kOnly = {
    // Without libtorch and codecs: what crosses a link, as bytes.
    {{"protocol", "compress"}, {"encoded_tensor.h"}},
    {{"store", "compress"}, {"encoded_tensor.h"}},
    {{"router", "compress"}, {"encoded_tensor.h"}},
    {{"sim", "compress"}, {"encoded_tensor.h"}},
    {{"runner", "compress"}, {"encoded_tensor.h"}},
    // What lasts, as interfaces: without the disk.
    {{"runner", "store"}, {"checkpoint_store.h", "journal.h"}},
    {{"sim", "store"}, {"checkpoint_store.h", "journal.h"}},
    // A connection knows no message.
    {{"transport", "protocol"}, {"endpoints.h", "priority.h"}},
    {{"relay", "protocol"}, {"endpoints.h"}},
    // Streams are TCP; ZeroMQ does not notice.
    {{"relay", "transport"}, {"address.h"}},
    {{"relay", "process"}, {"clock.h"}},
};

struct Line {
  std::string file;
  std::string room;
  std::string text;
};

// "scheduler/planner/fleet.h" -> "scheduler/planner", "app/commands/train.h" -> "app".
std::string room_of(const std::string& file) {
  const auto slash = file.find('/');
  const std::string folder = file.substr(0, slash);
  return folder == "scheduler" ? file.substr(0, file.find('/', slash + 1)) : folder;
}

std::vector<Line> source_lines() {
  std::vector<Line> lines;
  const fs::path root = ISTHMUS_SOURCE_DIR "/src";
  for (const auto& entry : fs::recursive_directory_iterator(root)) {
    const auto extension = entry.path().extension();
    if (extension != ".h" && extension != ".cpp") continue;
    const std::string file = fs::relative(entry.path(), root).string();
    std::ifstream in(entry.path());
    for (std::string text; std::getline(in, text);) lines.push_back({file, room_of(file), text});
  }
  return lines;
}

TEST(Tidy, IncludesOnlyWhatTheArrowsAllow) {
  const std::regex include(R"re(^#include "([a-z_/]+)/([a-z_]+\.h)")re");
  std::size_t seen = 0;
  for (const auto& line : source_lines()) {
    std::smatch match;
    if (!std::regex_search(line.text, match, include)) continue;
    ++seen;
    const std::string to = room_of(match[1].str() + "/" + match[2].str());
    EXPECT_TRUE(to == line.room || kMayInclude.at(line.room).contains(to)) << line.file << ": " << line.text;
    if (const auto only = kOnly.find({line.room, to}); only != kOnly.end()) {
      EXPECT_TRUE(only->second.contains(match[2])) << line.file << ": " << line.text;
    }
  }
  EXPECT_GT(seen, 100u);
}

// A name is said once: every room has a namespace of its own; base is the house's.
TEST(Tidy, RoomsHaveANamespaceEach) {
  const std::regex opened("^namespace (isthmus[a-z_:]*) \\{");
  std::size_t seen = 0;
  for (const auto& line : source_lines()) {
    std::smatch match;
    if (!std::regex_search(line.text, match, opened)) continue;
    ++seen;
    const std::string name = line.room.substr(line.room.find('/') + 1);
    EXPECT_EQ(match[1], name == "base" ? "isthmus" : "isthmus::" + name) << line.file;
  }
  EXPECT_GT(seen, 100u);
}

// Sources, scripts and build files: what people write, and read in columns.
std::vector<fs::path> written_files() {
  const fs::path root = ISTHMUS_SOURCE_DIR;
  const std::set<std::string> endings = {".cpp", ".h", ".in", ".py", ""};
  std::vector<fs::path> files = {root / "CMakeLists.txt", root / ".ci/run"};
  for (const auto* folder : {"src", "tests", "bench", "script"})
    for (const auto& entry : fs::recursive_directory_iterator(root / folder)) {
      const auto& path = entry.path();
      const bool written = endings.contains(path.extension().string()) || path.filename() == "CMakeLists.txt";
      if (entry.is_regular_file() && written) files.push_back(path);
    }
  return files;
}

// One idea a file.
TEST(Tidy, FilesAreShort) {
  constexpr std::size_t kLinesMax = 450, kColumnsMax = 120;
  std::map<std::string, std::size_t> lines;
  for (const auto& line : source_lines()) ++lines[line.file];
  for (const auto& [file, count] : lines) EXPECT_LE(count, kLinesMax) << file;
  const auto files = written_files();
  EXPECT_GT(files.size(), 500u);
  for (const auto& path : files) {
    const std::string file = fs::relative(path, ISTHMUS_SOURCE_DIR).string();
    if (file == "src/lab/sweep_report.cpp") continue;  // holds a style sheet
    std::ifstream in(path);
    EXPECT_TRUE(in) << file;
    std::size_t number = 0;
    for (std::string text; std::getline(in, text);) {
      ++number;
      if (text.find('\0') != std::string::npos) break;  // not text
      // A byte 10xxxxxx goes on with the character before it.
      const auto columns = std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; });
      EXPECT_LE(static_cast<std::size_t>(columns), kColumnsMax) << file << ":" << number << ": " << text;
    }
  }
}

TEST(Tidy, KeepsLibrariesInTheirFolders) {
  const std::vector<std::pair<std::regex, Folders>> homes = {
      {std::regex("#include <(torch|ATen)/"), {"model", "libtorch"}},
      {std::regex("#include <zmq"), {"transport"}},
      {std::regex("#include <msgpack"), {"wire"}},
      {std::regex("#include <(toml\\+\\+)"), {"config"}},
      {std::regex("#include <CLI/"), {"app"}},
      {std::regex("#include <sentencepiece"), {"data"}},
  };
  for (const auto& line : source_lines())
    for (const auto& [library, folders] : homes)
      if (std::regex_search(line.text, library)) {
        EXPECT_TRUE(folders.contains(line.room)) << line.file << ": " << line.text;
      }
}

const Folders kPure = {
    "compress", "protocol", "scheduler/planner", "scheduler/coordinator", "scheduler/paths", "router", "runner", "sim"};

TEST(Tidy, KeepsClocksSleepsAndThreadsOutOfPureFolders) {
  const std::regex impure(
      "system_clock|steady_clock|sleep_for|sleep_until|std::thread|std::mutex|getenv|random_device|std::ifstream");
  for (const auto& line : source_lines())
    if (kPure.contains(line.room)) {
      EXPECT_FALSE(std::regex_search(line.text, impure)) << line.file << ": " << line.text;
    }
}

// What the README and the documents tell people to start is there and can be started.
TEST(Tidy, ProgramsThatTheDocumentsNameCanBeStarted) {
  const fs::path root = ISTHMUS_SOURCE_DIR;
  std::vector<fs::path> documents = {root / "README.md", root / "CONTRIBUTING.md"};
  for (const auto& entry : fs::recursive_directory_iterator(root / "docs"))
    if (entry.path().extension() == ".md") documents.push_back(entry.path());
  EXPECT_GT(documents.size(), 10u);
  const std::regex program(R"re(\b(?:bench/[a-z_]+\.py|script/[a-z]+\b))re");
  std::set<std::string> named;
  for (const auto& document : documents) {
    std::ifstream in(document);
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
