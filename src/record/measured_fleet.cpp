#include "record/measured_fleet.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <vector>

namespace isthmus::record {

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

std::string part_text(const char* part, const protocol::OperationCosts& costs) {
  return costs.total() == Duration{} ? "" : fmt::format("{}_ms = {:.6g}\n", part, milliseconds(costs.total()));
}

std::string machine_text(const coordinator::RunStatus::Worker& worker) {
  const protocol::DeviceFigures& device = worker.device;
  std::string text = fmt::format(
      "\n[[fleet.machine]]\nname = \"{}\"\nregion = \"{}\"\nmemory_gb = {:.6g}\nforward_ms = {:.6g}\ninput_gradient_ms "
      "= {:.6g}\nweight_gradient_ms = {:.6g}\n",
      name_of(worker.peer), kRegion, static_cast<double>(device.memory_bytes) * 1e-9,
      milliseconds(device.layer.forward), milliseconds(device.layer.input_gradient),
      milliseconds(device.layer.weight_gradient));
  if (worker.rates.up > 0)
    text +=
        fmt::format("uplink_mbps = {:.6g}\ndownlink_mbps = {:.6g}\n", mbps(worker.rates.up), mbps(worker.rates.down));
  return text + part_text("embedding", device.embedding) + part_text("head", device.head);
}

std::string link_text(const std::string& a, const std::string& b, double rate, double latency_ms,
                      const std::string& remark) {
  return fmt::format("\n[[fleet.link]] # {}\nbetween = [\"{}\", \"{}\"]\nmbps = {:.6g}\nlatency_ms = {:.6g}\n", remark,
                     a, b, rate, latency_ms);
}

}  // namespace

std::string measured_fleet(const spec::RunConfig& run, const coordinator::RunStatus& status) {
  std::string text = fmt::format(
      "# Machines and links of the run {} as they were measured; `isthmus plan RUN.toml --measured` takes them.\n"
      "# Times are those of a layer when the worker started, memory is what was available then. Rates are the "
      "payload's,\n"
      "# the best of a few messages that wait for training, so that a busy link has more.\n",
      run.run.name);
  std::set<PeerId> machines;
  for (const auto& worker : status.workers) {
    if (worker.device.memory_bytes == 0 || machines.size() == kMachinesMax) continue;
    machines.insert(worker.peer);
    text += machine_text(worker);
  }
  std::vector<coordinator::RunStatus::Link> links = status.links;
  std::erase_if(links, [&](const auto& link) { return !machines.contains(link.a) || !machines.contains(link.b); });
  if (links.empty()) return text;
  std::ranges::stable_sort(links, {}, [](const auto& link) { return link.link.age; });
  links.resize(std::min(links.size(), kLinksMax));
  text += link_text(kRegion, kRegion, run.link.bandwidth_mbps, run.link.latency_ms,
                    "pairs that were not measured: [link] of the run");
  for (const auto& [a, b, link] : links)
    text += link_text(name_of(a), name_of(b), mbps(link.bits_per_second), to_seconds(link.latency) * 1e3,
                      fmt::format("measured {:.0f} s before this was written", to_seconds(link.age)));
  return text;
}

}  // namespace isthmus::record
