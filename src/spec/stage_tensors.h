#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "spec/run_spec.h"

namespace isthmus::spec {

// One trained tensor of a stage: all of it but its numbers.
struct TensorSpec {
  enum class Kind {
    kNorm,       // hidden gains of an RMSNorm
    kTable,      // rows that token ids pick
    kMatrix,     // of a layer
    kHead,       // hidden to logits
    kTokenPath,  // matrices of the token path's MLP
    kBasis,      // narrow: the stage's own U
    kEncoder,    // bottleneck, learned: hidden to rank, where the stream leaves the stage
    kDecoder,    // and back, where it enters the next one
  };
  std::string unit;  // what it is hashed and normed with: "embedding", "layer.3", "border.2", "head"
  std::string part;  // "qkv"
  Kind kind;
  std::int64_t rows = 0;
  std::int64_t columns = 0;  // 0: a vector of `rows`
  double deviation = 0;      // of its first, normally distributed numbers (kNorm: ones; kBasis, kEncoder, kDecoder: U)
  bool writes = false;       // into the residual stream
  // Matrices that stand on each other in it and are multiplied in one go.
  std::int64_t stacked = 1;
  // Which side of a full matrix codec projected keeps in the span of U.
  enum class InSubspace { kNone, kColumns, kRows } in_subspace = InSubspace::kNone;

  std::string name() const { return unit + "." + part; }
  std::vector<std::int64_t> shape() const { return columns == 0 ? std::vector{rows} : std::vector{rows, columns}; }
  std::int64_t numbers() const { return columns == 0 ? rows : rows * columns; }
  // Muon's, if the run asks for it: what maps one stream to another. Tables, gains, the head and what sits at a
  // boundary are AdamW's.
  bool maps() const { return kind == Kind::kMatrix || kind == Kind::kTokenPath; }
  bool decays() const {
    return kind == Kind::kTable || kind == Kind::kMatrix || kind == Kind::kHead || kind == Kind::kTokenPath;
  }
};

// The trained tensors of layers first … end-1, in the order in which they are hashed, summed and sent; with the
// embedding, if first is 0, and the head, if end is the last. `run` is resolved.
std::vector<TensorSpec> stage_tensors(const RunSpec& run, std::uint32_t first_layer, std::uint32_t end_layer);

// Numbers the optimizer keeps for each number of the tensor: two moments of AdamW, one of Muon.
std::uint32_t optimizer_moments(const RunSpec& run, const TensorSpec& tensor);

}  // namespace isthmus::spec
