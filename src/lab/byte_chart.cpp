#include "lab/byte_chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

namespace isthmus::lab {

namespace {

// Within the chart.
double place(const Axis& y, double value) { return std::clamp(y.at(value), y.end, y.begin); }

}  // namespace

ByteChart::ByteChart(const SweepResults& results) : results_(results) {
  const bool to_baseline = !results.baseline.empty();
  const bool to_reference =
      std::ranges::any_of(results.rows, [](const SweepRow& row) { return row.reference_gap.has_value(); });
  y_name_ = to_baseline    ? "gap to " + results.baseline + ", %"
            : to_reference ? "gap to the reference, %"
                           : "validation loss, nats per token";
  is_gap_ = to_baseline || to_reference;
  for (std::size_t r = 0; r < results.rows.size(); ++r) {
    const auto& row = results.rows[r];
    const double bytes = row.forward_bytes + row.backward_bytes;
    const auto value = to_baseline    ? row.baseline_gap
                       : to_reference ? row.reference_gap
                                      : std::optional(row.validation_loss);
    if (row.seeds > 0 && bytes > 0 && value && std::isfinite(value->mean)) points_.push_back({r, bytes, *value});
  }
}

std::string ByteChart::draw() const {
  const double height = 500;
  double least_x = points_[0].bytes, most_x = least_x;
  for (const auto& point : points_) {
    least_x = std::min(least_x, point.bytes);
    most_x = std::max(most_x, point.bytes);
  }
  Axis x = log_axis(least_x / 1.2, most_x * 1.6);
  x.label = [](double v) { return fmt::format("{:.4g}", v); };
  x.begin = kLeft;
  x.end = kWidth - 20;
  Axis y = value_axis();
  y.begin = height - kBottom;
  y.end = kTop + 12;
  std::string out = frame(x, y, "payload per token and hop, forward + backward, bytes", y_name_);
  if (is_gap_ && y.from < 0 && y.to > 0)
    out += fmt::format("<line class=\"zero\" x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/>", x.begin, x.end,
                       y.at(0), y.at(0));
  out += frontier(x, y);
  std::vector<Box> taken;
  for (const auto& point : points_) {
    const double px = x.at(point.bytes), py = place(y, point.value.mean);
    taken.push_back({px - 5, py - 5, px + 5, py + 5});
    taken.push_back({px - 4, place(y, point.value.most), px + 4, place(y, point.value.least)});
  }
  for (const auto& point : points_) out += draw_point(point, x, y, taken);
  return svg(height, "<g class=\"points\">" + out + "</g>");
}

// Far outliers are drawn at the upper edge, with their figure.
Axis ByteChart::value_axis() const {
  std::vector<double> values;
  double least = points_[0].value.least;
  for (const auto& point : points_) {
    values.push_back(point.value.most);
    least = std::min(least, point.value.least);
  }
  std::ranges::sort(values);
  const double typical = values[values.size() * 3 / 4];
  const double most = std::min(values.back(), typical + 1.5 * std::max(typical - least, 1e-3));
  const double margin = std::max((most - least) * 0.08, 1e-3);
  Axis axis;
  axis.from = least - margin;
  axis.to = most + margin;
  axis.ticks = linear_ticks(axis.from, axis.to, 8);
  const int digits = axis.to - axis.from < 0.8 ? 2 : axis.to - axis.from < 8 ? 1 : 0;
  const bool sign = is_gap_;
  axis.label = [digits, sign](double v) {
    return std::abs(v) < 1e-9 ? "0" : sign ? fmt::format("{:+.{}f}", v, digits) : fmt::format("{:.{}f}", v, digits);
  };
  return axis;
}

// Steps through the rows that no other beats in both figures.
std::string ByteChart::frontier(const Axis& x, const Axis& y) const {
  std::vector<const Point*> order;
  for (const auto& point : points_) order.push_back(&point);
  std::ranges::sort(order, {}, [](const Point* p) { return std::pair(p->bytes, p->value.mean); });
  std::string path;
  double best = 1e300;
  for (const auto* point : order) {
    if (point->value.mean >= best) continue;
    const double px = x.at(point->bytes), py = place(y, point->value.mean);
    path += path.empty() ? fmt::format("M{:.1f} {:.1f}V{:.1f}", px, y.end, py) : fmt::format("H{:.1f}V{:.1f}", px, py);
    best = point->value.mean;
  }
  return fmt::format(
      "<path class=\"frontier\" d=\"{}H{:.1f}\"><title>rows that no other beats in both bytes and "
      "loss</title></path>",
      path, x.end);
}

std::string ByteChart::draw_point(const Point& point, const Axis& x, const Axis& y, std::vector<Box>& taken) const {
  const auto& row = results_.rows[point.row];
  const std::string colour = colour_of(point.row);
  const double px = x.at(point.bytes), py = place(y, point.value.mean);
  const bool outlier = y.at(point.value.mean) < y.end;
  std::string out = "<g class=\"series\">";
  if (outlier) {
    out += fmt::format("<path d=\"M{:.1f} {:.1f}l5 9h-10z\" fill=\"{}\"/>", px, py - 4, colour);
  } else {
    const double high = place(y, point.value.most), low = place(y, point.value.least);
    if (low - high > 1)
      out += fmt::format(
          "<path d=\"M{0:.1f} {1:.1f}V{2:.1f}M{3:.1f} {1:.1f}h6M{3:.1f} {2:.1f}h6\" stroke=\"{4}\" fill=\"none\"/>", px,
          high, low, px - 3, colour);
    out += fmt::format(
        "<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"4.5\" fill=\"{}\"><title>{}: {:.4g} B per token and hop, {} nats "
        "per token</title></circle>",
        px, py, colour, escaped(row.name), point.bytes, loss_text(row.validation_loss, row.seeds));
  }
  const std::string label =
      outlier ? fmt::format("{} {:+.0f}{}", row.name, point.value.mean, is_gap_ ? " %" : "") : row.name;
  const double width = static_cast<double>(label.size()) * kLetter;
  // The nearest free place around the point.
  Box best{};
  double best_distance = -1;
  for (const double distance : {0.0, 14.0, 28.0, 42.0, 56.0})
    for (const auto& [dx, dy] :
         {std::pair(6.0, -11.0), std::pair(6.0, 11.0), std::pair(8.0, 0.0), std::pair(-6.0 - width, -11.0),
          std::pair(-6.0 - width, 11.0), std::pair(-8.0 - width, 0.0), std::pair(-width / 2, -14.0),
          std::pair(-width / 2, 14.0)}) {
      const double shift = dy < 0 ? -distance : distance;
      const double left = px + dx, top = py + dy + shift - 7;
      const Box box{left, top, left + width, top + 14};
      const bool inside = box.left > x.begin && box.right < x.end && box.top > 0 && box.bottom < y.begin;
      if (best_distance < 0 && inside &&
          std::ranges::none_of(taken, [&](const Box& other) { return box.meets(other); })) {
        best = box;
        best_distance = distance;
      }
    }
  if (best_distance < 0) return out + "</g>";  // no room: the name still shows on hover
  taken.push_back(best);
  if (best_distance > 0) {
    const double to_x = std::clamp(px, best.left, best.right), to_y = best.top > py ? best.top + 2 : best.bottom - 2;
    out += fmt::format("<path class=\"leader\" d=\"M{:.1f} {:.1f}L{:.1f} {:.1f}\" stroke=\"{}\"/>", px, py, to_x, to_y,
                       colour);
  }
  return out + text_at(best.left, best.top + 11, label, "start", fmt::format("class=\"label\" fill=\"{}\"", colour)) +
         "</g>";
}

}  // namespace isthmus::lab
