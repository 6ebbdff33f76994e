#include "lab/curve_chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

namespace isthmus::lab {

namespace {

constexpr double kLabelHeight = 15;

// Moves labels apart, in place, keeping their order; they stay within [top, bottom] if there is room for all.
void spread_labels(std::vector<double>& at, double top, double bottom) {
  for (std::size_t i = 0; i < at.size(); ++i) at[i] = std::max(at[i], i == 0 ? top : at[i - 1] + kLabelHeight);
  for (std::size_t i = at.size(); i-- > 0;)
    at[i] = std::min(at[i], i + 1 == at.size() ? bottom : at[i + 1] - kLabelHeight);
}

double label_width(const std::vector<SweepRow>& rows) {
  std::size_t longest = 8;
  for (const auto& row : rows) longest = std::max(longest, row.name.size());
  return static_cast<double>(longest) * kLetter + 34;
}

}  // namespace

CurveChart::CurveChart(const SweepResults& results, std::string y_name, bool is_gap, double most,
                       const std::function<std::vector<Point>(const SweepRow&)>& points)
    : results_(results), y_name_(std::move(y_name)), is_gap_(is_gap), most_(most) {
  for (std::size_t r = 0; r < results.rows.size(); ++r) {
    const auto& row = results.rows[r];
    Line line{r, is_reference(row.name), row.name, points(row)};
    std::erase_if(line.points, [](const Point& point) { return !(point.x > 0) || !std::isfinite(point.y.mean); });
    if (!line.points.empty()) lines_.push_back(std::move(line));
  }
}

double CurveChart::least_x() const {
  return extreme([](const Line& line) { return -line.points.front().x; }) * -1;
}

double CurveChart::most_x() const {
  return extreme([](const Line& line) { return line.points.back().x; });
}

std::string CurveChart::draw(Axis x, const std::string& x_name) const {
  const double height = std::max(380.0, static_cast<double>(lines_.size()) * kLabelHeight + kTop + kBottom + 20);
  x.begin = kLeft;
  x.end = kWidth - label_width(results_.rows);
  Axis y = value_axis();
  y.begin = height - kBottom;
  y.end = kTop;
  std::string out = frame(x, y, x_name, y_name_);
  if (is_gap_ && y.from < 0 && y.to > 0)
    out += fmt::format("<line class=\"zero\" x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/>", x.begin, x.end,
                       y.at(0), y.at(0));
  std::vector<std::size_t> order(lines_.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  const auto end_of = [&](std::size_t i) { return std::max(y.end, y.at(lines_[i].points.back().y.mean)); };
  std::ranges::stable_sort(order, {}, end_of);
  std::vector<double> labels;
  for (const auto i : order) labels.push_back(end_of(i));
  spread_labels(labels, y.end, y.begin);
  std::vector<double> label_of(lines_.size());
  for (std::size_t i = 0; i < order.size(); ++i) label_of[order[i]] = labels[i];
  for (std::size_t i = 0; i < lines_.size(); ++i) out += draw_line(lines_[i], x, y, label_of[i]);
  return svg(height, "<g class=\"lines\">" + out + "</g>");
}

bool CurveChart::is_reference(const std::string& name) const {
  return name == results_.baseline ||
         std::ranges::any_of(results_.rows, [&](const SweepRow& row) { return row.reference == name; });
}

double CurveChart::extreme(const std::function<double(const Line&)>& of) const {
  double most = of(lines_.front());
  for (const auto& line : lines_) most = std::max(most, of(line));
  return most;
}

Axis CurveChart::value_axis() const {
  double least = 1e300, most = -1e300;
  for (const auto& line : lines_)
    for (const auto& point : line.points) {
      least = std::min(least, point.y.least);
      most = std::max(most, point.y.most);
    }
  most = std::min(most, most_);
  const double margin = std::max((most - least) * 0.05, 1e-3);
  Axis axis;
  axis.from = least - margin;
  axis.to = std::max(most, least) + margin;
  axis.ticks = linear_ticks(axis.from, axis.to, 7);
  const int digits = axis.to - axis.from < 0.08 ? 3 : axis.to - axis.from < 0.8 ? 2 : 1;
  axis.label = [digits](double v) { return fmt::format("{:.{}f}", v, digits); };
  return axis;
}

std::string CurveChart::draw_line(const Line& line, const Axis& x, const Axis& y, double label) {
  const std::string colour = colour_of(line.row);
  std::string path, marks;
  double end_x = x.begin, end_y = y.begin;
  for (const auto& point : line.points) {
    end_x = x.at(point.x);
    end_y = std::max(y.end, y.at(point.y.mean));
    path += fmt::format("{}{:.1f} {:.1f}", path.empty() ? "M" : "L", end_x, end_y);
    marks += fmt::format(
        "<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"2.4\" fill=\"{}\"><title>{}: {:.4f} at {}</title></circle>", end_x,
        end_y, colour, escaped(line.name), point.y.mean, x.label(point.x));
    if (point.y.most > point.y.least)
      marks += fmt::format(
          "<line x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1:.1f}\" y2=\"{2:.1f}\" stroke=\"{3}\" stroke-width=\"1\"/>",
          end_x, std::max(y.end, y.at(point.y.most)), std::max(y.end, y.at(point.y.least)), colour);
  }
  std::string out = "<g class=\"series\">";
  out += fmt::format(
      "<path d=\"{}\" stroke=\"{}\" stroke-width=\"{}\" stroke-dasharray=\"{}\" "
      "fill=\"none\"><title>{}</title></path>",
      path, colour, line.is_reference ? 2.6 : 1.5, dash_of(line.row), escaped(line.name));
  out += marks;
  out += fmt::format("<path class=\"leader\" d=\"M{:.1f} {:.1f}L{:.1f} {:.1f}L{:.1f} {:.1f}\" stroke=\"{}\"/>",
                     end_x + 4, end_y, std::max(end_x + 4, x.end - 2), end_y, x.end + 22, label, colour);
  out += text_at(x.end + 26, label + 4, line.name, "start",
                 fmt::format("class=\"label\" fill=\"{}\"{}", colour, line.is_reference ? " font-weight=\"700\"" : ""));
  return out + "</g>";
}

}  // namespace isthmus::lab
