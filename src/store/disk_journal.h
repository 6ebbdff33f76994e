#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "base/disk_sync.h"
#include "store/journal.h"

namespace isthmus::store {

// The journal on disk: one file per step below `folder`.
//
// An entry is 64 bytes of header, little-endian — magic, attempt, step (8), microbatch, 1 if a gradient, bytes of
// values, bytes of tokens, codec, era, the payload's digest (16), XXH3 of all before it and the payload (8); 4 bytes
// each where nothing is said — and the payload: values, then tokens.
class DiskJournal final : public Journal {
 public:
  // Finds what an earlier life of this worker left there; what is torn or damaged is not taken. `limit`: bytes.
  static Result<DiskJournal> open(const std::string& folder, std::uint64_t limit);
  DiskJournal(DiskJournal&&) = default;  // what was moved from can only be destroyed
  DiskJournal& operator=(DiskJournal&&) = delete;

  Status append(const Key& key, const compress::EncodedTensor& tensor) override;
  Status sync() override { return sync_->wait(); }
  std::optional<compress::EncodedTensor> find(const Key& key) const override;
  void trim(std::uint64_t version) override;

  std::uint64_t bytes() const { return bytes_; }

 private:
  struct Place {
    std::uint64_t offset = 0;
    std::uint32_t values = 0;
    std::uint32_t tokens = 0;
    compress::PayloadHeader header;
  };
  DiskJournal(std::string folder, std::uint64_t limit) : folder_(std::move(folder)), limit_(limit) {}
  std::string file_of(StepId step) const;
  void read_index(StepId step);
  Status use(StepId step);
  void remove(StepId step);
  void make_room(StepId current);

  std::string folder_;
  std::uint64_t limit_;
  std::map<Key, Place> index_;
  std::map<StepId, std::uint64_t> sizes_;  // of the files
  std::uint64_t bytes_ = 0;
  std::shared_ptr<const OpenFile> open_;  // of the step that is being written
  std::unique_ptr<DiskSync> sync_ = std::make_unique<DiskSync>();
};

}  // namespace isthmus::store
