#pragma once

#include <initializer_list>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "config/load_run.h"

namespace isthmus::config {

// Where something was written.
struct Place {
  int line = 0;  // 0: nowhere in the file
  int column = 0;
  bool is_override = false;
  std::string file{};  // empty: the run file
};

// What is wrong with a run, gathered while it is read and checked. Paths are "section",
// "section.key" or "pipeline.stage[2].layers".
class ProblemList {
 public:
  explicit ProblemList(std::string file) : file_(std::move(file)) {}

  void add(Place place, std::string what, std::string expected);
  // The same, for a value which later checks must leave alone.
  void add(Place place, const std::string& path, std::string what, std::string expected);
  // No problem was added for one of these paths or for what holds it.
  bool sound(std::initializer_list<std::string_view> paths) const;

  bool empty() const { return problems_.empty(); }
  // More are counted, but their sentences would be thrown away.
  bool is_full() const;
  // In the order of the file, then those of a second file and of the overrides; the first hundred and a word about the
  // rest.
  std::vector<Problem> take();

 private:
  std::string file_;
  std::vector<Problem> problems_;
  std::size_t left_out_ = 0;
  std::set<std::string, std::less<>> unsound_;
};

}  // namespace isthmus::config
