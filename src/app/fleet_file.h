#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "base/result.h"
#include "base/time.h"
#include "config/run_config.h"
#include "scheduler/coordinator.h"

namespace isthmus {

// Keeps OUT/fleet.toml up to date: what the coordinator knows of machines and links. The file is replaced as a whole.
class FleetFile {
 public:
  FleetFile(std::string path, const RunConfig& run) : path_(std::move(path)), run_(run) {}

  // Writes if something new was measured, now and then; with `at_once`, without waiting.
  Status refresh(const Coordinator& coordinator, Time now, bool at_once);

 private:
  const std::string path_;
  const RunConfig run_;
  Time next_{};
  std::map<PeerId, DeviceFigures> devices_;  // as written
  std::uint64_t recorded_ = 0;
};

}  // namespace isthmus
