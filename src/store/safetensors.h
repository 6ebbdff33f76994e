#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace isthmus::store {

// A tensor as files know it: row-major fp32 values.
struct NamedTensor {
  std::string name;
  std::vector<std::int64_t> shape;
  ByteView bytes;  // 4 × the product of the shape, little-endian
};

// The safetensors format (huggingface/safetensors, format note v0.8): u64 header length, JSON header, data without
// holes. Only F32 is written or accepted. `metadata`: words for other programs, which parse_safetensors passes over.
Bytes safetensors_header(const std::vector<NamedTensor>& tensors,
                         const std::map<std::string, std::string>& metadata = {});

// A file that was read whole; `tensors` point into `bytes`.
struct SafetensorsFile {
  Bytes bytes;
  std::map<std::string, NamedTensor> tensors;
};
// Checks everything the header says against the bytes that are there before it uses any of it.
Result<SafetensorsFile> parse_safetensors(Bytes bytes);

}  // namespace isthmus::store
