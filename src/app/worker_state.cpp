#include "app/worker_state.h"

#include <fmt/format.h>

namespace isthmus::app {

using nlohmann::json;

json waiting_state(const std::string& name, const std::string& waits, std::optional<Time> heard, Time now) {
  json out = {{"name", name}, {"state", "waiting"}, {"does", "waits for " + waits}};
  if (heard) out["heard_seconds"] = to_seconds(now - *heard);
  return out;
}

json serving_state(const WorkerCourse& course, const std::string& run, protocol::Place place,
                   const std::optional<router::WorkerSteps>& steps, const LifeTimes& times) {
  router::WorkerSteps::Given given = course.given;
  json out = {{"worker", course.enrolled.peer.value},
              {"run", run},
              {"run_id", fmt::format("{:016x}", course.invite.run_id)},
              {"stage", place.stage.value},
              {"replica", place.replica.value},
              {"since_seconds", to_seconds(times.now - times.began)},
              {"heard_seconds", to_seconds(times.now - times.heard)}};
  if (!steps) {
    out["state"] = "loading";
    out["does"] = "loads its stage";
  } else {
    given.steps += steps->given().steps;
    given.microbatches += steps->given().microbatches;
    const std::string waits = steps->waiting_for();
    const bool member = steps->view().find(steps->session()) != nullptr;
    out["state"] = steps->is_leaving() ? "leaving" : member ? "serving" : "joining";
    out["does"] = steps->is_leaving() ? steps->stays_for() : waits.empty() ? "computes" : "waits for " + waits;
    out["version"] = steps->version();
    out["step"] = steps->view().step.value;
  }
  out["steps_given"] = given.steps;
  out["microbatches_given"] = given.microbatches;
  return out;
}

std::string reach_text(const std::optional<std::string>& router, const std::optional<relay::Tunnel::Figures>& relays) {
  std::string text = router.value_or("");
  if (!relays) return text;
  text += fmt::format("{}{} of {} relays can call it, {:.1f} MB went through them", text.empty() ? "" : "; ",
                      relays->registered, relays->relays, static_cast<double>(relays->bytes) / 1e6);
  if (!relays->trouble.empty()) text += " (" + relays->trouble + ")";
  return text;
}

}  // namespace isthmus::app
