#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "compress/magnitudes.h"
#include "compress/update_codec.h"
#include "compress/vectorized.h"

namespace isthmus::compress {

namespace {

constexpr std::uint64_t kKept = 64;              // of a tile
constexpr std::uint64_t kShare = kTile / kKept;  // one number of so many is kept
constexpr std::uint64_t kTileIndexBytes = kKept * 12 / 8;
constexpr std::uint64_t kTileCodeBytes = kKept * 2 / 8;
// Of Lloyd's algorithm, and the values it looks at in each.
constexpr int kRounds = 8;
constexpr std::uint64_t kSample = 8192;

// Ascending.
using Codebook = std::array<float, 4>;

// Where a tensor lies in the update, and in a payload. Layout: codebook, the indices of all tiles (12 bits each, the
// first in the low ones), the codes of all tiles (2 bits each). A tile has whole bytes, but for the tensor's last.
struct Tensor {
  std::uint64_t first = 0;  // number
  std::uint64_t numbers = 0;
  std::uint64_t codebook = 0;  // byte

  std::uint64_t kept() const { return (numbers + kShare - 1) / kShare; }
  std::uint64_t tiles() const { return (numbers + kTile - 1) / kTile; }
  std::uint64_t numbers_of(std::uint64_t tile) const { return std::min(kTile, numbers - tile * kTile); }
  std::uint64_t kept_of(std::uint64_t tile) const { return std::min(kKept, kept() - tile * kKept); }
  std::uint64_t indices() const { return codebook + sizeof(Codebook); }
  std::uint64_t codes() const { return indices() + (kept() * 12 + 7) / 8; }
  std::uint64_t end() const { return codes() + (kept() * 2 + 7) / 8; }
};

// What a payload holds of one tile.
struct Tile {
  std::uint64_t kept = 0;
  std::uint16_t index[kKept];
  std::uint8_t code[kKept];
  // One of zeros: sending those would need a value that is 0. Its indices and codes are 0, which no other tile's are.
  bool empty() const { return kept > 1 && index[1] == 0; }
};

ISTHMUS_VECTORIZED void pack_indices(const std::uint16_t* index, std::uint64_t pairs, std::uint8_t* out) {
  for (std::uint64_t i = 0; i < pairs; ++i) {
    out[3 * i] = static_cast<std::uint8_t>(index[2 * i]);
    out[3 * i + 1] = static_cast<std::uint8_t>((index[2 * i] >> 8) | (index[2 * i + 1] << 4));
    out[3 * i + 2] = static_cast<std::uint8_t>(index[2 * i + 1] >> 4);
  }
}
ISTHMUS_VECTORIZED void unpack_indices(const std::uint8_t* in, std::uint64_t pairs, std::uint16_t* index) {
  for (std::uint64_t i = 0; i < pairs; ++i) {
    index[2 * i] = static_cast<std::uint16_t>(in[3 * i] | ((in[3 * i + 1] & 15) << 8));
    index[2 * i + 1] = static_cast<std::uint16_t>((in[3 * i + 1] >> 4) | (in[3 * i + 2] << 4));
  }
}

Tile read_tile(ByteView payload, const Tensor& tensor, std::uint64_t tile) {
  Tile out;
  out.kept = tensor.kept_of(tile);
  const std::uint8_t* indices = payload.data() + tensor.indices() + tile * kTileIndexBytes;
  const std::uint8_t* codes = payload.data() + tensor.codes() + tile * kTileCodeBytes;
  unpack_indices(indices, out.kept / 2, out.index);
  if (out.kept % 2 == 1)
    out.index[out.kept - 1] =
        static_cast<std::uint16_t>(indices[out.kept / 2 * 3] | ((indices[out.kept / 2 * 3 + 1] & 15) << 8));
  for (std::uint64_t i = 0; i < out.kept; ++i) out.code[i] = (codes[i / 4] >> (i % 4 * 2)) & 3;
  return out;
}

void write_indices(const Tile& tile, std::uint8_t* out) {
  pack_indices(tile.index, tile.kept / 2, out);
  if (tile.kept % 2 == 0) return;
  out[tile.kept / 2 * 3] = static_cast<std::uint8_t>(tile.index[tile.kept - 1]);
  out[tile.kept / 2 * 3 + 1] = static_cast<std::uint8_t>(tile.index[tile.kept - 1] >> 8);
}

Codebook read_codebook(ByteView payload, const Tensor& tensor) {
  Codebook out;
  std::memcpy(out.data(), payload.data() + tensor.codebook,
              sizeof out);  // x86 and Arm are little-endian, as the wire is
  return out;
}

constexpr std::uint64_t kLanes = 256;

// The largest magnitude of each lane: numbers that are kLanes apart.
ISTHMUS_VECTORIZED void largest_of_lanes(const float* tile, float* largest) {
  std::int32_t bits[kLanes] = {};
  for (std::uint64_t row = 0; row < kTile; row += kLanes)
    for (std::uint64_t lane = 0; lane < kLanes; ++lane) {
      std::int32_t here;
      std::memcpy(&here, tile + row + lane, sizeof here);
      here &= 0x7FFFFFFF;
      bits[lane] = bits[lane] > here ? bits[lane] : here;
    }
  std::memcpy(largest, bits, sizeof bits);
}

// Indices of the `kept` largest magnitudes of kTile numbers, ascending; of equal ones the first. The kept-th largest of
// the lanes' maxima is below no more than a few others than the kept-th largest of all, so hardly more are gathered
// than are kept.
void find_largest(const float* tile, std::uint64_t kept, std::uint16_t* index) {
  float largest[kLanes];
  largest_of_lanes(tile, largest);
  const std::int32_t bound = least_of_largest(largest, kLanes, kept);
  std::uint16_t lanes[kLanes];
  std::uint64_t lane_count = 0;
  for (std::uint16_t lane = 0; lane < kLanes; ++lane) {
    lanes[lane_count] = lane;
    lane_count += magnitude(largest[lane]) >= bound;
  }
  float candidates[kTile];
  std::uint16_t places[kTile];
  std::uint64_t count = 0;
  for (std::uint64_t row = 0; row < kTile; row += kLanes)
    for (std::uint64_t i = 0; i < lane_count; ++i) {
      const std::uint64_t place = row + lanes[i];
      candidates[count] = tile[place];
      places[count] = static_cast<std::uint16_t>(place);
      count += magnitude(tile[place]) >= bound;
    }
  const std::int32_t least = least_of_largest(candidates, count, kept);
  std::uint64_t ties = kept - count_above(candidates, count, least);
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::int32_t size = magnitude(candidates[i]);
    if (size < least || (size == least && ties == 0)) continue;
    ties -= size == least;
    *index++ = places[i];
  }
}

// The mean of the values in (above, upto], or `otherwise` where there are none. Lanes fix the order of the additions.
ISTHMUS_VECTORIZED float mean_within(const float* values, std::uint64_t count, float above, float upto,
                                     float otherwise) {
  constexpr std::uint64_t kSums = 8;
  double sums[kSums] = {};
  std::int64_t counts[kSums] = {};
  const auto add = [&](std::uint64_t at, std::uint64_t lanes) {
    for (std::uint64_t lane = 0; lane < lanes; ++lane) {
      const float value = values[at + lane];
      const bool within = value > above && value <= upto;
      sums[lane] += within ? static_cast<double>(value) : 0.0;
      counts[lane] += within;
    }
  };
  std::uint64_t at = 0;
  for (; at + kSums <= count; at += kSums) add(at, kSums);
  add(at, count - at);
  double sum = 0;
  std::int64_t within = 0;
  for (std::uint64_t lane = 0; lane < kSums; ++lane) sum += sums[lane], within += counts[lane];
  return within == 0 ? otherwise : static_cast<float>(sum / static_cast<double>(within));
}

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// What each entry stands for: the values above its bound, up to the next one's.
using Bounds = std::array<float, 5>;

Bounds bounds_of(const Codebook& codebook) {
  const auto between = [&](std::size_t i) {
    return static_cast<float>((static_cast<double>(codebook[i]) + codebook[i + 1]) / 2);
  };
  return {-kInfinity, between(0), between(1), between(2), kInfinity};
}

void move_to_means(std::span<const float> values, const Bounds& bounds, Codebook& codebook) {
  for (std::size_t i = 0; i < codebook.size(); ++i)
    codebook[i] = mean_within(values.data(), values.size(), bounds[i], bounds[i + 1], codebook[i]);
}

// Four entries near to the values, by Lloyd's algorithm. It starts from the values divided at their mean, and each half
// at its own: what is kept has a gap around 0, where bins of equal width (SparseLoCo) stand for nothing. A sample
// decides where the bounds lie; the means are those of all values. Bounds and means are rounded monotonically, so the
// entries stay ascending. REQUIRES: the values are finite.
Codebook fit_codebook(std::span<const float> values) {
  if (values.empty()) return {};
  std::vector<float> sample;
  for (std::size_t i = 0, step = values.size() / kSample + 1; i < values.size(); i += step) sample.push_back(values[i]);
  const float middle = mean_within(sample.data(), sample.size(), -kInfinity, kInfinity, 0.0f);
  const float low = mean_within(sample.data(), sample.size(), -kInfinity, middle, middle);
  const float high = mean_within(sample.data(), sample.size(), middle, kInfinity, middle);
  Codebook codebook{low, middle, middle, high};
  move_to_means(sample, {-kInfinity, low, middle, high, kInfinity}, codebook);
  for (int round = 0; round < kRounds; ++round) move_to_means(sample, bounds_of(codebook), codebook);
  move_to_means(values, bounds_of(codebook), codebook);
  return codebook;
}

class SparseUpdate final : public UpdateCodec {
 public:
  explicit SparseUpdate(const std::vector<std::uint64_t>& tensors) {
    for (const std::uint64_t numbers : tensors) {
      kept_ += (numbers + kShare - 1) / kShare;
      if (numbers == 0) continue;
      tensors_.push_back({numbers_, numbers, bytes_});
      numbers_ += numbers;
      bytes_ = tensors_.back().end();
    }
  }

  std::uint64_t numbers() const override { return numbers_; }
  std::uint64_t kept() const override { return kept_; }
  std::uint64_t bytes() const override { return bytes_; }

  Bytes encode(std::span<float> buffer) const override {
    Bytes out(bytes_);
    for (const Tensor& tensor : tensors_) encode(tensor, buffer.data() + tensor.first, out);
    return out;
  }

  Status check(ByteView payload) const override {
    if (payload.size() != bytes_) return fail("update of {} bytes, expected {}", payload.size(), bytes_);
    for (std::size_t i = 0; i < tensors_.size(); ++i)
      if (auto status = check(payload, tensors_[i]); !status) return fail("tensor {}: {}", i, status.error().message);
    return {};
  }

  Overlap overlap(ByteView a, ByteView b) const override {
    Overlap out;
    std::uint8_t marked[kTile] = {};  // what a holds at each place: code + 1, or 0
    for (const Tensor& tensor : tensors_) {
      std::uint64_t together[5][4] = {};  // numbers of each mark of a's and code of b's
      for (std::uint64_t t = 0; t < tensor.tiles(); ++t) {
        const Tile of_a = read_tile(a, tensor, t), of_b = read_tile(b, tensor, t);
        if (of_a.empty() && of_b.empty()) continue;
        out.of += of_a.kept;
        if (of_a.empty() || of_b.empty()) continue;
        for (std::uint64_t i = 0; i < of_a.kept; ++i)
          marked[of_a.index[i]] = static_cast<std::uint8_t>(of_a.code[i] + 1);
        for (std::uint64_t i = 0; i < of_b.kept; ++i) ++together[marked[of_b.index[i]]][of_b.code[i]];
        for (std::uint64_t i = 0; i < of_a.kept; ++i) marked[of_a.index[i]] = 0;
      }
      const Codebook values_a = read_codebook(a, tensor), values_b = read_codebook(b, tensor);
      for (std::size_t i = 0; i < 4; ++i)
        for (std::size_t j = 0; j < 4; ++j) {
          const double product = static_cast<double>(values_a[i]) * values_b[j];
          const auto count = static_cast<double>(together[i + 1][j]);
          out.product += count * product;
          out.squares += count * product * product;
          out.positions += together[i + 1][j];
        }
    }
    return out;
  }

  void decode(ByteView payload, std::uint64_t first, std::span<float> out) const override {
    std::ranges::fill(out, 0.0f);
    const std::uint64_t last = first + out.size();
    auto tensor = std::ranges::upper_bound(tensors_, first, {}, [](const Tensor& t) { return t.first + t.numbers; });
    for (; tensor != tensors_.end() && tensor->first < last; ++tensor) {
      const Codebook codebook = read_codebook(payload, *tensor);
      std::uint64_t t = first > tensor->first ? (first - tensor->first) / kTile : 0;
      for (; t < tensor->tiles() && tensor->first + t * kTile < last; ++t) {
        const Tile tile = read_tile(payload, *tensor, t);
        if (tile.empty()) continue;
        const std::uint64_t start = tensor->first + t * kTile - first;  // wraps where the tile begins before `first`
        for (std::uint64_t i = 0; i < tile.kept; ++i)
          if (const std::uint64_t at = start + tile.index[i]; at < out.size()) out[at] = codebook[tile.code[i]];
      }
    }
  }

 private:
  static void encode(const Tensor& tensor, float* numbers, Bytes& out) {
    std::vector<float> values;
    values.reserve(tensor.kept());
    float padded[kTile];
    for (std::uint64_t t = 0; t < tensor.tiles(); ++t) {
      const float* place = numbers + t * kTile;
      if (tensor.numbers_of(t) < kTile) {
        std::ranges::fill(padded, 0.0f);
        std::copy_n(place, tensor.numbers_of(t), padded);
        place = padded;
      }
      Tile tile;
      tile.kept = tensor.kept_of(t);
      find_largest(place, tile.kept, tile.index);
      if (tile.kept > 1 &&
          std::all_of(tile.index, tile.index + tile.kept, [&](std::uint16_t i) { return place[i] == 0; }))
        continue;
      write_indices(tile, out.data() + tensor.indices() + t * kTileIndexBytes);
      for (std::uint64_t i = 0; i < tile.kept; ++i) values.push_back(place[tile.index[i]]);
    }
    Codebook codebook;
    const bool finite = std::ranges::all_of(values, [](float value) { return std::isfinite(value); });
    if (finite)
      codebook = fit_codebook(values);
    else
      codebook.fill(std::numeric_limits<float>::quiet_NaN());
    std::memcpy(out.data() + tensor.codebook, codebook.data(), sizeof codebook);
    if (!finite) return;
    const Bounds bounds = bounds_of(codebook);
    for (std::uint64_t t = 0; t < tensor.tiles(); ++t) {
      const Tile tile = read_tile(out, tensor, t);
      if (tile.empty()) continue;
      std::uint8_t* codes = out.data() + tensor.codes() + t * kTileCodeBytes;
      for (std::uint64_t i = 0; i < tile.kept; ++i) {
        float& number = numbers[t * kTile + tile.index[i]];
        const int code = (number > bounds[1]) + (number > bounds[2]) + (number > bounds[3]);
        codes[i / 4] |= static_cast<std::uint8_t>(code << (i % 4 * 2));
        number -= codebook[static_cast<std::size_t>(code)];
      }
    }
  }

  static Status check(ByteView payload, const Tensor& tensor) {
    const Codebook codebook = read_codebook(payload, tensor);
    if (!std::ranges::all_of(codebook, [](float value) { return std::isfinite(value); }))
      return fail("its numbers are not finite");
    if (!std::ranges::is_sorted(codebook)) return fail("values out of order, expected them ascending");
    for (std::uint64_t t = 0; t < tensor.tiles(); ++t) {
      const Tile tile = read_tile(payload, tensor, t);
      bool ascending = true, zeros = true;
      for (std::uint64_t i = 1; i < tile.kept; ++i) ascending &= tile.index[i] > tile.index[i - 1];
      for (std::uint64_t i = 0; i < tile.kept; ++i) zeros &= (tile.index[i] | tile.code[i]) == 0;
      if (!(tile.empty() ? zeros : ascending && tile.index[tile.kept - 1] < tensor.numbers_of(t)))
        return fail("positions of tile {}: expected {}, ascending below {}", t, tile.kept, tensor.numbers_of(t));
    }
    const std::uint64_t kept = tensor.kept();
    if ((kept % 2 == 1 && payload[tensor.codes() - 1] >> 4 != 0) ||
        (kept % 4 != 0 && payload[tensor.end() - 1] >> (kept % 4 * 2) != 0))
      return fail("the bits behind the last number are not 0");
    return {};
  }

  std::vector<Tensor> tensors_;  // those with numbers
  std::uint64_t numbers_ = 0;
  std::uint64_t kept_ = 0;
  std::uint64_t bytes_ = 0;
};

}  // namespace

std::unique_ptr<UpdateCodec> make_sparse_update(std::vector<std::uint64_t> tensors) {
  return std::make_unique<SparseUpdate>(tensors);
}

}  // namespace isthmus::compress
