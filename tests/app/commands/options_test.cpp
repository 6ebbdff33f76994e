// What holds for every command and every option there is.

#include <gmock/gmock.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <iomanip>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "app/commands/command_line.h"
#include "app/commands/number_option.h"

namespace isthmus::app {
namespace {

using testing::HasSubstr;
using Words = std::vector<std::string>;

constexpr char kExample[] = "Example: isthmus ";

// Every command that help shows.
void for_each_command(const CLI::App& app, const std::function<void(const CLI::App&)>& visit) {
  visit(app);
  for (const CLI::App* command : app.get_subcommands(nullptr))
    if (!command->get_group().empty()) for_each_command(*command, visit);
}

// Without the program's name; quoted words are one.
Words example_of(const CLI::App& command) {
  const std::string footer = command.get_footer();
  if (!footer.starts_with(kExample)) return {};
  Words words;
  std::istringstream in(footer.substr(sizeof kExample - 1));
  for (std::string word; in >> std::quoted(word);) words.push_back(word);
  return words;
}

// What the command line says about it; nothing is carried out.
std::string complaint(Words words) {
  CommandLine line;
  try {
    std::ranges::reverse(words);
    line.app().parse(std::move(words));
  } catch (const CLI::ParseError& error) {
    return error.what();
  }
  return "";
}

TEST(Commands, HaveAnExampleThatParses) {
  CommandLine line;
  int seen = 0;
  for_each_command(line.app(), [&](const CLI::App& command) {
    ++seen;
    const Words example = example_of(command);
    ASSERT_FALSE(example.empty()) << command.get_name();
    EXPECT_EQ(complaint(example), "") << command.get_name();
  });
  EXPECT_GT(seen, 14);
}

TEST(Commands, TakeOnlyNumbersThatAreInRange) {
  CommandLine line;
  int seen = 0;
  for_each_command(line.app(), [&](const CLI::App& command) {
    for (const CLI::Option* option : command.get_options()) {
      const std::string name = "--" + (option->get_lnames().empty() ? "" : option->get_lnames().front());
      // Each was added by add_number().
      EXPECT_THAT(option->get_type_name(), testing::Not(testing::AnyOf("INT", "UINT", "FLOAT"))) << name;
      if (option->get_type_name() != kWholeNumber && option->get_type_name() != kRealNumber) continue;
      if (option->get_group().empty()) continue;  // between processes; complaints do not name it
      ++seen;
      Words wrong = {"nan", "-nan", "inf", "-1", "-0.5", "1e400", "99999999999999999999999", "x", "1x", "0x10", " 1"};
      if (option->get_type_name() == kWholeNumber) wrong.insert(wrong.end(), {"1.5", "1e3"});
      for (const auto& text : wrong) {
        Words words = example_of(command);
        std::erase_if(words, [&](const std::string& word) { return word.starts_with(name + "="); });
        words.push_back(name + "=" + text);
        const std::string said = complaint(words);
        EXPECT_THAT(said, testing::AllOf(HasSubstr(name), HasSubstr("number from "))) << command.get_name() << text;
      }
    }
  });
  EXPECT_GT(seen, 20);
}

// What is taken is what was checked: the base is 10.
TEST(Commands, TakeNumbersAsTheyAreWritten) {
  CLI::App app;
  int runs = 7;
  double share = 0.5;
  std::optional<std::uint64_t> step;
  std::vector<std::uint64_t> absent;
  add_number(app, "--runs", runs, "Runs", -100, 100);
  add_number(app, "--share", share, "Share", 0, 1000);
  add_number(app, "--step", step, "Step", 0, kSeedMax);
  add_number(app, "--absent", absent, "Absent", 0, 100)->expected(3);
  EXPECT_EQ(app.get_option("--runs")->get_default_str(), "7");
  EXPECT_EQ(app.get_option("--share")->get_default_str(), "0.5");
  app.parse("", false);
  EXPECT_EQ(runs, 7);
  EXPECT_EQ(step, std::nullopt);
  app.parse("--runs 010 --share 010.25 --step 09223372036854775807 --absent 08 1 010", false);
  EXPECT_EQ(runs, 10);
  EXPECT_EQ(share, 10.25);
  EXPECT_EQ(step, kSeedMax);
  EXPECT_EQ(absent, (std::vector<std::uint64_t>{8, 1, 10}));
  app.parse("--runs -010 --share 0.1", false);
  EXPECT_EQ(runs, -10);
  EXPECT_EQ(share, 0.1);
  EXPECT_THROW(app.parse("--runs 1 --runs 2", false), CLI::ParseError);
  EXPECT_THROW(app.parse("--absent 1 2", false), CLI::ParseError);
}

// Either help shows it, or the description says what happens without the option.
TEST(Commands, TellTheDefaultOfEveryOption) {
  CommandLine line;
  for_each_command(line.app(), [&](const CLI::App& command) {
    for (const CLI::Option* option : command.get_options()) {
      const std::string what = option->get_description();
      if (option->get_type_name().empty()) {  // a flag
        EXPECT_THAT(what, testing::Not(HasSubstr("default"))) << command.get_name() << option->get_name();
        continue;
      }
      EXPECT_THAT(what, testing::Not(HasSubstr("default: none"))) << command.get_name() << option->get_name();
      const bool number = option->get_type_name() == kWholeNumber || option->get_type_name() == kRealNumber;
      const bool told = !option->get_default_str().empty() || what.find("default: ") != std::string::npos;
      EXPECT_TRUE(told || !number || option->get_required()) << command.get_name() << option->get_name();
    }
  });
}

TEST(Commands, SayWhyAPortIsTooHigh) {
  const std::string wrong = "expected a whole number from 0 to 65532: the three ports after it are taken as well";
  for (const char* port : {"65533", "65534", "65535", "65536", "70000"}) {
    EXPECT_EQ(complaint({"train", "run.toml", "--port", port}),
              "--port: \"" + std::string(port) + "\" was given, " + wrong);
    EXPECT_THAT(complaint({"coordinator", "run.toml", "--out", "x", "--port", port}), HasSubstr(wrong));
  }
  EXPECT_EQ(complaint({"train", "run.toml", "--port", "65532"}), "");
  EXPECT_EQ(complaint({"train", "run.toml", "--port", "0"}), "");
}

}  // namespace
}  // namespace isthmus::app
