#include "store/manifest.h"

#include <algorithm>

namespace isthmus::store {

using nlohmann::json;

json parse_manifest(std::string_view text) {
  constexpr int kDeepest = 4;
  const auto shallow = [](int depth, json::parse_event_t, const json&) { return depth <= kDeepest; };
  json manifest = json::parse(text.begin(), text.end(), shallow, false);
  const json none(json::value_t::discarded);
  if (!manifest.is_object() || !manifest.contains("files") || !manifest["files"].is_object()) return none;
  if (manifest.contains("timeline") && !manifest["timeline"].is_number_unsigned()) return none;
  return std::ranges::all_of(manifest["files"], [](const json& file) { return file.is_object(); }) ? manifest : none;
}

}  // namespace isthmus::store
