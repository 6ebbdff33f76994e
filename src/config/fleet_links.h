#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "spec/run_spec.h"

namespace isthmus::config {

// "gpu.3", or "gpu" of a table with one machine.
std::string machine_name(const spec::RunSpec::Machine& table, std::uint32_t number);

// "gpu" and 3 of "gpu.3"; nothing of a name that is not written like this. Which numbers there are is the table's to
// say.
std::optional<std::pair<std::string, std::uint32_t>> numbered_name(const std::string& name);

// Which [[fleet.link]] joins two machines. A link names machines, tables or regions; where several reach a pair, the
// one whose names are narrower counts: machine 2, table 1, region 0, added up. Machines that no link tells apart form a
// site.
class FleetLinks {
 public:
  struct Site {
    std::size_t table;
    std::string name;  // of the machine, if a link names it alone, or of the table
    std::uint32_t machines;
  };
  struct Choice {
    std::optional<std::size_t> link;   // number of the [[fleet.link]]; nothing: a hole
    std::optional<std::size_t> rival;  // another one that is as narrow
  };

  // Names that nobody has are left out, and so is the second link of two for the same names. Takes time and memory for
  // tables and links, not for each machine.
  explicit FleetLinks(const spec::RunSpec::Fleet& fleet);

  const std::vector<Site>& sites() const { return sites_; }
  std::uint32_t site_of(std::size_t table, std::uint32_t number) const;
  // Of a name in a link.
  bool knows(const std::string& name) const { return names_.contains(name); }
  // Whether the name, of a link, stands for the site's machines among others.
  bool reaches(const std::string& name, std::uint32_t site) const;
  Choice between(std::uint32_t a, std::uint32_t b) const;
  // Links for the names of an earlier one, and that one.
  const std::vector<std::pair<std::size_t, std::size_t>>& repeated() const { return repeated_; }

 private:
  static constexpr std::uint32_t kNone = ~0u;
  std::uint32_t id(const std::string& name);

  std::vector<Site> sites_;
  std::vector<std::array<std::uint32_t, 3>>
      chain_;  // per site, ids of region, table and machine; kNone: as the one before
  // Per table: the site of the machines that no link names alone, or kNone, and of those that one does.
  std::vector<std::uint32_t> rest_;
  std::vector<std::map<std::uint32_t, std::uint32_t>> alone_;
  std::unordered_map<std::string, std::uint32_t> names_;
  std::unordered_map<std::uint64_t, std::size_t> link_;  // by the ids of both names
  std::vector<std::pair<std::size_t, std::size_t>> repeated_;
};

}  // namespace isthmus::config
