#include "config/quoted.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace isthmus::config {

std::string quoted(const std::string& text) {
  if (text.size() > 80) return fmt::format("of {} bytes", text.size());
  using Json = nlohmann::json;
  // The TOML parser lets only UTF-8 through, but an override may hold any bytes.
  return Json(text).dump(-1, ' ', true, Json::error_handler_t::replace);
}

}  // namespace isthmus::config
