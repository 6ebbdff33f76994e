#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "base/result.h"
#include "base/time.h"
#include "scheduler/coordinator/run_status.h"
#include "spec/run_config.h"

namespace isthmus::record {

// Keeps OUT/fleet.toml up to date: what the coordinator knows of machines and links. The file is replaced as a whole.
class FleetFile {
 public:
  FleetFile(std::string path, const spec::RunConfig& run) : path_(std::move(path)), run_(run) {}

  // Whether it is time to look again, every few seconds.
  bool is_due(Time now) const { return now >= next_; }
  // Writes if something new was measured.
  Status refresh(const coordinator::RunStatus& status);

 private:
  const std::string path_;
  const spec::RunConfig run_;
  Time next_{};
  std::map<PeerId, protocol::DeviceFigures> devices_;  // as written
  std::uint64_t measurements_ = 0;
};

}  // namespace isthmus::record
