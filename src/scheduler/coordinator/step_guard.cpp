#include "scheduler/coordinator/step_guard.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <ranges>

namespace isthmus::coordinator {

namespace {

// Of the mean. Steps that hardly differ, as an emulated run's or those on a plateau, would make an outlier of every
// other one.
constexpr double kLeastSpread = 0.01;

// Why `value` is too far above the others; empty: it is not.
std::string excess(const char* what, double value, const std::vector<double>& others, double sigmas) {
  const auto count = static_cast<double>(others.size());
  double mean = 0, variance = 0;
  for (const double other : others) mean += other / count;
  for (const double other : others) variance += (other - mean) * (other - mean) / count;
  const double spread = std::max(std::sqrt(variance), kLeastSpread * std::abs(mean));
  if (value - mean <= sigmas * spread) return "";
  return fmt::format("{} {:.4g} is {:.3g} standard deviations above the mean of the last {} steps", what, value,
                     (value - mean) / spread, others.size());
}

}  // namespace

StepGuard::Options StepGuard::Options::of(const spec::RunSpec& run) {
  return {run.train.spike_sigma, run.train.spike_window, run.recovery.rollback_after};
}

std::string StepGuard::objection(StepId step, const StepFigures& figures, bool finite,
                                 const std::vector<StageId>& absent) const {
  if (is_left_out(step)) return "its data is left out: the run went back because of what came of it";
  if (!finite || !std::isfinite(figures.grad_norm)) return "the gradient is not finite";
  if (!std::isfinite(figures.loss)) return "the loss is not finite";
  const auto past = window();
  if (options_.sigmas == 0 || !absent.empty() || past.size() < least()) return "";
  std::vector<double> losses, norms;
  for (const auto* good : past) {
    losses.push_back(good->loss);
    norms.push_back(good->grad_norm);
  }
  const std::string loss = excess("the loss", figures.loss, losses, options_.sigmas);
  return loss.empty() ? excess("the gradient's norm", figures.grad_norm, norms, options_.sigmas) : loss;
}

void StepGuard::apply(const LogRecord& record) {
  if (const auto* init = std::get_if<InitRecord>(&record)) {
    go_back(init->version);
  } else if (const auto* rollback = std::get_if<RollbackRecord>(&record)) {
    go_back(rollback->version);
    if (rollback->left_out.empty()) return;
    left_out_.push_back(rollback->left_out);
    gone_back_to_ = std::max(gone_back_to_, rollback->version);
  } else if (const auto* committed = std::get_if<CommitRecord>(&record)) {
    commit(*committed);
  }
}

void StepGuard::commit(const CommitRecord& record) {
  const StepFigures& figures = record.figures;
  if (figures.tokens == 0) return;  // it only evaluated
  const StepId step = record.commit.step;
  const Kind kind = is_left_out(step)               ? Kind::kLeftOut
                    : !record.commit.apply          ? Kind::kBad
                    : !record.commit.absent.empty() ? Kind::kPartial
                                                    : Kind::kGood;
  past_.push_back({step, figures.loss, figures.grad_norm, kind});
}

void StepGuard::go_back(std::uint64_t version) {
  while (!past_.empty() && past_.back().step.value > version) past_.pop_back();
}

bool StepGuard::is_left_out(StepId step) const {
  return std::ranges::any_of(left_out_, [&](const StepRange& range) { return range.contains(step); });
}

// It does not reach behind what changed the level of all figures: steps of another model, or so many bad ones in a row
// that they are what is usual now. Otherwise every step would be bad for ever.
std::vector<const StepGuard::Past*> StepGuard::window() const {
  const std::uint32_t enough = options_.patience > 0 ? options_.patience : least();
  std::vector<const Past*> good;
  std::uint32_t bad = 0;
  for (const auto& past : past_ | std::views::reverse) {
    if (good.size() == options_.window || past.kind == Kind::kPartial) break;
    if (past.kind == Kind::kBad && ++bad == enough) break;
    if (past.kind != Kind::kGood) continue;
    bad = 0;
    good.push_back(&past);
  }
  return good;
}

std::uint32_t StepGuard::streak() const {
  std::uint32_t bad = 0;
  for (const auto& past : past_ | std::views::reverse) {
    if (past.kind == Kind::kGood || past.kind == Kind::kPartial) break;
    bad += past.kind == Kind::kBad;
  }
  return bad;
}

StepId StepGuard::trained() const {
  for (const auto& past : past_ | std::views::reverse)
    if (past.kind == Kind::kGood || past.kind == Kind::kPartial) return past.step;
  return StepId(0);
}

StepRange StepGuard::suspects(std::uint64_t version) const {
  const std::uint64_t last_good = trained().value;
  const std::uint64_t first = last_good > options_.window ? last_good - options_.window : 0;
  return {StepId(std::max(version, first) + 1), past_.back().step};
}

}  // namespace isthmus::coordinator
