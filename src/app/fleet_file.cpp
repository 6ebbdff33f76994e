#include "app/fleet_file.h"

#include "app/line_file.h"
#include "scheduler/measured_fleet.h"

namespace isthmus {

namespace {

constexpr Duration kBetweenWrites = seconds(3);

}  // namespace

Status FleetFile::refresh(const Coordinator& coordinator, Time now, bool at_once) {
  if (now < next_ && !at_once) return {};
  std::map<PeerId, DeviceFigures> devices;
  for (const auto& [peer, report] : coordinator.reports())
    if (report.device.memory_bytes > 0) devices.emplace(peer, report.device);
  const std::uint64_t recorded = coordinator.survey().recorded();
  // Nobody has joined yet: what an earlier process wrote is better than nothing.
  if (devices.empty() || (devices == devices_ && recorded == recorded_)) return {};
  next_ = now + kBetweenWrites;
  devices_ = std::move(devices);
  recorded_ = recorded;
  return write_whole(path_, measured_fleet(run_, coordinator.reports(), coordinator.survey(), now));
}

}  // namespace isthmus
