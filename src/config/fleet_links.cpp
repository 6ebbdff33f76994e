#include "config/fleet_links.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <set>

namespace isthmus::config {

namespace {

std::uint64_t key_of(std::uint32_t a, std::uint32_t b) { return std::uint64_t{std::min(a, b)} << 32 | std::max(a, b); }

const std::string& region_of(const spec::RunSpec::Machine& table) {
  return table.region.empty() ? table.name : table.region;
}

}  // namespace

std::string machine_name(const spec::RunSpec::Machine& table, std::uint32_t number) {
  return table.count == 1 ? table.name : fmt::format("{}.{}", table.name, number);
}

std::optional<std::pair<std::string, std::uint32_t>> numbered_name(const std::string& name) {
  const auto dot = name.find_last_of('.');
  if (dot == std::string::npos) return std::nullopt;
  std::uint32_t number = 0;
  const char* const end = name.data() + name.size();
  const auto read = std::from_chars(name.data() + dot + 1, end, number);
  // 03 and +3 are names of somebody else.
  if (read.ec != std::errc() || read.ptr != end || name.substr(dot + 1) != fmt::format("{}", number))
    return std::nullopt;
  return std::pair(name.substr(0, dot), number);
}

std::uint32_t FleetLinks::id(const std::string& name) {
  return names_.emplace(name, static_cast<std::uint32_t>(names_.size())).first->second;
}

FleetLinks::FleetLinks(const spec::RunSpec::Fleet& fleet) {
  std::unordered_map<std::string, std::size_t> table_of;
  for (std::size_t t = 0; t < fleet.machine.size(); ++t) table_of.emplace(fleet.machine[t].name, t);
  std::vector<std::set<std::uint32_t>> named(fleet.machine.size());  // machines of each table that links name alone
  for (const auto& link : fleet.link)
    for (const auto& name : link.between) {
      if (const auto at = table_of.find(name); at != table_of.end() && fleet.machine[at->second].count == 1)
        named[at->second].insert(0);
      const auto numbered = numbered_name(name);
      const auto at = numbered ? table_of.find(numbered->first) : table_of.end();
      if (at != table_of.end() && fleet.machine[at->second].count > 1 &&
          numbered->second < fleet.machine[at->second].count)
        named[at->second].insert(numbered->second);
    }
  for (std::size_t t = 0; t < fleet.machine.size(); ++t) {
    const auto& table = fleet.machine[t];
    const std::uint32_t region = id(region_of(table));
    // A lone machine is its table.
    const std::uint32_t whole = table.count == 1 ? kNone : id(table.name);
    const auto add_site = [&](const std::string& name, std::uint32_t machines, std::uint32_t own) {
      sites_.push_back({t, name, machines});
      chain_.push_back({region == own || region == whole ? kNone : region, whole, own});
      return static_cast<std::uint32_t>(sites_.size() - 1);
    };
    std::uint32_t& rest = rest_.emplace_back(kNone);
    auto& alone = alone_.emplace_back();
    const auto others = static_cast<std::uint32_t>(table.count - named[t].size());
    const auto add_rest = [&] {
      if (rest == kNone && others > 0) rest = add_site(table.name, others, kNone);
    };
    for (const std::uint32_t number : named[t]) {
      if (number > alone.size()) add_rest();
      const std::string name = machine_name(table, number);
      alone.emplace(number, add_site(name, 1, id(name)));
    }
    add_rest();
  }
  for (std::size_t l = 0; l < fleet.link.size(); ++l) {
    const auto& between = fleet.link[l].between;
    if (between.size() != 2 || !knows(between[0]) || !knows(between[1])) continue;
    const auto [at, added] = link_.emplace(key_of(names_.at(between[0]), names_.at(between[1])), l);
    if (!added) repeated_.emplace_back(l, at->second);
  }
}

std::uint32_t FleetLinks::site_of(std::size_t table, std::uint32_t number) const {
  const auto at = alone_[table].find(number);
  return at == alone_[table].end() ? rest_[table] : at->second;
}

bool FleetLinks::reaches(const std::string& name, std::uint32_t site) const {
  const auto at = names_.find(name);
  return at != names_.end() && std::ranges::find(chain_[site], at->second) != chain_[site].end();
}

FleetLinks::Choice FleetLinks::between(std::uint32_t a, std::uint32_t b) const {
  Choice choice;
  std::size_t best = 0;
  for (std::size_t i = 0; i < 3; ++i)
    for (std::size_t j = 0; j < 3; ++j) {
      if (chain_[a][i] == kNone || chain_[b][j] == kNone) continue;
      const auto at = link_.find(key_of(chain_[a][i], chain_[b][j]));
      if (at == link_.end()) continue;
      if (!choice.link || i + j > best)
        choice = {at->second, std::nullopt};
      else if (i + j == best && at->second != *choice.link)
        choice.rival = at->second;
      best = std::max(best, i + j);
    }
  return choice;
}

}  // namespace isthmus::config
