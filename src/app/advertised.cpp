#include "app/advertised.h"

#include "app/invite.h"

namespace isthmus::app {

Result<std::vector<Advertised>> read_advertised(const std::vector<std::string>& texts) {
  std::vector<Advertised> all;
  for (const std::string& text : texts) {
    const bool has_port = text.find(':') != text.npos && (text[0] != '[' || text.find("]:") != text.npos);
    const auto address = transport::read_address(has_port ? text : text + ":1");
    if (!address || transport::is_wildcard(address->host) || (has_port && address->port > 65'532))
      return fail("--advertise {}: expected NAME or NAME:PORT, such as home.example.org:7000", text);
    all.push_back({address->host, has_port ? address->port : std::uint16_t{0}});
  }
  if (all.size() > kDoorsMax) return fail("--advertise: an invite names at most {} addresses", kDoorsMax);
  return all;
}

std::vector<std::string> doors_of(const std::vector<Advertised>& advertised, const transport::Address& door) {
  std::vector<std::string> doors;
  for (const auto& [host, port] : advertised)
    doors.push_back(transport::Address{host, port == 0 ? door.port : static_cast<std::uint16_t>(port + 2)}.text());
  if (doors.empty()) doors.push_back(door.text());
  return doors;
}

}  // namespace isthmus::app
