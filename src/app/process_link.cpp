#include "app/process_link.h"

#include <algorithm>
#include <utility>

#include "app/clock.h"

namespace isthmus {

Result<std::unique_ptr<ProcessLink>> ProcessLink::open(const RunConfig& run, const Plan& plan, Options options) {
  std::unique_ptr<ProcessLink> link(new ProcessLink);
  ZmqTransport::Options sockets;
  sockets.self = options.self;
  sockets.keys = options.keys;
  sockets.run_id = plan.run_id;
  sockets.roster = options.roster;
  sockets.bind_host = options.host;
  sockets.port = options.port;
  sockets.bulk_port = options.bulk_port;
  auto opened = ZmqTransport::open(std::move(sockets));
  if (!opened) return tl::unexpected(opened.error());
  link->sockets_ = std::move(*opened);
  link->transport_ = link->sockets_.get();
  if (run.link.emulate) {
    LinkShape shape;
    shape.bits_per_second = run.link.bandwidth_mbps * 1e6;
    shape.latency = seconds(run.link.latency_ms * 1e-3);
    shape.jitter = seconds(run.link.jitter_ms * 1e-3);
    shape.loss = run.link.loss;
    shape.seed = run.run.seed + options.self.value;
    link->shaped_ = std::make_unique<ShapedTransport>(*link->sockets_, shape);
    link->transport_ = link->shaped_.get();
  }
  link->messenger_ = std::make_unique<Messenger>(*link->transport_, plan.run_id, Limits::of(plan));
  return link;
}

ProcessLink::Turn ProcessLink::turn(Time until, int fd) {
  const Time now = monotonic_now();
  const Time due = std::min(until, transport_->next_due());
  sockets_->wait(due > now ? due - now : Duration{}, fd);
  Turn turn;
  turn.now = monotonic_now();
  for (auto& event : transport_->poll(turn.now)) {
    if (auto* received = std::get_if<FrameReceived>(&event)) {
      const PeerId from = received->frame.peer;
      if (auto message = messenger_->receive(std::move(received->frame)))
        turn.messages.push_back({from, std::move(*message)});
    } else if (const auto* connected = std::get_if<PeerConnected>(&event)) {
      turn.connected.push_back(connected->peer);
      connected_.insert(connected->peer);
    } else if (const auto* lost = std::get_if<PeerDisconnected>(&event)) {
      messenger_->forget(lost->peer);
      turn.disconnected.push_back(lost->peer);
      connected_.erase(lost->peer);
    }
  }
  return turn;
}

void ProcessLink::send(PeerId to, const Message& message) { messenger_->send(to, message); }

void ProcessLink::connect(PeerId peer, const Endpoints& endpoints, const PublicKey& key) {
  sockets_->connect(peer, endpoints, key);
}

void ProcessLink::allow(PeerId peer, const PublicKey& key) { sockets_->allow(peer, key); }

void ProcessLink::flush(Time until) {
  while (transport_->queued_bytes() > 0 && monotonic_now() < until) turn(until, -1);
}

void ProcessLink::wait_until_left(Time until) {
  while (!connected_.empty() && monotonic_now() < until) turn(until, -1);
}

}  // namespace isthmus
