#include "sim/fault_schedule.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <sstream>

#include "base/counter_random.h"

namespace isthmus::sim {

namespace {

constexpr std::array<const char*, kFaultKinds> kNames = {"bandwidth",
                                                         "latency",
                                                         "jitter",
                                                         "loss",
                                                         "duplicate",
                                                         "reorder",
                                                         "corrupt",
                                                         "partition",
                                                         "one-way",
                                                         "clog",
                                                         "cut",
                                                         "freeze",
                                                         "crash",
                                                         "stage-crash",
                                                         "slow",
                                                         "coordinator-crash",
                                                         "coordinator-freeze",
                                                         "disk-full",
                                                         "move",
                                                         "leave",
                                                         "relay",
                                                         "address",
                                                         "sleep"};

}  // namespace

const char* name_of(FaultKind kind) { return kNames[static_cast<std::size_t>(kind)]; }

std::vector<FaultKind> fault_kinds(const std::string& comma_separated, std::string& unknown) {
  std::vector<FaultKind> kinds;
  std::istringstream words(comma_separated);
  for (std::string word; std::getline(words, word, ',');) {
    const auto at = std::ranges::find(kNames, word, [](const char* name) { return std::string(name); });
    if (at == kNames.end())
      unknown = word;
    else
      kinds.push_back(static_cast<FaultKind>(at - kNames.begin()));
  }
  return kinds;
}

std::string Fault::text() const {
  std::string who = kind == FaultKind::kStageCrash ? fmt::format("stage {}", stage)
                    : peer == kCoordinator         ? "coordinator"
                                                   : fmt::format("worker {}", peer);
  if (kind == FaultKind::kPartition || kind == FaultKind::kOneWay)
    who += other == kCoordinator ? ", coordinator" : fmt::format(", worker {}", other);
  return fmt::format("{:.3f} s {} ({}) for {:.3f} s, strength {:.3f}", to_seconds(start), name_of(kind), who,
                     to_seconds(length), strength);
}

std::vector<Fault> draw_faults(const protocol::Plan& plan, std::uint64_t seed, const std::vector<FaultKind>& kinds,
                               std::uint32_t count, Time begin, Time end) {
  const CounterRandom random(seed, "faults");
  std::uint64_t drawn = 0;
  const auto below = [&](std::uint64_t limit) { return random.below(limit, drawn++); };
  const auto uniform = [&] { return static_cast<double>(below(1'000'000)) * 1e-6; };
  std::uint32_t workers = 0;
  for (const auto& stage : plan.stages) workers += stage.replicas;
  std::vector<Fault> faults;
  for (std::uint32_t i = 0; i < count && !kinds.empty(); ++i) {
    Fault fault{};
    fault.kind = kinds[below(kinds.size())];
    fault.start = begin + seconds(uniform() * to_seconds(end - begin));
    fault.peer = PeerId(1 + static_cast<std::uint32_t>(below(workers)));
    fault.other = PeerId(static_cast<std::uint32_t>(below(workers + 1)));
    if (fault.other == fault.peer) fault.other = kCoordinator;
    fault.stage = StageId(static_cast<std::uint32_t>(below(plan.stages.size())));
    const double u = uniform();
    double length = 0.2 + 6 * uniform() * uniform();
    switch (fault.kind) {
      case FaultKind::kBandwidth:
        fault.strength = 2 + 30 * u;
        break;
      case FaultKind::kLatency:
        fault.strength = 0.05 + 0.5 * u;
        break;
      case FaultKind::kJitter:
        fault.strength = 0.02 + 0.5 * u;
        break;
      case FaultKind::kLoss:
      case FaultKind::kDuplicate:
      case FaultKind::kReorder:
      case FaultKind::kCorrupt:
        fault.strength = 0.01 + 0.3 * u;
        break;
      case FaultKind::kSlow:
        fault.strength = 2 + 10 * u;
        break;
      case FaultKind::kCrash:
      case FaultKind::kStageCrash:
        length = 0.05 + 3 * u;
        break;
      case FaultKind::kCoordinatorCrash:
      case FaultKind::kCoordinatorFreeze:
        length = 0.05 + 5 * u;
        fault.peer = kCoordinator;
        break;
      case FaultKind::kSleep:
      case FaultKind::kFreeze:
        length = 0.2 + 8 * u;
        break;
      case FaultKind::kAddress:
      case FaultKind::kCut:
        length = 0.05 + 2 * u;
        break;
      case FaultKind::kDiskFull:
        if (below(4) == 0) fault.peer = kCoordinator;
        break;
      default:
        break;
    }
    fault.length = std::min<Duration>(seconds(length), end - fault.start);
    faults.push_back(fault);
  }
  std::ranges::sort(faults, {}, &Fault::start);
  return faults;
}

}  // namespace isthmus::sim
