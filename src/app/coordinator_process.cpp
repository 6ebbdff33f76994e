#include "app/coordinator_process.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <optional>
#include <utility>
#include <vector>

#include "app/front_desk.h"
#include "app/no_checkpoint.h"
#include "app/owner_desk.h"
#include "app/process_link.h"
#include "app/received_run.h"
#include "app/relay_desk.h"
#include "app/run_vault.h"
#include "app/vault_server.h"
#include "app/whereabouts.h"
#include "base/digest.h"
#include "config/load_run.h"
#include "process/admin_socket.h"
#include "process/clock.h"
#include "process/line_reader.h"
#include "process/signals.h"
#include "record/decision_log.h"
#include "record/fleet_file.h"
#include "record/progress.h"
#include "record/run_record.h"
#include "scheduler/coordinator/coordinator.h"
#include "scheduler/planner/make_plan.h"
#include "transport/address.h"

namespace isthmus::app {

namespace {

// A machine that loads, saves and computes at once may not look at its sockets for seconds.
constexpr Duration kLastWord = seconds(10);
// A run that is over waits for its last checkpoints while some of them has come within this time.
constexpr Duration kVaultStands = seconds(60);

class CoordinatorProcess {
 public:
  CoordinatorProcess(const spec::RunConfig& run, const CoordinatorOptions& options, TokenServer tokens)
      : options_(options),
        run_(run),
        plan_(planner::make_plan(run)),
        control_(options.control_fd),
        tokens_(std::move(tokens)),
        progress_(run, stdout),
        fleet_(options.folder.fleet(), run) {}

  int serve() {
    if (auto ready = open(); !ready) {
      spdlog::error("{}", ready.error().message);
      return 1;
    }
    if (options_.begin_at) carry_out(coordinator_->begin(*options_.begin_at, process::monotonic_now()));
    while (!exit_code_) turn();
    // A worker leaves when it reads that the run has ended; one that misses it waits for its whole patience.
    link_->wait_until_left(process::monotonic_now() + kLastWord);
    return *exit_code_;
  }

 private:
  Status open() {
    auto identity = Identity::keep(options_.folder.coordinator_identity());
    if (!identity) return tl::unexpected(identity.error());
    ProcessLink::Options link;
    link.self = kCoordinator;
    link.keys = transport::key_pair_of(*identity);
    link.host = options_.host;
    link.port = options_.port;
    auto opened = ProcessLink::open(run_, plan_, std::move(link));
    if (!opened) return tl::unexpected(opened.error());
    link_ = std::move(*opened);
    transport::Door::Options at_door;
    at_door.keys = transport::key_pair_of(*identity);
    at_door.host = options_.host;
    at_door.port = options_.port == 0 ? 0 : options_.port + 2u;
    auto door = transport::Door::open(at_door);
    if (!door) return tl::unexpected(door.error());

    auto relays = RelayDesk::open(options_, plan_.run_id);
    if (!relays) return tl::unexpected(relays.error());
    relays_.emplace(std::move(*relays));
    whereabouts_.emplace(transport::key_pair_of(*identity));

    // Only now: a port in use must leave nothing behind that looks like a run.
    auto log = record::DecisionLog::open(options_.folder.decision_log(), *identity);
    if (!log) return tl::unexpected(log.error());
    if (options_.begin_at) version_ = *options_.begin_at;
    for (const auto& record : log->records())
      if (const auto* init = std::get_if<coordinator::InitRecord>(&record); init && !options_.begin_at)
        version_ = init->version;
    auto record = record::RunRecord::open(options_.folder, run_, plan_, version_, process::monotonic_now());
    if (!record) return tl::unexpected(record.error());

    coordinator::Coordinator::Options limits;
    limits.clip = run_.train.clip;
    limits.guard = coordinator::StepGuard::Options::of(run_);
    limits.checkpoints_kept = run_.checkpoint.keep;
    if (run_.recovery.rebalance) {
      limits.rebalance.emplace();
      limits.rebalance->bits_per_second = run_.link.bandwidth_mbps * 1e6;
    }
    limits.measure = seconds(run_.link.measure_s);
    limits.trust = {static_cast<std::uint32_t>(plan_.stages.size()), run_.trust.ends == "owner",
                    run_.trust.stages_per_identity};
    if (const auto& silence = run_.recovery.silence_s) limits.silence = limits.remote_silence = seconds(*silence);
    if (const auto& back = run_.recovery.reconnect_s) limits.reconnect = limits.remote_reconnect = seconds(*back);
    limits.vault = !options_.vault.empty();
    if (auto ready = open_vault(); !ready) return ready;
    coordinator_.emplace(plan_, limits);
    if (vault_)
      for (const auto& [stage, version] : vault_->newest())
        if (stage.value < plan_.stages.size()) coordinator_->vault_has(stage, version);
    coordinator_->replay(log->records());
    if (!options_.begin_at)
      if (auto repaired = record->take_up(log->records()); !repaired) return repaired;
    log_.emplace(std::move(*log));
    record_.emplace(std::move(*record));
    for (const auto& [peer, known] : coordinator_->decisions().peers)
      if (!known.revoked) link_->allow(peer, known.key);
    for (const auto& member : coordinator_->decisions().live) whereabouts_->remember(member);
    return let_ask(std::move(*door), *identity);
  }

  Status open_vault() {
    if (options_.vault.empty()) return {};
    auto sealed = open_run_vault(options_.folder, options_.vault, plan_.run_id, options_.owner_key);
    if (!sealed) return tl::unexpected(sealed.error());
    VaultServer::Options vault;
    vault.patience = std::max<Duration>(seconds(10), 4 * ask_after(run_, plan_));
    vault.bytes_per_second = run_.uplink();
    vault.keep = run_.checkpoint.keep;
    vault.siblings_agree = run_.sync.mode == "exact";
    auto opened = VaultServer::open(std::move(*sealed), plan_, vault);
    if (!opened) return tl::unexpected(opened.error());
    vault_ = std::move(*opened);
    return keep_vault_place(options_.folder, options_.vault);
  }

  // Whoever has an invite may ask from now on; one that never expires is in OUT/join, for this machine's workers.
  Status let_ask(std::unique_ptr<transport::Door> door, const Identity& identity) {
    Invite join;
    join.run_id = plan_.run_id;
    join.coordinator = identity.key();
    door_ = *transport::read_address(door->endpoint());
    // This machine's workers need no name service and no router.
    join.doors = {transport::is_wildcard(door_.host) ? transport::Address{"127.0.0.1", door_.port}.text()
                                                     : door_.text()};
    join.key = transport::new_key_pair();
    // One key for as long as the run lasts: who read it once may come back with it.
    if (const auto before = read_invite_file(options_.folder.join_file());
        before && before->coordinator == identity.key())
      join.key = before->key;
    Invite invite = join;
    invite.doors = doors_of(options_.advertise, door_);
    if (!coordinator_->decisions().invites.contains(join.key.public_key))
      carry_out(coordinator_->invite({join.key.public_key, 0, 0, {}, true}, process::monotonic_now()));
    for (const auto& [key, invite] : coordinator_->decisions().invites) door->let_in(key);
    const bool known_before = !coordinator_->decisions().peers.empty();
    desk_.emplace(std::move(door), EnrolTerms{plan_.run_id, identity.key(), {}}, known_before ? 0 : options_.expected);
    owner_.emplace(OwnerDesk::Run{run_, plan_, *record_, *coordinator_, *desk_, std::move(invite),
                                  [this] { return vault_ ? vault_->progress() : std::string(); },
                                  [this](auto effects) {
                                    carry_out(std::move(effects));
                                    return !broken_;
                                  }});
    auto admin = process::AdminSocket::listen(options_.folder.path);
    if (!admin) return tl::unexpected(admin.error());
    admin_.emplace(std::move(*admin));
    return write_invite_file(options_.folder.join_file(), join);
  }

  void turn() {
    std::vector<int> descriptors = desk_->descriptors();
    descriptors.push_back(control_.fd());
    for (const int fd : admin_->descriptors()) descriptors.push_back(fd);
    if (vault_) descriptors.push_back(vault_->descriptor());
    const Time due = std::min({coordinator_->next_due(), desk_->next_due(), tokens_.desk().next_due(),
                               vault_ ? vault_->next_due() : kNever, whereabouts_->next_due(process::monotonic_now())});
    auto turn = link_->turn(due, descriptors);
    const Time now = process::monotonic_now();
    if (const auto rejected = link_->messenger().rejected(); rejected != rejected_) {
      rejected_ = rejected;
      carry_out({coordinator::Happened{
          coordinator_->decisions().step,
          coordinator::events::Refused{kCoordinator, "frame from " + link_->messenger().last_rejection()}}});
    }
    for (const auto& connection : turn.connected) {
      whereabouts_->seen(connection.peer, connection.address);
      carry_out(coordinator_->connected(connection.peer, now));
    }
    for (const auto& arrival : turn.messages) {
      if (const auto* report = std::get_if<protocol::Report>(&arrival.message))
        reported(arrival.from, *report, now);
      else if (const auto* request = std::get_if<protocol::TokenRequest>(&arrival.message))
        take(arrival.from, *request, now);
      else if (const auto* wish = std::get_if<protocol::CheckpointRequest>(&arrival.message))
        take(arrival.from, *wish);
      else if (const auto* piece = std::get_if<protocol::CheckpointPiece>(&arrival.message); piece && vault_)
        vault_->received(arrival.from, *piece, now);
    }
    for (const auto& located : whereabouts_->poll(now)) take(located, now);
    for (const PeerId peer : turn.disconnected) {
      tokens_.desk().forget(peer);
      if (vault_) vault_->forget(peer);
      carry_out(coordinator_->disconnected(peer, now));
    }
    for (auto& [to, ids] : tokens_.answers(coordinator_->decisions(), now)) link_->send(to, std::move(ids));
    if (vault_) tend_vault(now);
    // Last: whoever died and was started again is not taken for two.
    for (const auto& ask : desk_->poll(now)) answer(ask, now);
    while (const auto line = control_.next()) do_as_told(*line, now);
    for (const auto& request : admin_->poll()) admin_->answer(request, owner_->asked(request.line, now));
    if (const int signal = process::received_signal(); signal != 0 && !stop_code_) {
      stop_code_ = 130;
      carry_out(coordinator_->stop("interrupted", now));
    }
    if (now >= coordinator_->next_due()) carry_out(coordinator_->tick(now));
    tell_of_strangers(now);
    show(now);
  }

  void tend_vault(Time now) {
    auto turn = vault_->turn(coordinator_->decisions(), coordinator_->checkpoint_holders(), now);
    for (auto& [to, message] : turn.messages) link_->send(to, message);
    for (const auto& trouble : turn.troubles)
      carry_out({coordinator::Happened{coordinator_->decisions().step,
                                       coordinator::events::Warning{kCoordinator, "vault: " + trouble}}});
    if (!turn.vaulted.empty() || vault_->pieces_received() != vault_pieces_ || !is_over()) vault_moved_ = now;
    vault_pieces_ = vault_->pieces_received();
    coordinator_->vault_takes(vault_->takes());
    coordinator_->vault_is_busy(!vault_->settled(plan_.final_step().value - 1) && now - vault_moved_ < kVaultStands);
    for (const auto& [stage, version] : turn.vaulted) carry_out(coordinator_->vaulted(stage, version, now));
  }
  bool is_over() const { return coordinator_->phase() != protocol::Phase::kRunning; }

  // Where a worker is has to be known before it can be a member: its first report waits until it is.
  void reported(PeerId from, const protocol::Report& report, Time now) {
    const auto& peers = coordinator_->decisions().peers;
    const auto known = peers.find(from);
    if (known == peers.end()) return;
    if (const auto located = whereabouts_->reported(from, report, known->second.key, now)) take(*located, now);
  }
  void take(const Whereabouts::Located& located, Time now) {
    coordinator_->located(located.peer, located.location);
    carry_out(coordinator_->received(located.peer, located.report, now));
  }

  void answer(const FrontDesk::Ask& ask, Time now) {
    enrolled_.reset();
    refusal_.clear();
    coordinator::Enrolment enrolment = ask.asked.enrolment;
    enrolment.asked_s = process::seconds_since_1970();
    if (ask.asked.leaves) {
      carry_out(coordinator_->good_bye(enrolment.identity, *ask.asked.leaves, now));
      if (!broken_) desk_->answer(ask, encode_refusal("it has left"));
      return;
    }
    carry_out(coordinator_->enrol(enrolment, now));
    if (broken_) return;  // nothing may be said that is not written down
    if (!enrolled_) {
      desk_->answer(ask, encode_refusal(refusal_, refused_for_a_moment_));
      return;
    }
    EnrolAnswer answer;
    answer.peer = *enrolled_;
    answer.place = coordinator_->place_of(*enrolled_);
    if (const auto queued = coordinator_->queued(*enrolled_))
      answer.waits = fmt::format("place {} of {} in the queue: {}", queued->place, queued->length, queued->reason);
    answer.coordinator = link_->endpoints();
    answer.door = door_.endpoint();
    answer.relays = relays_->passes_for(*enrolled_);
    answer.version = version_;
    answer.begun = coordinator_->decisions().step.value > version_ + 1;
    if (ask.asked.with_spec) answer.spec = config::spec_toml(run_);
    desk_->answer(ask, encode_answer(answer));
  }

  // A coordinator that was started again may have no vault any more.
  void take(PeerId from, const protocol::CheckpointRequest& request) {
    if (vault_) return vault_->asked(coordinator_->decisions(), from, request);
    link_->send(from, no_checkpoint(request));
  }

  // A worker that was moved may not know yet that it is no head any more; so it is told at most once a minute.
  void take(PeerId from, const protocol::TokenRequest& request, Time now) {
    if (tokens_.desk().asked(coordinator_->decisions(), from, request) || now < tell_of_requests_again_) return;
    tell_of_requests_again_ = now + seconds(60);
    carry_out({coordinator::Happened{
        coordinator_->decisions().step,
        coordinator::events::Refused{
            kCoordinator, fmt::format("worker {} asks for token ids that are not for it, or for too many", from)}}});
  }

  // Connections with unknown keys, and requests that were no good: counted, and told at most once a minute.
  void tell_of_strangers(Time now) {
    const std::uint64_t refused = link_->sockets().refused().total() + desk_->refused();
    if (refused == told_of_strangers_ || now < tell_of_strangers_again_) return;
    tell_of_strangers_again_ = now + seconds(60);
    carry_out({coordinator::Happened{
        coordinator_->decisions().step,
        coordinator::events::Refused{
            kCoordinator,
            fmt::format("{} connections or requests of strangers, with keys that are not enrolled or malformed",
                        refused - std::exchange(told_of_strangers_, refused))}}});
  }

  // To whoever looks on.
  void show(Time now) {
    const bool display = progress_.is_due(now), fleet = fleet_.is_due(now);
    if (!display && !fleet) return;
    const coordinator::RunStatus status = coordinator_->status(now);
    if (display) progress_.refresh(record_->figures(), status);
    if (fleet) refresh_fleet(status);
  }

  // The run does not depend on it, so that a full disk does not end it.
  void refresh_fleet(const coordinator::RunStatus& status) {
    const Status written = fleet_.refresh(status);
    if (!written && !std::exchange(told_of_fleet_, true)) progress_.say(written.error().message);
  }

  void do_as_told(const std::string& line, Time now) {
    int code = 0, at = 0;
    char key[65] = {};
    if (std::sscanf(line.c_str(), "lost %64s", key) == 1) {
      for (const PeerId peer : with_identity(key)) carry_out(coordinator_->process_ended(peer, now));
      return;
    }
    if (std::sscanf(line.c_str(), "gone %64s %n", key, &at) == 1) {
      for (const PeerId peer : with_identity(key))
        carry_out(coordinator_->process_gone(peer, line.substr(static_cast<std::size_t>(at)), now));
      return;
    }
    if (std::sscanf(line.c_str(), "stop %d %n", &code, &at) != 1) return;
    if (!stop_code_) stop_code_ = code;
    carry_out(coordinator_->stop(line.substr(static_cast<std::size_t>(at)), now));
  }

  std::vector<PeerId> with_identity(const std::string& key) const {
    std::vector<PeerId> peers;
    for (const auto& [peer, known] : coordinator_->decisions().peers)
      if (to_hex(known.identity) == key && !known.revoked) peers.push_back(peer);
    return peers;
  }

  void carry_out(std::vector<coordinator::CoordinatorEffect> effects) {
    for (auto& effect : effects) {
      if (broken_) return;
      Status done = std::visit([&](const auto& e) { return carry_out(e); }, effect);
      if (!done) {
        // Nothing that follows from an unwritten decision may be sent.
        spdlog::error("{}", done.error().message);
        broken_ = true;
        exit_code_ = 1;
      }
    }
  }

  Status carry_out(const coordinator::AppendRecord& effect) { return log_->append(effect.record); }
  Status carry_out(const coordinator::SendView& effect) {
    link_->send(effect.peer, effect.view);
    return {};
  }
  Status carry_out(const coordinator::LetIn& effect) {
    enrolled_ = effect.peer;
    link_->allow(effect.peer, effect.key);
    return {};
  }
  Status carry_out(const coordinator::TurnAway& effect) {
    refusal_ = effect.reason;
    refused_for_a_moment_ = effect.for_a_moment;
    return {};
  }
  // Its next request is answered with it.
  Status carry_out(const coordinator::TakeSeat&) { return {}; }
  Status carry_out(const coordinator::ShutOut& effect) {
    link_->shut_out(effect.peer);
    whereabouts_->forget(effect.peer);
    return {};
  }
  Status carry_out(const coordinator::StepCommitted& effect) {
    const auto before = record_->figures().step;
    const Status written = record_->committed(effect.outcome, process::monotonic_now());
    if (record_->figures().step != before) progress_.committed(record_->figures());
    return written;
  }
  Status carry_out(const coordinator::Happened& effect) {
    progress_.happened(effect.event, effect.step <= StepId(version_ + 1));
    if (std::holds_alternative<coordinator::events::RolledBack>(effect.event))
      if (auto cut = record_->rolled_back(coordinator_->decisions().step.value - 1); !cut) return cut;
    return record_->happened(effect, process::microseconds_since_1970());
  }
  Status carry_out(const coordinator::RunEnded& effect) {
    const Status written = record_->ended(effect, process::monotonic_now());
    refresh_fleet(coordinator_->status(process::monotonic_now()));
    exit_code_ = effect.finished && effect.unsaved.empty() ? 0 : stop_code_.value_or(1);
    progress_.ended(effect, record_->figures(), options_.folder.path, coordinator_->decisions().whole);
    return written;
  }

  const CoordinatorOptions options_;
  const spec::RunConfig run_;
  const protocol::Plan plan_;
  process::LineReader control_;
  TokenServer tokens_;
  record::Progress progress_;
  record::FleetFile fleet_;
  bool told_of_fleet_ = false;
  std::unique_ptr<ProcessLink> link_;
  std::optional<coordinator::Coordinator> coordinator_;
  std::optional<record::DecisionLog> log_;
  std::optional<record::RunRecord> record_;
  std::optional<FrontDesk> desk_;
  std::optional<OwnerDesk> owner_;
  std::optional<process::AdminSocket> admin_;
  std::optional<Whereabouts> whereabouts_;
  std::optional<RelayDesk> relays_;
  std::unique_ptr<VaultServer> vault_;  // null: the run has none
  std::uint64_t vault_pieces_ = 0;      // that had come
  Time vault_moved_{};                  // since then, nothing has
  transport::Address door_;             // on this machine
  std::uint64_t version_ = 0;           // weights that the run began with, the last time it did
  std::optional<PeerId> enrolled_;      // who asked, if it may take part
  std::string refusal_;                 // why not
  bool refused_for_a_moment_ = false;
  std::uint64_t rejected_ = 0;
  std::uint64_t told_of_strangers_ = 0;
  Time tell_of_strangers_again_{};
  Time tell_of_requests_again_{};
  bool broken_ = false;
  std::optional<int> stop_code_;
  std::optional<int> exit_code_;
};

}  // namespace

int serve_coordinator(const spec::RunConfig& run, const CoordinatorOptions& options, TokenServer tokens) {
  process::catch_signals();
  return CoordinatorProcess(run, options, std::move(tokens)).serve();
}

}  // namespace isthmus::app
