#include "app/doctor.h"

#include <signal.h>
#include <sys/timex.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>

#include "app/enrolment.h"
#include "base/free_space.h"
#include "base/version.h"
#include "process/clock.h"
#include "relay/reflection.h"
#include "stage/available_memory.h"
#include "stage/torch_module.h"
#include "transport/address.h"
#include "transport/door.h"
#include "transport/local_address.h"
#include "transport/name_lookup.h"
#include "transport/port_mapping.h"

namespace isthmus::app {

namespace {

using Kind = Finding::Kind;

constexpr double kGiB = 1024.0 * 1024 * 1024;
constexpr double kDiskLeast = 2 * kGiB;  // a checkpoint and a journal of a small stage
constexpr Duration kAnswer = seconds(5);

Finding machine() {
  const double all = static_cast<double>(::sysconf(_SC_PHYS_PAGES)) * static_cast<double>(::sysconf(_SC_PAGE_SIZE));
  return {Kind::kGood, "machine",
          fmt::format("{} processor threads, {:.1f} of {:.1f} GiB of memory free", std::thread::hardware_concurrency(),
                      static_cast<double>(stage::available_memory()) / kGiB, all / kGiB),
          ""};
}

Finding device() {
  const auto torch = stage::torch_module();
  if (!torch) return {Kind::kBad, "device", torch.error().message, "install a build with libtorch"};
  return {Kind::kGood, "device",
          (*torch)->has_cuda() ? "libtorch loads, and finds a CUDA device"
                               : "libtorch loads; it finds no CUDA device, so the processor computes",
          ""};
}

Finding disk(const std::string& home) {
  namespace fs = std::filesystem;
  // The folder itself may not be there yet; what would hold it is.
  fs::path there = fs::absolute(home);
  std::error_code none;
  while (!fs::exists(there, none) && there.has_parent_path() && there != there.root_path()) there = there.parent_path();
  if (::access(there.c_str(), W_OK) != 0)
    return {Kind::kBad, "disk", fmt::format("{} cannot be written", there.string()), "choose another with --home DIR"};
  const double free = free_space(home);
  if (free < 0) return {Kind::kNote, "disk", "says nothing about its free space", ""};
  const std::string what = fmt::format("{:.1f} GiB free for {}", free / kGiB, home);
  if (free >= kDiskLeast) return {Kind::kGood, "disk", what, ""};
  return {Kind::kBad, "disk", what, "make room, or choose another folder with --home DIR"};
}

Finding clock() {
  timex state{};
  const int status = ::adjtimex(&state);
  const std::time_t now = static_cast<std::time_t>(process::seconds_since_1970());
  char text[64];
  std::tm utc{};
  ::gmtime_r(&now, &utc);
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M UTC", &utc);
  if (status == TIME_ERROR || status < 0)
    return {Kind::kNote, "clock", fmt::format("{}, and nobody says that it is right", text),
            "invites and passes run out by other machines' clocks, so no run depends on it; timedatectl set-ntp true"};
  return {Kind::kGood, "clock", text, ""};
}

// The door's address, if it is known or can be looked up.
std::optional<transport::Address> address_of(const std::string& door, std::vector<Finding>& findings) {
  auto address = transport::read_address(door);
  if (!address) {
    findings.push_back({Kind::kBad, "name", fmt::format("'{}' in the invite is no address", door), "ask for another"});
    return std::nullopt;
  }
  if (address->is_numeric()) return address;
  const transport::NameLookup lookup(*address);
  for (const Time give_up = process::monotonic_now() + kAnswer; process::monotonic_now() < give_up;) {
    if (const auto found = lookup.poll()) {
      if (!*found) {
        findings.push_back({Kind::kBad, "name", found->error().message, "check this machine's network"});
        return std::nullopt;
      }
      findings.push_back({Kind::kGood, "name", fmt::format("{} is {}", address->host, (*found)->front().host), ""});
      return (*found)->front();
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  findings.push_back({Kind::kBad, "name", fmt::format("no answer about the name {} in 5 s", address->host),
                      "check this machine's network and name service"});
  return std::nullopt;
}

// A request that says no more than this version is refused, in a sentence that tells who answered.
Finding coordinator(const Invite& invite, const transport::Address& door) {
  const std::string where = "coordinator";
  transport::Caller caller(invite.key);
  const auto key = invite.coordinator_key();
  if (!key) return {Kind::kBad, where, key.error().message, "ask for another invite"};
  if (auto dialled = caller.dial(door.endpoint(), *key); !dialled)
    return {Kind::kBad, where, dialled.error().message, "ask for another invite"};
  caller.ask(nlohmann::json{{"version", kVersion}}.dump());
  std::vector<std::string> parts;
  for (const Time give_up = process::monotonic_now() + kAnswer; parts.empty() && process::monotonic_now() < give_up;)
    parts = caller.answer(std::chrono::milliseconds(50));
  if (parts.empty())
    return {Kind::kBad, where, fmt::format("nobody at {} takes this invite", door.text()),
            "ask the owner whether the coordinator runs there, and whether the invite is still good"};
  const auto heard = decode_answer(parts);
  const auto* refusal = heard ? std::get_if<EnrolRefusal>(&*heard) : nullptr;
  if (!refusal || refusal->sentence.find(kVersion) == std::string::npos ||
      refusal->sentence.find("and whoever asks is") != std::string::npos)
    return {Kind::kBad, where, refusal ? refusal->sentence : "what answers is no coordinator of this version",
            "install the run's version"};
  return {Kind::kGood, where, fmt::format("answers at {}, and takes this invite's key", door.text()), ""};
}

Finding router(const transport::Address& door) {
  const auto own = transport::local_address_towards(door.endpoint());
  if (!own) return {Kind::kBad, "router", own.error().message, "check this machine's network"};
  const std::string plain = transport::plain_address(*own);
  const transport::Address relay{door.host, static_cast<std::uint16_t>(door.port + 1)};
  const auto seen = relay::reflected_address(relay.text(), kAnswer);
  if (!seen)
    return {Kind::kNote, "router",
            fmt::format("own address {}; how it is seen is not known: {}", plain, seen.error().message),
            "without a relay only workers that can be dialled are reached"};
  if (transport::plain_address(*seen) == plain)
    return {Kind::kGood, "router", fmt::format("{} is seen as it is: no router in between changes it", plain), ""};
  return {Kind::kGood, "router",
          fmt::format("{} is seen as {}: a router is in between; what cannot be dialled meets through the relay at {}",
                      plain, *seen, relay.text()),
          ""};
}

Finding port_mapping() {
  ::signal(SIGPIPE, SIG_IGN);  // routers hang up
  const auto router = transport::HomeRouter::find();
  if (!router)
    return {Kind::kNote, "ports",
            "no home router answers that lets ports through, so others meet this machine at a relay",
            "if the router has UPnP or NAT-PMP, switch it on: tensors then go straight"};
  const std::string outside = router->outside();
  return {Kind::kGood, "ports",
          fmt::format("the home router lets ports through to machines that ask ({}{})", router->language(),
                      outside.empty() ? "" : "; outside it is " + outside),
          ""};
}

}  // namespace

std::vector<Finding> examine(const std::string& home, const std::optional<Invite>& invite) {
  std::vector<Finding> findings = {machine(), device(), disk(home), clock()};
  if (!invite) return findings;
  bool behind_router = false;
  for (const std::string& text : invite->doors)
    if (const auto door = address_of(text, findings)) {
      findings.push_back(coordinator(*invite, *door));
      // Nothing is in between on one machine.
      if (transport::is_loopback(door->host)) continue;
      findings.push_back(router(*door));
      const auto own = transport::local_address_towards(door->endpoint());
      behind_router = behind_router || (own && transport::is_behind_router(*own));
    }
  if (behind_router) findings.push_back(port_mapping());
  return findings;
}

}  // namespace isthmus::app
