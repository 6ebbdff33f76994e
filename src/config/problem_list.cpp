#include "config/problem_list.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <tuple>

namespace isthmus::config {

namespace {

// A file of another kind, or a damaged one, is wrong in every line.
constexpr std::size_t kShown = 100;

}  // namespace

std::string Problem::text() const {
  const std::string place = line > 0 ? fmt::format("{}:{}:{}", file, line, column) : file;
  // A suggestion asks; what was expected is stated.
  return fmt::format("{}: {}, {}{}", place, what, expected.ends_with('?') ? "" : "expected ", expected);
}

void ProblemList::add(Place place, std::string what, std::string expected) {
  if (is_full()) {
    ++left_out_;
    return;
  }
  problems_.push_back({place.is_override    ? "--set"
                       : place.file.empty() ? file_
                                            : place.file,
                       place.line, place.column, std::move(what), std::move(expected)});
}

void ProblemList::add(Place place, const std::string& path, std::string what, std::string expected) {
  unsound_.insert(path);
  add(place, std::move(what), std::move(expected));
}

bool ProblemList::sound(std::initializer_list<std::string_view> paths) const {
  for (std::string_view path : paths) {
    while (!path.empty()) {
      if (unsound_.contains(path)) return false;
      const auto end = path.find_last_of(".[");
      path = end == std::string_view::npos ? std::string_view() : path.substr(0, end);
    }
  }
  return true;
}

bool ProblemList::is_full() const { return problems_.size() >= kShown; }

std::vector<Problem> ProblemList::take() {
  // What stands nowhere in the file comes after what does.
  std::ranges::stable_sort(problems_, {}, [&](const Problem& p) {
    const int line = p.line > 0 ? p.line : std::numeric_limits<int>::max();
    return std::tuple(p.file == "--set", p.file != file_, line, p.column);
  });
  if (left_out_ > 0)
    problems_.push_back({file_, 0, 0, fmt::format("there are {} problems more", left_out_),
                         fmt::format("the first {} to be mended first", kShown)});
  return std::move(problems_);
}

}  // namespace isthmus::config
