#pragma once

#include <cstdint>
#include <string>

namespace isthmus::spec {

// What one machine decides for itself: it is never sent, and no part of the run's digest. Keys stand in the run file,
// or in a host file of their own, in the sections named here. Filled and checked by config/load_run.h; const from then
// on. Defaults stand here and nowhere else.
struct HostConfig {
  // [data]: where the token shards are; the coordinator reads them, a worker does not.
  struct Data {
    std::string train;
    std::string validation;
    friend bool operator==(const Data&, const Data&) = default;
  } data;

  // [link]: what this machine may send, in Mb/s; 0: what the run assumes, link.bandwidth_mbps.
  double uplink_mbps = 0;
  // What it fetches to join a stage; 0: as fast as it comes.
  double downlink_mbps = 0;

  // [pipeline]
  std::string device = "cpu";  // cpu | cuda | emulated
  std::uint32_t threads = 0;   // compute threads per worker; 0: cores / workers, 1 in deterministic mode
  // Activations a worker may keep for its microbatches in flight, in MiB. What does not fit is recomputed.
  std::uint64_t activation_mb = 4096;
  std::string recompute = "auto";  // auto | always | never

  // [recovery]
  // Disk that a worker may use to remember what it sent to its neighbours, in MiB; 0: nothing is remembered, and a
  // stage that loses all its replicas takes the whole run back to a checkpoint.
  std::uint64_t journal_mb = 1024;
  // `isthmus train` starts a process that died again.
  bool replace = true;

  friend bool operator==(const HostConfig&, const HostConfig&) = default;
};

}  // namespace isthmus::spec
