#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "app/vaulted_checkpoints.h"
#include "base/time.h"
#include "protocol/message.h"
#include "router/spare_uplink.h"
#include "store/checkpoint_archive.h"

namespace isthmus::app {

// A worker's side of the vault: gives the coordinator the pieces of its checkpoints that it asks for, slowly, behind
// training; and gets from it the checkpoint that its stage has lost, several pieces at a time, each asked for again
// when it does not come. What is here of that stays, also when the process ends. All calls from one thread.
class CheckpointCourier {
 public:
  struct Options {
    std::uint64_t bytes_max = 0;  // of a checkpoint
    Duration ask_after{};         // an answer that is owed is asked for again
  };
  CheckpointCourier(VaultedCheckpoints& checkpoints, const Options& options)
      : checkpoints_(checkpoints), options_(options) {}

  void received(const protocol::CheckpointRequest& request);
  // False if nobody asked for it.
  bool received(const protocol::CheckpointPiece& piece);
  // The connection to the coordinator was made anew: what was asked is lost, and so is what it asked.
  void ask_anew();
  // What goes to the coordinator now. A checkpoint takes what training leaves of the uplink.
  std::vector<protocol::Message> turn(std::uint32_t timeline, router::SpareUplink& uplink, Time now);
  Time next_due(const router::SpareUplink& uplink) const;
  // For people; empty: nothing comes.
  std::string progress() const;

 private:
  protocol::CheckpointPiece answer(const protocol::CheckpointRequest& request);
  void end_fetch(Result<store::ArchiveWriter> archive);
  void ask(Time now, std::vector<protocol::Message>& messages);

  VaultedCheckpoints& checkpoints_;
  const Options options_;

  std::deque<protocol::CheckpointRequest> requests_;
  std::optional<store::ArchiveReader> reader_;

  struct Fetch {
    Fetch(std::uint64_t wanted, std::uint32_t as_timeline) : version(wanted), timeline(as_timeline) {}
    std::uint64_t version;
    std::uint32_t timeline;
    std::optional<store::ArchiveWriter> writer;  // once it is known what comes
    CheckpointFacts facts;
    std::uint32_t next = 0;                     // the piece that is written next
    std::map<std::uint32_t, Time> asked;        // and when
    std::map<std::uint32_t, SharedBytes> here;  // behind it
  };
  std::optional<Fetch> fetch_;
};

}  // namespace isthmus::app
