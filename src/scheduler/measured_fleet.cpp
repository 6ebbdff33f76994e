#include "scheduler/measured_fleet.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

namespace isthmus {

namespace {

// What configs/run.schema.json allows.
constexpr std::size_t kMachinesMax = 1024;
constexpr std::size_t kLinksMax = 4000;
constexpr double kMbpsMin = 1e-3;
constexpr double kMbpsMax = 1e6;
// Nothing is free: the planner divides by it.
constexpr double kMillisecondsMin = 1e-6;
constexpr const char* kRegion = "everywhere";

double milliseconds(Duration time) { return std::max(kMillisecondsMin, to_seconds(time) * 1e3); }
double mbps(double bits_per_second) { return std::clamp(bits_per_second * 1e-6, kMbpsMin, kMbpsMax); }
std::string name_of(PeerId peer) { return fmt::format("worker-{}", peer); }

std::string part_text(const char* part, const OperationCosts& costs) {
  return costs.total() == Duration{} ? "" : fmt::format("{}_ms = {:.6g}\n", part, milliseconds(costs.total()));
}

std::string machine_text(PeerId peer, const DeviceFigures& device, const LinkSurvey::Rates& rates) {
  std::string text = fmt::format("\n[[fleet.machine]]\nname = \"{}\"\nregion = \"{}\"\nmemory_gb = {:.6g}\nforward_ms = {:.6g}\ninput_gradient_ms = {:.6g}\nweight_gradient_ms = {:.6g}\n",
                                 name_of(peer), kRegion, static_cast<double>(device.memory_bytes) * 1e-9, milliseconds(device.layer.forward),
                                 milliseconds(device.layer.input_gradient), milliseconds(device.layer.weight_gradient));
  if (rates.up > 0) text += fmt::format("uplink_mbps = {:.6g}\ndownlink_mbps = {:.6g}\n", mbps(rates.up), mbps(rates.down));
  return text + part_text("embedding", device.embedding) + part_text("head", device.head);
}

std::string link_text(const std::string& a, const std::string& b, double rate, double latency_ms, const std::string& remark) {
  return fmt::format("\n[[fleet.link]] # {}\nbetween = [\"{}\", \"{}\"]\nmbps = {:.6g}\nlatency_ms = {:.6g}\n", remark, a, b, rate, latency_ms);
}

}  // namespace

std::string measured_fleet(const RunConfig& run, const std::map<PeerId, Report>& reports, const LinkSurvey& survey, Time now) {
  std::string text = fmt::format("# Machines and links of the run {} as they were measured; `isthmus plan RUN.toml --measured` takes them.\n"
                                 "# Times are those of a layer when the worker started, memory is what was available then. Rates are the payload's,\n"
                                 "# the best of a few messages that wait for training, so that a busy link has more.\n",
                                 run.run.name);
  std::vector<PeerId> peers;
  for (const auto& [peer, report] : reports) {
    if (report.device.memory_bytes == 0 || peers.size() == kMachinesMax) continue;
    peers.push_back(peer);
    text += machine_text(peer, report.device, survey.rates_of(peer));
  }
  struct Measured {
    std::size_t a, b;
    PairLink link;
  };
  std::vector<Measured> measured;
  const LinkMatrix links = survey.links(peers, now);
  for (std::uint32_t a = 0; a < peers.size(); ++a)
    for (std::uint32_t b = a + 1; b < peers.size(); ++b)
      if (const PairLink& link = links.at(a, b); link.age != Duration::max()) measured.push_back({a, b, link});
  if (measured.empty()) return text;
  std::ranges::stable_sort(measured, {}, [](const Measured& m) { return m.link.age; });
  measured.resize(std::min(measured.size(), kLinksMax));
  text += link_text(kRegion, kRegion, run.link.bandwidth_mbps, run.link.latency_ms, "pairs that were not measured: [link] of the run");
  for (const auto& [a, b, link] : measured)
    text += link_text(name_of(peers[a]), name_of(peers[b]), mbps(link.bits_per_second), to_seconds(link.latency) * 1e3,
                      fmt::format("measured {:.0f} s before this was written", to_seconds(link.age)));
  return text;
}

}  // namespace isthmus
