#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.h"
#include "store/checkpoint_archive.h"
#include "store/disk_checkpoints.h"

namespace isthmus::app {

// Checkpoints of one stage on a worker's disk, and one that the run's vault has: reading that waits until its pieces
// are here, which another thread gets (app/checkpoint_courier.h), and leaves it on the disk like any other.
class VaultedCheckpoints : public store::DiskCheckpoints {
 public:
  VaultedCheckpoints(const store::CheckpointPlace& place, std::uint32_t keep)
      : DiskCheckpoints(place, keep), place_(place) {}
  ~VaultedCheckpoints() override { wait(); }

  const store::CheckpointPlace& place() const { return place_; }

  std::vector<std::uint64_t> versions() const override;
  Result<store::LoadedCheckpoint> read(std::uint64_t version) const override;

  // Of the other thread. The vault has this version; 0: none any more.
  void offer(std::uint64_t version);
  // What somebody waits for; 0: nothing.
  std::uint64_t wanted() const;
  // All of it is here, for whoever waits to unpack, which takes as long as the disk does; or why it is not.
  void arrived(Result<store::ArchiveWriter> archive) const;
  // Nobody waits any longer.
  void close();

 private:
  const store::CheckpointPlace place_;
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  std::uint64_t offered_ = 0;
  mutable std::uint64_t wanted_ = 0;
  mutable std::optional<Result<store::ArchiveWriter>> came_;
  bool closed_ = false;
};

}  // namespace isthmus::app
