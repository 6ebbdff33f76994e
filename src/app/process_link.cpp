#include "app/process_link.h"

#include <algorithm>
#include <utility>

#include "process/clock.h"
#include "process/open_files.h"
#include "process/signals.h"

namespace isthmus::app {

namespace {

constexpr Duration kSleep = seconds(15);

}  // namespace

Result<std::unique_ptr<ProcessLink>> ProcessLink::open(const spec::RunConfig& run, const protocol::Plan& plan,
                                                       Options options) {
  std::uint64_t workers = 0;
  for (const auto& stage : plan.stages) workers += stage.replicas;
  if (auto enough = process::allow_open_files(process::open_files_of(workers)); !enough)
    return tl::unexpected(enough.error());
  std::unique_ptr<ProcessLink> link(new ProcessLink);
  transport::ZmqTransport::Options sockets;
  sockets.self = options.self;
  sockets.keys = options.keys;
  sockets.run_id = plan.run_id;
  sockets.roster = options.roster;
  sockets.bind_host = options.host;
  sockets.port = options.port;
  auto opened = transport::ZmqTransport::open(std::move(sockets));
  if (!opened) return tl::unexpected(opened.error());
  link->sockets_ = std::move(*opened);
  link->transport_ = link->sockets_.get();
  if (run.link.emulate) {
    transport::LinkShape shape;
    shape.bits_per_second = run.link.bandwidth_mbps * 1e6;
    shape.latency = seconds(run.link.latency_ms * 1e-3);
    shape.jitter = seconds(run.link.jitter_ms * 1e-3);
    shape.loss = run.link.loss;
    shape.seed = run.run.seed + options.self.value;
    link->shaped_ = std::make_unique<transport::ShapedTransport>(*link->sockets_, shape);
    link->transport_ = link->shaped_.get();
  }
  link->messenger_ = std::make_unique<wire::Messenger>(*link->transport_, plan.run_id, wire::Limits::of(plan));
  return link;
}

ProcessLink::Turn ProcessLink::turn(Time until, std::span<const int> descriptors) {
  const Time now = process::monotonic_now();
  const Time due = std::min(until, transport_->next_due());
  std::vector<int> all(descriptors.begin(), descriptors.end());
  all.push_back(process::signal_descriptor());
  sockets_->wait(due > now ? due - now : Duration{}, all);
  (void)process::received_signal();  // noted: it wakes nobody twice
  Turn turn;
  turn.now = process::monotonic_now();
  // A machine that slept: nobody at the other end of its connections has waited.
  turn.slept = due != kNever && turn.now - std::max(now, due) > kSleep;
  if (turn.slept) sockets_->dial_again();
  for (auto& event : transport_->poll(turn.now)) {
    if (auto* received = std::get_if<transport::FrameReceived>(&event)) {
      const PeerId from = received->frame.peer;
      if (auto message = messenger_->receive(std::move(received->frame)))
        turn.messages.push_back({from, std::move(*message)});
    } else if (const auto* connected = std::get_if<transport::PeerConnected>(&event)) {
      turn.connected.push_back(*connected);
      connected_.insert(connected->peer);
    } else if (const auto* lost = std::get_if<transport::PeerDisconnected>(&event)) {
      messenger_->forget(lost->peer);
      turn.disconnected.push_back(lost->peer);
      connected_.erase(lost->peer);
    }
  }
  return turn;
}

void ProcessLink::send(PeerId to, const protocol::Message& message) { messenger_->send(to, message); }

void ProcessLink::connect(PeerId peer, const protocol::Endpoints& endpoints, const protocol::PublicKey& key) {
  sockets_->connect(peer, endpoints, key);
}

void ProcessLink::allow(PeerId peer, const protocol::PublicKey& key) { sockets_->allow(peer, key); }

void ProcessLink::shut_out(PeerId peer) { sockets_->shut_out(peer); }

void ProcessLink::flush(Time until) {
  while (transport_->queued_bytes() > 0 && process::monotonic_now() < until) turn(until, {});
}

void ProcessLink::wait_until_left(Time until) {
  while (!connected_.empty() && process::monotonic_now() < until) turn(until, {});
}

}  // namespace isthmus::app
