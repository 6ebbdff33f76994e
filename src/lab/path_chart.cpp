#include "lab/path_chart.h"

#include <fmt/format.h>

#include <algorithm>

#include "lab/chart.h"

namespace isthmus::lab {

namespace {

constexpr double kNamesWidth = 300, kBarsWidth = 1100, kRow = 15, kTitle = 34;

}  // namespace

std::string path_chart(const std::vector<ChartedPlan>& plans, const std::vector<std::string>& places) {
  double longest = 1e-9;
  for (const auto& charted : plans) longest = std::max(longest, to_seconds(charted.plan.makespan));
  const double scale = kBarsWidth / longest;
  std::string body;
  double top = 0;
  for (const auto& [title, problem, plan] : plans) {
    const auto stage_of = problem->stage_of_nodes();
    body += fmt::format("<text x=\"4\" y=\"{:.1f}\" font-size=\"14\">{}: {:.1f} s</text>\n", top + 22, escaped(title),
                        to_seconds(plan.makespan));
    top += kTitle;
    const auto row = [&](std::uint32_t node) { return top + kRow * node; };
    const auto bar = [&](std::uint32_t node, std::size_t microbatch, Time start, Duration takes, const char* colour) {
      body += fmt::format(
          "<rect x=\"{:.2f}\" y=\"{:.1f}\" width=\"{:.2f}\" height=\"{}\" fill=\"{}\"/><text x=\"{:.2f}\" y=\"{:.1f}\" "
          "fill=\"white\">{}</text>\n",
          kNamesWidth + to_seconds(start) * scale, row(node), to_seconds(takes) * scale, kRow - 2, colour,
          kNamesWidth + to_seconds(start) * scale + 2, row(node) + kRow - 4, microbatch);
    };
    for (std::uint32_t node = 0; node < problem->nodes.size(); ++node)
      body += fmt::format("<text x=\"4\" y=\"{:.1f}\">stage {}, {}</text>\n", row(node) + kRow - 4, stage_of[node],
                          escaped(places[node]));
    for (std::size_t m = 0; m < plan.paths.size(); ++m) {
      const auto& path = plan.paths[m];
      for (const auto& visit : path.visits) {
        bar(visit.node, m, visit.forward, problem->nodes[visit.node].forward, "#0077bb");
        bar(visit.node, m, visit.backward, problem->nodes[visit.node].backward, "#cc5500");
      }
      const std::uint32_t head =
          problem->end == paths::PathEnd::kOrigin ? path.visits.front().node : path.visits.back().node;
      bar(head, m, path.loss, problem->nodes[head].loss, "#777777");
    }
    top += kRow * static_cast<double>(problem->nodes.size());
  }
  return fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" font-family=\"sans-serif\" "
      "font-size=\"10\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{}</svg>\n",
      kNamesWidth + kBarsWidth + 10, top + 10, body);
}

}  // namespace isthmus::lab
