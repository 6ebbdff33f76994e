#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "base/disk_sync.h"
#include "base/ids.h"
#include "base/result.h"
#include "compress/encoded_tensor.h"

namespace isthmus {

// What a worker sent to its neighbours, on disk, for the day on which a neighbour stage loses all its replicas: one
// file per step below `folder`, bounded in size (the oldest steps go first). Owned by the compute thread.
//
// An entry is 40 bytes of header, little-endian — magic, attempt, step (8), microbatch, 1 if a gradient, bytes of values,
// bytes of tokens, XXH3 of all before it and the payload (8) — and the payload: values, then tokens.
class Journal {
 public:
  struct Key {
    StepId step;
    std::uint32_t attempt = 0;
    MicrobatchId microbatch;
    bool gradient = false;  // sent back; otherwise sent forward
    friend auto operator<=>(const Key&, const Key&) = default;
  };

  // Finds what an earlier life of this worker left there; what is torn or damaged is not taken. `limit`: bytes.
  static Result<Journal> open(const std::string& folder, std::uint64_t limit);
  Journal(Journal&&) = default;  // what was moved from can only be destroyed
  Journal& operator=(Journal&&) = delete;

  // An entry that is there already is not written again, a new one is on its way to the disk. On error nothing was added.
  Status append(const Key& key, const EncodedTensor& tensor);
  // Waits until everything appended is on the disk.
  Status sync() { return sync_->wait(); }
  // Nothing if there is no such entry, or its bytes are not what they were.
  std::optional<EncodedTensor> find(const Key& key) const;
  // Removes the entries of all steps up to `version`.
  void trim(std::uint64_t version);

  std::uint64_t bytes() const { return bytes_; }

 private:
  struct Place {
    std::uint64_t offset = 0;
    std::uint32_t values = 0;
    std::uint32_t tokens = 0;
  };
  Journal(std::string folder, std::uint64_t limit) : folder_(std::move(folder)), limit_(limit) {}
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
  std::shared_ptr<const OpenFile> open_;   // of the step that is being written
  std::unique_ptr<DiskSync> sync_ = std::make_unique<DiskSync>();
};

}  // namespace isthmus
