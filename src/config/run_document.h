#pragma once

#include <toml++/toml.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/problem_list.h"

namespace isthmus::config {

inline constexpr std::size_t kRunFileBytesMax = 1 << 20;

// A run file and its overrides as one TOML tree that knows where each value was written. Hostile
// text is safe: its size and its nesting are limited before the parser sees it.
class RunDocument {
 public:
  // Nothing if the text is no TOML; the reason is then in `problems`, as are overrides that cannot
  // be understood.
  static std::optional<RunDocument> parse(std::string_view text, const std::vector<std::string>& overrides,
                                          ProblemList& problems);

  // What one machine decides for itself, from a file of its own: in the place of this one's, not of an override.
  void take_host(std::string_view text, const std::string& file, ProblemList& problems);

  // Of a run that goes on, as its folder holds it: values that this file leaves open and that would otherwise follow
  // from keys which a continuation may change.
  void take_open(std::string_view text, const std::string& file, ProblemList& problems);

  // Machines and links of another file in the place of this one's. They are the replicas, so that those of this file go
  // as well.
  void take_fleet(std::string_view text, const std::string& file, ProblemList& problems);

  const toml::table& root() const { return root_; }
  // The value at "section.key" or "pipeline.stage[2].layers"; null if there is none. Known keys
  // only.
  const toml::node* find(const std::string& path) const;
  bool has(const std::string& path) const { return find(path) != nullptr; }
  // Where the value was written, or, if it was not, what should hold it.
  Place place(const std::string& path) const;

  static Place place_of(const toml::source_region& region);

 private:
  // Moves the value here.
  void put(const std::string& section, const std::string& key, toml::node& value);
  void override_with(const std::string& text, ProblemList& problems);
  void drop_replaced();
  void drop_from_file(const std::string& section, const std::string& key);
  bool is_override(const std::string& path) const;

  toml::table root_;
};

}  // namespace isthmus::config
