#include "store/safetensors.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "base/little_endian.h"

namespace isthmus::store {

using nlohmann::json;

namespace {

constexpr std::uint64_t kHeaderMax = 100'000'000;
constexpr std::size_t kRankMax = 8;

// JSON of the header with duplicate keys refused (the format forbids them, the parser would keep the last).
Result<json> parse_header(ByteView text) {
  std::vector<std::set<std::string>> open;
  bool duplicate = false;
  const auto watch = [&](int, json::parse_event_t event, json& parsed) {
    if (event == json::parse_event_t::object_start) open.emplace_back();
    if (event == json::parse_event_t::key && !open.empty())
      duplicate = !open.back().insert(parsed.get<std::string>()).second || duplicate;
    if (event == json::parse_event_t::object_end && !open.empty()) open.pop_back();
    return true;
  };
  json header = json::parse(text.begin(), text.end(), watch, false);
  if (header.is_discarded() || !header.is_object()) return fail("its header is not a JSON object");
  if (duplicate) return fail("its header names a tensor twice");
  return header;
}

Result<NamedTensor> parse_entry(const std::string& name, const json& entry, ByteView data) {
  const auto bad = [&](const char* what) { return fail("tensor {}: {}", name, what); };
  if (!entry.is_object() || !entry.contains("dtype") || !entry.contains("shape") || !entry.contains("data_offsets"))
    return bad("expected dtype, shape and data_offsets");
  if (entry["dtype"] != "F32") return bad("expected dtype F32");
  const json& shape = entry["shape"];
  const json& offsets = entry["data_offsets"];
  if (!shape.is_array() || shape.size() > kRankMax || !offsets.is_array() || offsets.size() != 2)
    return bad("expected a shape of at most 8 sizes and two offsets");
  NamedTensor tensor{name, {}, {}};
  std::uint64_t count = 1;
  for (const auto& size : shape) {
    if (!size.is_number_unsigned()) return bad("a size is not a whole number");
    const std::uint64_t n = size;
    if (n != 0 && count > data.size() / n) return bad("it is larger than the file");
    count *= n;
    tensor.shape.push_back(static_cast<std::int64_t>(n));
  }
  if (!offsets[0].is_number_unsigned() || !offsets[1].is_number_unsigned())
    return bad("an offset is not a whole number");
  const std::uint64_t begin = offsets[0], end = offsets[1];
  if (begin > end || end > data.size() || end - begin != count * 4)
    return bad("its offsets do not fit its shape or the file");
  tensor.bytes = data.subspan(begin, end - begin);
  return tensor;
}

}  // namespace

Bytes safetensors_header(const std::vector<NamedTensor>& tensors, const std::map<std::string, std::string>& metadata) {
  json header = json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::uint64_t at = 0;
  for (const auto& tensor : tensors) {
    header[tensor.name] = {{"dtype", "F32"}, {"shape", tensor.shape}, {"data_offsets", {at, at + tensor.bytes.size()}}};
    at += tensor.bytes.size();
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  Bytes out;
  append_le(out, std::uint64_t{text.size()});
  out.insert(out.end(), text.begin(), text.end());
  return out;
}

Result<SafetensorsFile> parse_safetensors(Bytes bytes) {
  SafetensorsFile file;
  file.bytes = std::move(bytes);
  ByteView in(file.bytes);
  const auto length = take_le<std::uint64_t>(in);
  if (!length || *length > kHeaderMax || *length > in.size())
    return fail("it is truncated: its header does not fit into {} bytes", file.bytes.size());
  const auto header = parse_header(in.first(*length));
  if (!header) return tl::unexpected(header.error());
  const ByteView data = in.subspan(*length);
  std::vector<std::pair<const std::uint8_t*, const std::uint8_t*>> ranges;
  for (const auto& [name, entry] : header->items()) {
    if (name == "__metadata__") continue;
    auto tensor = parse_entry(name, entry, data);
    if (!tensor) return tl::unexpected(tensor.error());
    ranges.emplace_back(tensor->bytes.data(), tensor->bytes.data() + tensor->bytes.size());
    file.tensors.emplace(name, std::move(*tensor));
  }
  std::ranges::sort(ranges);
  const std::uint8_t* at = data.data();
  for (const auto& [begin, end] : ranges) {
    if (begin != at) return fail("its tensors overlap or leave a hole");
    at = end;
  }
  if (at != data.data() + data.size()) return fail("it has bytes that belong to no tensor");
  return file;
}

}  // namespace isthmus::store
