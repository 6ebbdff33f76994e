#include "record/trace.h"

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "record/line_file.h"

namespace isthmus::record {

using nlohmann::json;

namespace {

constexpr const char* kLanes[] = {"forward", "input gradient", "weight gradient", "send", "receive", "wait"};

int lane_number(const std::string& lane) {
  for (int i = 0; i < 6; ++i)
    if (lane == kLanes[i]) return i;
  return 6;
}

double microseconds(Time t) { return static_cast<double>(t.count()) / 1000.0; }

}  // namespace

void Trace::span(const char* lane, std::string name, Time start, Time end) {
  spans_.push_back({lane, std::move(name), start, end});
}

Status Trace::write(const std::string& path, PeerId peer, StageId stage) const {
  std::string text;
  const auto add = [&](const json& event) { text += event.dump() + "\n"; };
  add({{"name", "process_name"},
       {"ph", "M"},
       {"pid", peer.value},
       {"args", {{"name", fmt::format("worker {} (stage {})", peer, stage)}}}});
  for (const char* lane : kLanes)
    add({{"name", "thread_name"},
         {"ph", "M"},
         {"pid", peer.value},
         {"tid", lane_number(lane)},
         {"args", {{"name", lane}}}});
  for (const auto& span : spans_)
    add({{"name", span.name},
         {"ph", "X"},
         {"pid", peer.value},
         {"tid", lane_number(span.lane)},
         {"ts", microseconds(span.start)},
         {"dur", microseconds(span.end - span.start)}});
  return write_whole(path, text);
}

Status join_traces(const RunFolder& folder, std::uint32_t peers) {
  std::string text = "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[";
  bool first = true;
  for (std::uint32_t peer = 1; peer <= peers; ++peer) {
    const auto part = read_whole(WorkerHome{folder.worker_home(peer)}.trace(), kLogBytesMax);
    if (!part) continue;  // a worker that died left none
    for (std::size_t at = 0; at < part->size();) {
      const std::size_t end = std::min(part->find('\n', at), part->size());
      if (!first) text += ",";
      first = false;
      text += "\n";
      text.append(*part, at, end - at);
      at = end + 1;
    }
    std::filesystem::remove(WorkerHome{folder.worker_home(peer)}.trace());
  }
  return write_whole(folder.trace(), text + "\n]}\n");
}

}  // namespace isthmus::record
