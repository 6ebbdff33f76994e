#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/counter_random.h"
#include "base/ids.h"
#include "base/time.h"
#include "protocol/effects.h"
#include "protocol/message.h"
#include "protocol/plan.h"
#include "protocol/report.h"
#include "protocol/view.h"
#include "router/combination.h"
#include "router/connections.h"
#include "router/link_probe.h"
#include "router/microbatch_flow.h"
#include "router/outer_exchange.h"
#include "router/preparation.h"
#include "router/sibling_fetch.h"
#include "router/stage_rebuild.h"
#include "router/state_donor.h"
#include "router/token_supply.h"
#include "router/worker_context.h"

namespace isthmus::router {

// The worker's half of the step protocol (docs/protocol.md): views, fences, commits, phases, reports. Microbatches,
// the combination of gradients and the ways to catch up are parts of their own. A pure state machine: views, messages,
// job results and time go in, effects come out. Owned by the worker's io thread (in simulation, by the one thread
// there is).
class WorkerSteps {
 public:
  // What the weights in the compute thread are: steps they have seen, and the timeline of their checkpoint.
  struct Origin {
    std::uint64_t version = 0;
    std::uint32_t timeline = 0;
  };
  // `session_seed` must be fresh for every process start (the operating system's randomness); sessions are drawn from
  // it.
  WorkerSteps(const protocol::Plan& plan, WorkerIdentity identity, Origin origin, std::uint64_t session_seed);
  WorkerSteps(const WorkerSteps&) = delete;
  WorkerSteps& operator=(const WorkerSteps&) = delete;

  std::vector<protocol::WorkerEffect> view_received(const protocol::View& view, Time now);
  std::vector<protocol::WorkerEffect> message_received(PeerId from, protocol::Message message, Time now);
  // From the coordinator: what a head reads.
  std::vector<protocol::WorkerEffect> tokens_received(const protocol::TokenIds& ids, Time now);
  std::vector<protocol::WorkerEffect> job_done(protocol::JobResult result, Time now);
  // The connection to a peer was (re)made: what may have been lost with the old one is asked for again.
  std::vector<protocol::WorkerEffect> peer_connected(PeerId peer, Time now);
  std::vector<protocol::WorkerEffect> peer_lost(PeerId peer, Time now);
  std::vector<protocol::WorkerEffect> tick(Time now);
  Time next_due() const;
  // Says good-bye: hands back what it has not begun, and leaves (protocol::Leave) once the coordinator says that nobody
  // waits for anything of it, or after kPatience and four of its last step.
  std::vector<protocol::WorkerEffect> say_good_bye(Time now);
  // … leaves now, whatever it holds, and says so.
  std::vector<protocol::WorkerEffect> leave_at_once(Time now);
  bool is_leaving() const { return leave_by_ != kNever; }

  // What it did that counts: committed steps that it took part in, and microbatches of them.
  struct Given {
    std::uint64_t steps = 0;
    std::uint64_t microbatches = 0;
  };
  const Given& given() const { return given_; }

  // For what else the process sends.
  SpareUplink& uplink() { return context_.uplink; }

  // Filled into every Report; the process keeps the counters.
  void set_stats(const protocol::WorkerStats& stats) { stats_ = stats; }
  // It can be reached there from now on, on its own network.
  void set_endpoints(const protocol::Endpoints& endpoints) { endpoints_ = endpoints; }

  // Why the device is idle, for people; empty while it works.
  std::string waiting_for() const;
  // Why it has not left yet, for people. REQUIRES: is_leaving().
  std::string stays_for() const;

  SessionId session() const { return context_.session; }
  std::uint64_t version() const { return version_; }
  const protocol::View& view() const { return context_.view; }
  // Messages dropped by the fences.
  std::uint64_t refused() const { return refused_ + flow_.refused(); }
  // For the bounds that tests hold: bytes in custody, messages held for a newer view, samples here or asked for.
  std::uint64_t custody_bytes() const { return flow_.custody_bytes(); }
  std::size_t held_messages() const { return held_.size(); }
  std::size_t samples() const { return tokens_.size(); }

 private:
  struct HeldMessage {
    PeerId from;
    protocol::Message message;
  };
  // Of this process in its place.
  enum class Life : std::uint8_t {
    kServing,
    kLeaving,   // the run is over: its last jobs were started
    kLeft,      // … and are done; it waits for the coordinator's word
    kReleased,  // it said good-bye and has no seat any more; its last checkpoint is being written
    kGone,      // Leave or BeginAt was given out
  };

  void adopt(const protocol::View& view, Time now);
  void roll_back(const protocol::View& view);
  void apply_commit(const protocol::Commit& commit, Time now);
  void save(std::uint64_t version);
  void clear_step(bool drop_accumulator);
  void new_session();
  void leave();
  void leave_phase(Time now);
  void be_released(const protocol::View& view, Time now);
  Time goes_at() const;
  void catch_up(Time now);
  void ask_again(PeerId peer, Time now);
  void trim_journal();
  void tell(News news);
  // A sync is under way, and this replica is one of those who agree.
  bool syncing() const { return context_.live() && context_.syncs() && context_.view.step.value == version_ + 1; }
  void release_held(Time now);

  void dispatch(PeerId from, const protocol::Message& message, Time now);
  template <class Body>
  void dispatch_tagged(PeerId from, const Body& body, Time now);
  void operation_done(const protocol::OperationDone& done, Time now);
  void run_next(Time now);
  void report(Time now);
  void refuse() { ++refused_; }
  void note_sent(const protocol::Message& message, Time now);
  std::vector<protocol::WorkerEffect> finish(Time now);

  // Whoever says good-bye waits so long to be let go, at least.
  static constexpr Duration kPatience = seconds(30);
  // News wait so long for more of it.
  static constexpr Duration kCoalesce = std::chrono::milliseconds(100);

  const CounterRandom session_source_;
  std::uint64_t sessions_drawn_ = 0;
  WorkerContext context_;
  Connections connections_;
  TokenSupply tokens_;
  MicrobatchFlow flow_;
  Combination combination_;
  OuterExchange exchange_;
  StateDonor donor_;
  Preparation preparation_;
  SiblingFetch fetch_;
  StageRebuild rebuild_;
  LinkProbe probe_;

  protocol::Endpoints endpoints_;
  std::uint64_t version_;
  std::uint32_t timeline_;
  Life life_ = Life::kServing;
  std::uint32_t loading_ = 0;      // so many times another version is to be read from the disk, or the vault
  std::uint64_t asked_vault_ = 0;  // for this version; if it had it, the weights are as new now
  Time asked_vault_at_{};
  std::uint64_t checkpointed_;
  std::uint64_t save_started_;
  std::uint64_t trimmed_ = 0;
  std::deque<HeldMessage> held_;
  struct Running {
    protocol::JobTag tag;
    protocol::Task task;
    friend bool operator==(const Running&, const Running&) = default;
  };
  std::optional<Running> running_;  // on the device
  Time coordinator_lost_ = kNever;
  std::uint32_t saves_ = 0;  // under way
  Time leave_by_ = kNever;   // once it said good-bye
  bool going_ = false;       // it waits no longer
  Given given_;
  Time applied_{};         // the newest commit
  Duration step_takes_{};  // from one commit to the next, the last time
  bool digests_here_ = false;
  std::vector<protocol::UnitDigest> weights_;
  std::string fault_;
  std::string warning_;
  protocol::WorkerStats stats_;
  std::uint64_t refused_ = 0;
  DoneSet returned_told_;  // Report::returned, as it was told last
  bool report_changed_ = true;
  Time last_report_{};
};

}  // namespace isthmus::router
