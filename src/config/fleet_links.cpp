#include "config/fleet_links.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

namespace isthmus {

namespace {

std::uint64_t key_of(std::uint32_t a, std::uint32_t b) {
  return std::uint64_t{std::min(a, b)} << 32 | std::max(a, b);
}

const std::string& region_of(const RunConfig::Machine& table) {
  return table.region.empty() ? table.name : table.region;
}

}  // namespace

std::string machine_name(const RunConfig::Machine& table, std::uint32_t number) {
  return table.count == 1 ? table.name : fmt::format("{}.{}", table.name, number);
}

std::uint32_t FleetLinks::id(const std::string& name) {
  return names_.emplace(name, static_cast<std::uint32_t>(names_.size())).first->second;
}

FleetLinks::FleetLinks(const RunConfig::Fleet& fleet) {
  std::set<std::string> named;
  for (const auto& link : fleet.link) named.insert(link.between.begin(), link.between.end());
  for (std::size_t t = 0; t < fleet.machine.size(); ++t) {
    const auto& table = fleet.machine[t];
    const std::uint32_t region = id(region_of(table));
    // A lone machine is its table.
    const std::uint32_t whole = table.count == 1 ? kNone : id(table.name);
    std::uint32_t rest = kNone;
    auto& site_of = site_of_.emplace_back();
    for (std::uint32_t n = 0; n < table.count; ++n) {
      const std::string name = machine_name(table, n);
      const bool alone = named.contains(name);
      if (alone || rest == kNone) {
        const std::uint32_t own = alone ? id(name) : kNone;
        (alone ? site_of.emplace_back() : rest) = static_cast<std::uint32_t>(sites_.size());
        sites_.push_back({t, alone ? name : table.name, 0});
        chain_.push_back({region == own || region == whole ? kNone : region, whole, own});
      }
      if (!alone) site_of.push_back(rest);
      ++sites_[site_of.back()].machines;
    }
  }
  for (std::size_t l = 0; l < fleet.link.size(); ++l) {
    const auto& between = fleet.link[l].between;
    if (between.size() != 2 || !knows(between[0]) || !knows(between[1])) continue;
    const auto [at, added] = link_.emplace(key_of(names_.at(between[0]), names_.at(between[1])), l);
    if (!added) repeated_.emplace_back(l, at->second);
  }
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

}  // namespace isthmus
