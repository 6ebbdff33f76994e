#include "app/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace isthmus {

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

Progress::Progress(const RunConfig& run, std::FILE* out)
    : run_(run),
      out_(out),
      terminal_(::isatty(::fileno(out)) == 1),
      colour_(wants_colour(terminal_)) {}

void Progress::committed(const RunFigures& f) {
  if (terminal_) return;
  std::string line = fmt::format("step {:>5}/{}  loss {:.4f}  grad {:.3f}  {:.2f} s  {:.0f} tokens/s",
                                 f.step, run_.run.steps, f.loss, f.grad_norm, f.step_seconds,
                                 f.tokens_per_second);
  if (f.wire_bytes_per_token_hop > 0)
    line += fmt::format("  {:.1f} B/token/hop", f.wire_bytes_per_token_hop);
  if (f.validation_loss && f.validation_step + 1 == f.step.value)
    line += fmt::format("  validation {:.4f} (after step {})", *f.validation_loss, f.validation_step);
  fmt::print(out_, "{}\n", line);
  std::fflush(out_);
}

void Progress::erase_block() {
  if (block_lines_ > 0) fmt::print(out_, "\x1b[{}A\x1b[J", block_lines_);
  block_lines_ = 0;
}

std::string Progress::worker_row(const Report& report, double seconds) {
  const WorkerStats before = std::exchange(before_[report.stage], report.stats);
  const auto& now = report.stats;
  const auto busy = [](const WorkerStats& s) {
    return static_cast<double>(s.forward_ns + s.input_gradient_ns + s.weight_gradient_ns + s.optimizer_ns) * 1e-9;
  };
  const auto mbps = [&](std::uint64_t bytes) { return static_cast<double>(bytes) * 8e-6 / seconds; };
  const auto& stage = run_.pipeline.stage[report.stage.value];
  const std::string layers = fmt::format("{}:{}", stage.first_layer, stage.end_layer);
  const double share = std::clamp((busy(now) - busy(before)) / seconds, 0.0, 1.0);
  return fmt::format("  stage {:<3} layers {:<7} busy {:>3.0f} %  up {:>5.1f} down {:>5.1f} Mb/s  queue {:<3} {}",
                     report.stage, layers, share * 100,
                     mbps(now.boundary_bytes_sent + now.control_bytes_sent - before.boundary_bytes_sent - before.control_bytes_sent),
                     mbps(now.boundary_bytes_received + now.control_bytes_received - before.boundary_bytes_received - before.control_bytes_received),
                     now.queued,
                     now.waiting_for.empty() ? "" : "waits for " + now.waiting_for);
}

void Progress::refresh(const RunFigures& f, const Coordinator& coordinator, Time now) {
  if (!terminal_ || now - drawn_ < kRedraw) return;
  const double seconds = to_seconds(now - std::exchange(drawn_, now));
  erase_block();
  const double left = f.step.value == 0 ? 0
                                        : f.step_seconds * static_cast<double>(run_.run.steps - f.step.value);
  const char* bold = colour_ ? "\x1b[1m" : "";
  const char* plain = colour_ ? "\x1b[0m" : "";
  std::string head = fmt::format("{}{}{}  step {}/{}", bold, run_.run.name, plain, f.step, run_.run.steps);
  if (f.step.value > 0) head += fmt::format("  loss {}{:.4f}{}", bold, f.loss, plain);
  if (f.validation_loss) head += fmt::format("  validation {:.4f}", *f.validation_loss);
  if (f.step.value > 0)
    head += fmt::format("  {:.0f} tokens/s  {:.1f} B/token/hop  {} left", f.tokens_per_second,
                        f.wire_bytes_per_token_hop, minutes(left));
  fmt::print(out_, "{}\n", head);
  block_lines_ = 1;
  std::map<StageId, const Report*> rows;
  for (const auto& [peer, report] : coordinator.reports()) rows[report.stage] = &report;
  for (const auto& [stage, report] : rows) {
    fmt::print(out_, "{}\n", worker_row(*report, std::max(seconds, 1e-3)));
    ++block_lines_;
  }
  std::fflush(out_);
}

void Progress::say(const std::string& line) {
  erase_block();
  fmt::print(out_, "{}\n", line);
  std::fflush(out_);
}

}  // namespace isthmus
