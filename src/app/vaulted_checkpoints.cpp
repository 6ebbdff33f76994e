#include "app/vaulted_checkpoints.h"

#include <algorithm>

namespace isthmus::app {

std::vector<std::uint64_t> VaultedCheckpoints::versions() const {
  auto versions = DiskCheckpoints::versions();
  const std::lock_guard lock(mutex_);
  if (offered_ != 0 && std::ranges::find(versions, offered_) == versions.end()) versions.push_back(offered_);
  std::ranges::sort(versions);
  return versions;
}

// What is damaged here may be whole there.
Result<store::LoadedCheckpoint> VaultedCheckpoints::read(std::uint64_t version) const {
  auto here = DiskCheckpoints::read(version);
  std::unique_lock lock(mutex_);
  if (here || offered_ != version || closed_) return here;
  wanted_ = version;
  came_.reset();
  changed_.wait(lock, [&] { return closed_ || came_; });
  wanted_ = 0;
  if (!came_) return here;
  auto archive = std::move(*came_);
  lock.unlock();
  const auto unpacked = archive.and_then([](store::ArchiveWriter& writer) { return writer.unpack(); });
  if (!unpacked) return tl::unexpected(unpacked.error());
  return DiskCheckpoints::read(version);
}

void VaultedCheckpoints::offer(std::uint64_t version) {
  const std::lock_guard lock(mutex_);
  offered_ = version;
}

std::uint64_t VaultedCheckpoints::wanted() const {
  const std::lock_guard lock(mutex_);
  return came_ ? 0 : wanted_;
}

void VaultedCheckpoints::arrived(Result<store::ArchiveWriter> archive) const {
  const std::lock_guard lock(mutex_);
  came_ = std::move(archive);
  changed_.notify_all();
}

void VaultedCheckpoints::close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  changed_.notify_all();
}

}  // namespace isthmus::app
