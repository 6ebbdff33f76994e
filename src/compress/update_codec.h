#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace isthmus::compress {

// What two payloads, a and b, share. Had the numbers of one random signs, the product's deviation would be the root of
// `squares`.
struct Overlap {
  double product = 0;           // Σ aᵢbᵢ
  double squares = 0;           // Σ aᵢ²bᵢ²
  std::uint64_t positions = 0;  // numbers that both hold,
  std::uint64_t of = 0;         // of as many (the larger payload's)
};

// How one replica's update, how far its weights moved since the replicas last agreed (a pseudo-gradient; DiLoCo, arXiv
// 2311.08105), becomes bytes and comes back: a flat array of floats, the stage's tensors one after the other.
// Stateless; any thread; the same bits on every machine. Every implementation passes
// tests/compress/update_codec_test.cpp.
class UpdateCodec {
 public:
  virtual ~UpdateCodec() = default;
  virtual std::uint64_t numbers() const = 0;
  // Most numbers a payload holds; the others are 0.
  virtual std::uint64_t kept() const = 0;
  // Exact size of a payload; the same for every update of these tensors.
  virtual std::uint64_t bytes() const = 0;
  // Writes what is sent of `buffer` and takes it out: afterwards each number is what it was less what decode() gives,
  // in fp32. A tensor with a number that is not finite stays as it is, and check() refuses the payload. REQUIRES:
  // buffer.size() == numbers().
  virtual Bytes encode(std::span<float> buffer) const = 0;
  // Refuses what encode() cannot have written of finite numbers: another length, positions out of range, repeated or
  // out of order, numbers that are not finite, padding that is not 0.
  virtual Status check(ByteView payload) const = 0;

  // REQUIRES, here and below: check() passed.
  virtual Overlap overlap(ByteView a, ByteView b) const = 0;
  double norm2(ByteView payload) const { return overlap(payload, payload).product; }
  // Overwrites `out` with numbers [first, first + out.size()) of the update. REQUIRES: first is a multiple of kTile,
  // the end is at most numbers().
  virtual void decode(ByteView payload, std::uint64_t first, std::span<float> out) const = 0;
};

inline constexpr std::uint64_t kTile = 4096;

// SparseLoCo (arXiv 2508.15706): the 64 largest magnitudes of every 4096 consecutive numbers of a tensor, as one of
// four values that are the tensor's, and where they stood: 14 bits each, 0.22 bits per number. What is not sent stays
// in the buffer; the caller sends it with a later update (error feedback). `tensors`: numbers of each.
std::unique_ptr<UpdateCodec> make_sparse_update(std::vector<std::uint64_t> tensors);
// All of it, as bf16.
std::unique_ptr<UpdateCodec> make_dense_update(std::uint64_t numbers);

}  // namespace isthmus::compress
