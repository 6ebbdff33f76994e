#include "record/fleet_file.h"

#include "record/line_file.h"
#include "record/measured_fleet.h"

namespace isthmus::record {

namespace {

constexpr Duration kBetweenLooks = seconds(3);

}  // namespace

Status FleetFile::refresh(const coordinator::RunStatus& status) {
  next_ = status.at + kBetweenLooks;
  std::map<PeerId, protocol::DeviceFigures> devices;
  for (const auto& worker : status.workers)
    if (worker.device.memory_bytes > 0) devices.emplace(worker.peer, worker.device);
  // Nobody has joined yet: what an earlier process wrote is better than nothing.
  if (devices.empty() || (devices == devices_ && status.measurements == measurements_)) return {};
  devices_ = std::move(devices);
  measurements_ = status.measurements;
  return write_whole(path_, measured_fleet(run_, status));
}

}  // namespace isthmus::record
