#include "app/status_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>

#include "base/plain_duration.h"

namespace isthmus::app {

using nlohmann::json;

namespace {

constexpr std::size_t kColumns = 100, kDoes = 52;  // where a worker's row says what it does

// The first letters of UTF-8 text, for a column so wide.
std::string cut(const std::string& text, std::size_t columns) {
  std::size_t letters = 0, at = 0;
  while (at < text.size() && letters < columns) {
    ++at;
    while (at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) ++at;
    ++letters;
  }
  return at == text.size() ? text : text.substr(0, at);
}

// What is too long goes on below, so far from the margin.
std::string line(std::string text, std::size_t margin = 2) {
  std::string lines;
  while (true) {
    std::string shown = cut(text, kColumns);
    const bool all = shown.size() == text.size();
    if (const auto space = shown.rfind(' '); !all && space != std::string::npos && space > margin) shown.resize(space);
    text.erase(0, shown.size());
    text.erase(0, text.find_first_not_of(' '));
    shown.erase(shown.find_last_not_of(' ') + 1);
    lines += shown + "\n";
    if (text.empty()) return lines;
    text.insert(0, margin, ' ');
  }
}

std::string time_text(double seconds) {
  if (seconds < 10) return fmt::format("{:.1f} s", std::max(0.0, seconds));
  return plain_duration(static_cast<std::uint64_t>(std::min(seconds, 1e12)));
}

std::uint64_t number(const json& from, const char* key) { return from.value(key, std::uint64_t{0}); }

// "waits for …, 3.1 s more"
std::string with_time(std::string what, const json& from) {
  if (from.contains("seconds_left")) what += fmt::format(" ({} more)", time_text(from.value("seconds_left", 0.0)));
  return what;
}

std::string headline(const json& run) {
  std::string text =
      fmt::format("{}  step {} of {}", cut(run.value("run", ""), 30), number(run, "committed"), number(run, "steps"));
  if (run.contains("loss")) text += fmt::format("  loss {:.4f}", run.value("loss", 0.0));
  if (run.contains("validation_loss")) text += fmt::format("  validation {:.4f}", run.value("validation_loss", 0.0));
  return line(text);
}

std::string pace(const json& run) {
  std::string text = fmt::format("run {}  {}", run.value("run_id", ""), run.value("phase", ""));
  if (run.contains("reason")) text += ": " + run.value("reason", "");
  if (run.contains("step_seconds"))
    text += fmt::format("  {:.2f} s a step  {:.0f} tokens/s  {} left", run.value("step_seconds", 0.0),
                        run.value("tokens_per_second", 0.0), time_text(run.value("seconds_left", 0.0)));
  return line(text);
}

std::string worker_row(const json& worker) {
  const std::string heard =
      worker.contains("heard_seconds") ? time_text(worker.value("heard_seconds", 0.0)) : std::string("-");
  const std::string version = worker.contains("version") ? std::to_string(number(worker, "version")) : "-";
  return line(
      fmt::format("  {:>5} {:<16} {:<9} {:>8} {:>7}  {}", number(worker, "peer"), cut(worker.value("name", ""), 16),
                  worker.value("standing", ""), version, heard, with_time(worker.value("does", ""), worker)),
      kDoes);
}

std::string stage_rows(const json& stage, const json& workers) {
  const json layers = stage.value("layers", json::array({0, 0}));
  std::string text = fmt::format("stage {}  layers {}:{}  {} of {}", number(stage, "stage"), layers.at(0).dump(),
                                 layers.at(1).dump(), number(stage, "members"), number(stage, "wished"));
  if (const auto saved = number(stage, "saved"); saved > 0) text += fmt::format("  saved {}", saved);
  if (stage.contains("waits")) text += "  " + with_time(stage.value("waits", ""), stage);
  std::string rows = line(text);
  for (const auto& worker : workers)
    if (worker.contains("stage") && number(worker, "stage") == number(stage, "stage")) rows += worker_row(worker);
  return rows;
}

std::string invite_row(const json& invite) {
  return line(fmt::format("invite {}  {} of {} used", invite.value("invite", ""), number(invite, "used"),
                          number(invite, "uses") == 0 ? "any number" : std::to_string(number(invite, "uses"))));
}

}  // namespace

std::string run_text(const json& run) {
  const json workers = run.value("workers", json::array());
  std::string text = headline(run) + pace(run);
  if (run.contains("vault")) text += line(run.value("vault", ""));
  text += line(fmt::format("  {:>5} {:<16} {:<9} {:>8} {:>7}  {}", "peer", "name", "is", "version", "heard", "does"));
  for (const auto& stage : run.value("stages", json::array())) text += stage_rows(stage, workers);
  std::string queue;
  for (const auto& worker : workers)
    if (!worker.contains("stage")) queue += worker_row(worker);
  if (!queue.empty()) text += "without a seat\n" + queue;
  for (const auto& invite : run.value("invites", json::array()))
    if (invite.value("good", false)) text += invite_row(invite);
  return text;
}

std::string worker_text(const json& worker) {
  std::string text;
  if (worker.contains("worker"))
    text += line(fmt::format("worker {} of {} (run {})", number(worker, "worker"), cut(worker.value("run", ""), 40),
                             worker.value("run_id", "")));
  if (worker.contains("stage"))
    text += line(fmt::format("{} stage {} as replica {}, for {}: it gave {} steps and {} microbatches",
                             worker.value("state", ""), number(worker, "stage"), number(worker, "replica"),
                             time_text(worker.value("since_seconds", 0.0)), number(worker, "steps_given"),
                             number(worker, "microbatches_given")));
  std::string does = worker.value("does", "");
  if (worker.contains("step")) does = fmt::format("step {}: {}", number(worker, "step"), does);
  text += line(does);
  if (worker.contains("reach")) text += line(worker.value("reach", ""));
  text += line(worker.contains("heard_seconds")
                   ? fmt::format("heard of its coordinator {} ago", time_text(worker.value("heard_seconds", 0.0)))
                   : std::string("has not heard of its coordinator yet"));
  return text;
}

}  // namespace isthmus::app
