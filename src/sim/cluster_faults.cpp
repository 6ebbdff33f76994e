// What breaks, and when it is whole again.

#include <algorithm>
#include <utility>

#include "sim/cluster.h"

namespace isthmus::sim {

void Cluster::add(const Fault& fault) {
  at(fault.start, [this, fault] { begin(fault); });
  at(fault.start + fault.length, [this, fault] { end(fault); });
}

void Cluster::cut_off(PeerId peer, bool from_the_coordinator) {
  for (const auto& seat : seats_)
    if (seat.peer != peer) {
      lose(peer, seat.peer);
      lose(seat.peer, peer);
      if (from_the_coordinator) network_.drop(peer, seat.peer);
    }
  if (!from_the_coordinator) return;
  lose(peer, kCoordinator);
  lose(kCoordinator, peer);
}

void Cluster::connect_to_all(PeerId peer) {
  for (const auto& seat : seats_)
    if (seat.peer != peer) connect(peer, seat.peer);
  connect(peer, kCoordinator);
}

void Cluster::begin(const Fault& fault) {
  note(3, static_cast<std::uint64_t>(fault.kind));
  network_.change(fault, true);
  switch (fault.kind) {
    case FaultKind::kPartition:
      lose(fault.peer, fault.other);
      lose(fault.other, fault.peer);
      break;
    case FaultKind::kCut:
      cut_off(fault.peer, false);
      break;
    case FaultKind::kAddress:
      cut_off(fault.peer, true);
      break;
    case FaultKind::kRelay:
      for (const auto& a : workers_)
        for (const auto& b : workers_)
          if (a.peer < b.peer && network_.broken(a.peer, b.peer)) {
            lose(a.peer, b.peer);
            lose(b.peer, a.peer);
            network_.drop(a.peer, b.peer);
          }
      break;
    case FaultKind::kSleep:
    case FaultKind::kFreeze:
      worker_of(fault.peer).frozen_until = std::max(worker_of(fault.peer).frozen_until, fault.start + fault.length);
      break;
    case FaultKind::kCrash:
      worker_of(fault.peer).die_in = static_cast<int>(draws_.below(12));
      break;
    case FaultKind::kStageCrash:
      for (const auto& worker : workers_)
        if (worker.stage == fault.stage) kill_worker(worker.peer, fault.length);
      break;
    case FaultKind::kSlow:
      worker_of(fault.peer).slow = fault.strength;
      break;
    case FaultKind::kMove:
      in_coordinator(coordinator_.life, [this, fault](coordinator::Coordinator& c) {
        return c.move(fault.peer, fault.stage, "asked to", now_);
      });
      break;
    case FaultKind::kLeave:
      worker_of(fault.peer).asked_to_leave = true;
      in_worker(fault.peer, worker_of(fault.peer).life,
                [this](router::WorkerSteps& steps) { return steps.say_good_bye(now_); });
      break;
    case FaultKind::kCoordinatorCrash:
      coordinator_.die_in = static_cast<int>(draws_.below(6));
      break;
    case FaultKind::kCoordinatorFreeze:
      coordinator_.frozen_until = std::max(coordinator_.frozen_until, fault.start + fault.length);
      break;
    case FaultKind::kDiskFull:
      (fault.peer == kCoordinator ? coordinator_.disk_full_until : worker_of(fault.peer).disk_full_until) =
          fault.start + fault.length;
      break;
    default:
      break;
  }
}

void Cluster::end(const Fault& fault) {
  network_.change(fault, false);
  switch (fault.kind) {
    case FaultKind::kPartition:
      connect(fault.peer, fault.other);
      break;
    case FaultKind::kOneWay:
      if (!network_.connected(fault.peer, fault.other)) connect(fault.peer, fault.other);
      break;
    case FaultKind::kCut:
    case FaultKind::kAddress:
      connect_to_all(fault.peer);
      break;
    case FaultKind::kRelay:
      for (const auto& a : workers_)
        for (const auto& b : workers_)
          if (a.peer < b.peer && !network_.connected(a.peer, b.peer)) connect(a.peer, b.peer);
      break;
    case FaultKind::kSleep:
      cut_off(fault.peer, true);
      connect_to_all(fault.peer);
      break;
    case FaultKind::kSlow:
      worker_of(fault.peer).slow = 1;
      break;
    // It was idle until now, so it did not get to the effect it should have died at.
    case FaultKind::kCrash:
      if (std::exchange(worker_of(fault.peer).die_in, -1) >= 0) kill_worker(fault.peer, seconds(0.1));
      break;
    case FaultKind::kCoordinatorCrash:
      if (std::exchange(coordinator_.die_in, -1) >= 0) kill_coordinator(seconds(0.1));
      break;
    default:
      break;
  }
}

void Cluster::connect(PeerId a, PeerId b) {
  if (network_.connect(a, b)) join(a, b);
}

}  // namespace isthmus::sim
