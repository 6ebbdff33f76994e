#include "record/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#include <utility>
#include <variant>

namespace isthmus::record {

namespace {

constexpr Duration kRedraw = std::chrono::milliseconds(500);

std::string minutes(double seconds) {
  const auto whole = static_cast<long>(std::max(0.0, seconds));
  if (whole < 60) return fmt::format("{} s", whole);
  if (whole < 3600) return fmt::format("{} min {:02} s", whole / 60, whole % 60);
  return fmt::format("{} h {:02} min", whole / 3600, whole / 60 % 60);
}

bool wants_colour(bool terminal) {
  const char* term = std::getenv("TERM");
  return terminal && !std::getenv("NO_COLOR") && term && std::strcmp(term, "dumb") != 0;
}

}  // namespace

Progress::Progress(const spec::RunConfig& run, std::FILE* out)
    : run_(run), out_(out), terminal_(::isatty(::fileno(out)) == 1), colour_(wants_colour(terminal_)) {}

void Progress::committed(const RunFigures& f) {
  if (terminal_) return;
  std::string line = fmt::format("step {:>5}/{}  loss {:.4f}  grad {:.3f}  {:.2f} s  {:.0f} tokens/s", f.step,
                                 run_.run.steps, f.loss.value_or(0), f.grad_norm, f.step_seconds, f.tokens_per_second);
  if (f.wire_bytes_per_token_hop > 0) line += fmt::format("  {:.1f} B/token/hop", f.wire_bytes_per_token_hop);
  if (f.validation_loss && f.validation_step + 1 == f.step.value)
    line += fmt::format("  validation {:.4f} (after step {})", *f.validation_loss, f.validation_step);
  fmt::print(out_, "{}\n", line);
  std::fflush(out_);
}

void Progress::erase_block() {
  if (block_lines_ > 0) fmt::print(out_, "\x1b[{}A\x1b[J", block_lines_);
  block_lines_ = 0;
}

std::string Progress::worker_row(const coordinator::RunStatus::Worker& worker, double seconds) {
  const StageId at = worker.place->stage;
  const protocol::WorkerStats before = std::exchange(before_[at], worker.stats);
  const auto& now = worker.stats;
  const auto busy = [](const protocol::WorkerStats& s) {
    return static_cast<double>(s.forward_ns + s.input_gradient_ns + s.weight_gradient_ns + s.optimizer_ns) * 1e-9;
  };
  const auto mbps = [&](std::uint64_t bytes) { return static_cast<double>(bytes) * 8e-6 / seconds; };
  const auto& stage = run_.pipeline.stage[at.value];
  const std::string layers = fmt::format("{}:{}", stage.first_layer, stage.end_layer);
  const double share = std::clamp((busy(now) - busy(before)) / seconds, 0.0, 1.0);
  return fmt::format(
      "  stage {:<3} layers {:<7} busy {:>3.0f} %  up {:>5.1f} down {:>5.1f} Mb/s  queue {:<3} {}", at, layers,
      share * 100,
      mbps(now.boundary_bytes_sent + now.control_bytes_sent - before.boundary_bytes_sent - before.control_bytes_sent),
      mbps(now.boundary_bytes_received + now.control_bytes_received - before.boundary_bytes_received -
           before.control_bytes_received),
      now.queued, now.waiting_for.empty() ? "" : "waits for " + now.waiting_for);
}

bool Progress::is_due(Time now) const { return terminal_ && now - drawn_ >= kRedraw; }

void Progress::refresh(const RunFigures& f, const coordinator::RunStatus& status) {
  const double seconds = to_seconds(status.at - std::exchange(drawn_, status.at));
  erase_block();
  const double left = f.step.value == 0 ? 0 : f.step_seconds * static_cast<double>(run_.run.steps - f.step.value);
  const char* bold = colour_ ? "\x1b[1m" : "";
  const char* plain = colour_ ? "\x1b[0m" : "";
  std::string head = fmt::format("{}{}{}  step {}/{}", bold, run_.run.name, plain, f.step, run_.run.steps);
  if (f.loss) head += fmt::format("  loss {}{:.4f}{}", bold, *f.loss, plain);
  if (f.validation_loss) head += fmt::format("  validation {:.4f}", *f.validation_loss);
  if (f.step.value > 0)
    head += fmt::format("  {:.0f} tokens/s  {:.1f} B/token/hop  {} left", f.tokens_per_second,
                        f.wire_bytes_per_token_hop, minutes(left));
  fmt::print(out_, "{}\n", head);
  block_lines_ = 1;
  std::map<StageId, const coordinator::RunStatus::Worker*> rows;
  for (const auto& worker : status.workers)
    if (worker.place && worker.standing != coordinator::Standing::kAway) rows[worker.place->stage] = &worker;
  for (const auto& [stage, worker] : rows) {
    fmt::print(out_, "{}\n", worker_row(*worker, std::max(seconds, 1e-3)));
    ++block_lines_;
  }
  std::fflush(out_);
}

void Progress::happened(const coordinator::Event& event, bool routine) {
  namespace events = coordinator::events;
  const bool told = std::visit(
      [&](const auto& e) {
        using E = std::decay_t<decltype(e)>;
        if constexpr (std::is_same_v<E, events::Admitted>)
          return !routine;
        else
          return std::is_same_v<E, events::Fault> || std::is_same_v<E, events::Warning> ||
                 std::is_same_v<E, events::Refused> || std::is_same_v<E, events::Expelled> ||
                 std::is_same_v<E, events::Leaving> || std::is_same_v<E, events::Left> ||
                 std::is_same_v<E, events::Joining> || std::is_same_v<E, events::Moved> ||
                 std::is_same_v<E, events::Gone> || std::is_same_v<E, events::Unreachable> ||
                 std::is_same_v<E, events::RolledBack> || std::is_same_v<E, events::Unseated> ||
                 std::is_same_v<E, events::Revoked>;
      },
      event);
  if (!told) return;
  const PeerId peer = coordinator::peer_of(event);
  say(fmt::format("{}: {}: {}", peer == kCoordinator ? "coordinator" : fmt::format("worker {}", peer),
                  coordinator::name_of(event), coordinator::text_of(event)));
}

void Progress::ended(const coordinator::RunEnded& end, const RunFigures& figures, const std::string& folder,
                     std::uint64_t whole) {
  if (!end.finished)
    return say(fmt::format("{} after step {}: {}", end.version >= run_.run.steps ? "ended badly" : "stopped",
                           std::min(end.version, run_.run.steps), end.reason));
  std::string line = fmt::format("finished: {} steps", figures.step);
  if (figures.loss) line += fmt::format(", loss {:.4f}", *figures.loss);
  if (figures.validation_loss) line += fmt::format(", validation loss {:.4f}", *figures.validation_loss);
  if (figures.loss || figures.validation_loss) line += " nats per token";
  say(line + fmt::format("; all files are in {}", folder));
  if (!end.unsaved.empty())
    say(
        fmt::format("the final checkpoint of stage {} is not saved (why is said above and in events.jsonl); the newest "
                    "that is whole is of step {}; free some space and continue with --resume",
                    end.unsaved, whole));
}

void Progress::say(const std::string& line) {
  erase_block();
  fmt::print(out_, "{}\n", line);
  std::fflush(out_);
}

}  // namespace isthmus::record
