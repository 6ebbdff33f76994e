#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "base/result.h"
#include "protocol/message.h"
#include "protocol/report.h"
#include "transport/transport.h"
#include "wire/frame.h"
#include "wire/message_codec.h"

namespace isthmus::wire {

// Messages over a Transport: cuts a payload into chunks without copying it, puts it together again on the other side,
// refuses what the run's limits do not allow, counts bytes. Pure but for the transport. One thread.
class Messenger {
 public:
  Messenger(transport::Transport& transport, std::uint64_t run_id, const Limits& limits)
      : transport_(transport), run_id_(run_id), limits_(limits) {}

  void send(PeerId to, const protocol::Message& message);
  // The message that this frame completes; nothing if more has to come or the frame was refused.
  std::optional<protocol::Message> receive(transport::Frame frame);
  // The connection to the peer broke: half-received messages will not be finished.
  void forget(PeerId peer);

  // Adds the byte counters: everything handed to and taken from the transport, headers included.
  void add_to(protocol::WorkerStats& stats) const;
  std::uint64_t rejected() const { return rejected_; }
  // Why the last frame was refused.
  const std::string& last_rejection() const { return last_rejection_; }

 private:
  struct Transfer {
    std::uint32_t id = 0;
    protocol::Message message;
    std::uint64_t total = 0;
    Bytes values;
    Bytes tokens;
    std::uint64_t values_bytes = 0;
  };
  Status accept(const transport::Frame& frame, std::optional<protocol::Message>& complete);
  void add_slice(Transfer& transfer, ByteView slice);
  std::optional<protocol::Message> finish(Transfer& transfer);

  transport::Transport& transport_;
  const std::uint64_t run_id_;
  const Limits limits_;
  std::map<PeerId, std::uint32_t> next_transfer_;
  // Frames of one peer and kind arrive in order, so one message of each kind can be open.
  std::map<std::pair<PeerId, std::uint8_t>, Transfer> open_;
  std::array<std::uint64_t, 4> sent_{};  // by Traffic
  std::uint64_t boundary_received_ = 0;
  std::uint64_t control_received_ = 0;
  std::uint64_t rejected_ = 0;
  std::string last_rejection_;
};

}  // namespace isthmus::wire
