#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <utility>

#include "base/bytes.h"
#include "base/checkpoint_facts.h"
#include "base/digest.h"
#include "base/result.h"
#include "store/checkpoint.h"

namespace isthmus::store {

// A checkpoint of one stage as one row of bytes, to be sent and kept in pieces: the manifest's length (u64,
// little-endian), the manifest, the weights' file, the optimizer's. The manifest has the digests of both files, so its
// own digest, the one of CheckpointFacts, names the whole.

// Reads one that is on the disk. It may be pruned meanwhile: reading fails then.
class ArchiveReader {
 public:
  // Errors: there is no such checkpoint, or it is damaged; digests are checked by whoever puts it together again.
  static Result<ArchiveReader> open(const CheckpointPlace& place, std::uint64_t version);

  const CheckpointFacts& facts() const { return facts_; }
  // REQUIRES: offset + count <= facts().bytes.
  Result<Bytes> read(std::uint64_t offset, std::size_t count) const;

 private:
  ArchiveReader() = default;
  CheckpointFacts facts_;
  std::string folder_;
  Bytes front_;                           // length and manifest
  std::uint64_t weights_ = 0, rest_ = 0;  // bytes of the files
};

// Whether the bytes of an archive, as they come, are the one that the facts name, undamaged, and of this place.
class ArchiveCheck {
 public:
  ArchiveCheck(const CheckpointPlace& place, const CheckpointFacts& facts) : place_(place), facts_(facts) {}
  void update(ByteView bytes);
  // What is wrong with those that came; empty: nothing so far.
  const std::string& problem() const { return problem_; }
  // Of all of them.
  Status end();

 private:
  void take_front();
  CheckpointPlace place_;
  CheckpointFacts facts_;
  Bytes front_;            // until the manifest is whole
  bool manifest_ = false;  // it is
  std::string problem_;    // what is wrong; empty: nothing so far
  struct File {
    std::uint64_t left = 0;
    std::string digest;
    Digest sum{};
  };
  std::array<File, 2> files_;
};

// Puts one together on the disk, piece by piece; one that was begun goes on where it was, also by another process.
class ArchiveWriter {
 public:
  // What the replica began of other checkpoints of the stage is removed. Of this one as many bytes stay as are a
  // multiple of `unit`, in which they come: a crash may have torn the last one.
  static Result<ArchiveWriter> open(const CheckpointPlace& place, const CheckpointFacts& facts, std::uint64_t unit);

  // How much of it is here.
  std::uint64_t bytes() const { return bytes_; }
  // REQUIRES: not more than is missing.
  Status append(ByteView bytes);
  // REQUIRES: all of it is here. Makes a checkpoint of it, if it is the one that the facts name, undamaged, and of this
  // place. Otherwise what is here is removed.
  Status unpack();

 private:
  ArchiveWriter(CheckpointPlace place, CheckpointFacts facts) : place_(std::move(place)), facts_(std::move(facts)) {}
  std::string own() const;  // how the names of what this replica fetches begin
  std::string file() const;

  CheckpointPlace place_;
  CheckpointFacts facts_;
  std::uint64_t bytes_ = 0;
};

}  // namespace isthmus::store
