#include "app/sweep_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>

namespace isthmus {

namespace {

// Dark enough for lines and letters on white, and apart for most colour-blind eyes (Paul Tol's muted scheme, without its
// light ones). After the last one the dashes change.
constexpr std::array kColours = {"#332288", "#cc3311", "#117733", "#0077bb", "#aa4499", "#997700", "#44808a", "#882255", "#555555", "#ee7733"};
constexpr std::array kDashes = {"", "7 3", "2 3", "9 3 2 3"};

constexpr double kWidth = 1080;
constexpr double kLeft = 64, kTop = 14, kBottom = 46;
constexpr double kLabelHeight = 15;
constexpr double kLetter = 6.6;  // width of a letter of a label, on average and a bit more

std::string colour_of(std::size_t row) { return kColours[row % kColours.size()]; }
std::string dash_of(std::size_t row) { return kDashes[row / kColours.size() % kDashes.size()]; }

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '&')
      out += "&amp;";
    else if (c == '"')
      out += "&quot;";
    else
      out += c;
  }
  return out;
}

// "250", "1.5 k", "20 M".
std::string scaled(double value) {
  for (const auto& [unit, letter] : {std::pair(1e12, "T"), std::pair(1e9, "G"), std::pair(1e6, "M"), std::pair(1e3, "k")})
    if (std::abs(value) >= unit * 0.9999) return fmt::format("{:.3g} {}", value / unit, letter);
  return fmt::format("{:.3g}", value);
}
std::string bytes_label(double value) { return value >= 999.9 ? scaled(value) + "B" : scaled(value) + " B"; }
std::string seconds_label(double value) {
  if (value < 59.9) return fmt::format("{:.3g} s", value);
  if (value < 3599) return fmt::format("{:.3g} min", value / 60);
  if (value < 86399) return fmt::format("{:.3g} h", value / 3600);
  return fmt::format("{:.3g} d", value / 86400);
}

// A number's range on one side of a chart.
struct Axis {
  double from = 0, to = 1;  // values
  bool is_log = false;
  double begin = 0, end = 1;  // where they are drawn
  std::vector<double> ticks;
  std::function<std::string(double)> label;

  double at(double value) const {
    const auto place = [&](double v) { return is_log ? std::log(v) : v; };
    return begin + (place(value) - place(from)) / (place(to) - place(from)) * (end - begin);
  }
};

// 1, 2 or 5 times a power of ten, about `count` of them in the range.
std::vector<double> linear_ticks(double from, double to, int count) {
  const double rough = (to - from) / count;
  const double power = std::pow(10, std::floor(std::log10(rough)));
  double step = 10 * power;
  for (const double factor : {5.0, 2.0, 1.0})
    if (factor * power >= rough) step = factor * power;
  std::vector<double> ticks;
  for (double i = std::ceil(from / step - 1e-9); i * step <= to + step * 1e-9; ++i) ticks.push_back(i * step + 0.0);  // + 0.0: no -0
  return ticks;
}

std::vector<double> log_ticks(double from, double to) {
  std::vector<double> ticks;
  const bool fine = to / from < 3000;
  for (double power = std::floor(std::log10(from)); power <= std::log10(to); ++power)
    for (const double factor : {1.0, 2.0, 5.0})
      if (const double tick = factor * std::pow(10, power); (fine || factor == 1.0) && tick >= from * 0.999 && tick <= to * 1.001) ticks.push_back(tick);
  return ticks;
}

// Those that people read off a clock.
std::vector<double> clock_ticks(double from, double to) {
  std::vector<double> ticks;
  for (const double tick : {0.01, 0.1, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 4 * 3600.0, 12 * 3600.0, 86400.0, 4 * 86400.0, 16 * 86400.0, 64 * 86400.0})
    if (tick >= from * 0.999 && tick <= to * 1.001) ticks.push_back(tick);
  return ticks;
}

Axis log_axis(double from, double to) {
  Axis axis;
  axis.is_log = true;
  axis.from = from / 1.15;
  axis.to = to * 1.15;
  axis.ticks = log_ticks(axis.from, axis.to);
  return axis;
}

struct Line {
  std::size_t row;
  bool is_reference;  // drawn heavier
  std::string name;
  struct Point {
    double x;
    Spread y;
  };
  std::vector<Point> points;
};

std::string text_at(double x, double y, const std::string& text, const char* anchor, const std::string& more = "") {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\" {}>{}</text>", x, y, anchor, more, escaped(text));
}

// Grid, ticks and the names of both axes.
std::string frame(const Axis& x, const Axis& y, const std::string& x_name, const std::string& y_name) {
  std::string out;
  for (const double tick : y.ticks) {
    out += fmt::format("<line class=\"grid\" x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/>", x.begin, x.end, y.at(tick), y.at(tick));
    out += text_at(x.begin - 8, y.at(tick) + 4, y.label(tick), "end", "class=\"tick\"");
  }
  out += fmt::format("<line class=\"axis\" x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/>", x.begin, x.end, y.begin, y.begin);
  double taken = -1e9;  // to the right of the last label
  for (const double tick : x.ticks) {
    const double at = x.at(tick);
    out += fmt::format("<line class=\"axis\" x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/>", at, at, y.begin, y.begin + 5);
    const std::string label = x.label(tick);
    const double half = static_cast<double>(label.size()) * kLetter / 2;
    if (at - half < taken) continue;
    taken = at + half + 8;
    out += text_at(at, y.begin + 19, label, "middle", "class=\"tick\"");
  }
  out += text_at((x.begin + x.end) / 2, y.begin + 39, x_name, "middle", "class=\"name\"");
  const double middle = (y.begin + y.end) / 2;
  out += text_at(14, middle, y_name, "middle", fmt::format("class=\"name\" transform=\"rotate(-90 14 {:.1f})\"", middle));
  return out;
}

// Moves labels apart, in place, keeping their order; they stay within [top, bottom] if there is room for all.
void spread_labels(std::vector<double>& at, double top, double bottom) {
  for (std::size_t i = 0; i < at.size(); ++i) at[i] = std::max(at[i], i == 0 ? top : at[i - 1] + kLabelHeight);
  for (std::size_t i = at.size(); i-- > 0;) at[i] = std::min(at[i], i + 1 == at.size() ? bottom : at[i + 1] - kLabelHeight);
}

double label_width(const std::vector<SweepRow>& rows) {
  std::size_t longest = 8;
  for (const auto& row : rows) longest = std::max(longest, row.name.size());
  return static_cast<double>(longest) * kLetter + 34;
}

std::string svg(double height, const std::string& content) {
  return fmt::format("<svg viewBox=\"0 0 {} {:.0f}\" role=\"img\">{}</svg>\n", kWidth, height, content);
}

// One line per row, its name at the right edge.
class CurveChart {
 public:
  // `points` of a row; those that are no numbers, or not to the right of 0, are left out. Nothing is drawn above `most`.
  CurveChart(const SweepResults& results, std::string y_name, bool is_gap, double most, const std::function<std::vector<Line::Point>(const SweepRow&)>& points)
      : results_(results), y_name_(std::move(y_name)), is_gap_(is_gap), most_(most) {
    for (std::size_t r = 0; r < results.rows.size(); ++r) {
      const auto& row = results.rows[r];
      Line line{r, is_reference(row.name), row.name, points(row)};
      std::erase_if(line.points, [](const Line::Point& point) { return !(point.x > 0) || !std::isfinite(point.y.mean); });
      if (!line.points.empty()) lines_.push_back(std::move(line));
    }
  }

  bool empty() const { return lines_.empty(); }
  double least_x() const { return extreme([](const Line& line) { return -line.points.front().x; }) * -1; }
  double most_x() const { return extreme([](const Line& line) { return line.points.back().x; }); }

  // REQUIRES: not empty.
  std::string draw(Axis x, const std::string& x_name) const {
    const double height = std::max(380.0, static_cast<double>(lines_.size()) * kLabelHeight + kTop + kBottom + 20);
    x.begin = kLeft;
    x.end = kWidth - label_width(results_.rows);
    Axis y = value_axis();
    y.begin = height - kBottom;
    y.end = kTop;
    std::string out = frame(x, y, x_name, y_name_);
    if (is_gap_ && y.from < 0 && y.to > 0) out += fmt::format("<line class=\"zero\" x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/>", x.begin, x.end, y.at(0), y.at(0));
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

 private:
  bool is_reference(const std::string& name) const {
    return name == results_.baseline || std::ranges::any_of(results_.rows, [&](const SweepRow& row) { return row.reference == name; });
  }

  double extreme(const std::function<double(const Line&)>& of) const {
    double most = of(lines_.front());
    for (const auto& line : lines_) most = std::max(most, of(line));
    return most;
  }

  Axis value_axis() const {
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

  static std::string draw_line(const Line& line, const Axis& x, const Axis& y, double label) {
    const std::string colour = colour_of(line.row);
    std::string path, marks;
    double end_x = x.begin, end_y = y.begin;
    for (const auto& point : line.points) {
      end_x = x.at(point.x);
      end_y = std::max(y.end, y.at(point.y.mean));
      path += fmt::format("{}{:.1f} {:.1f}", path.empty() ? "M" : "L", end_x, end_y);
      marks += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"2.4\" fill=\"{}\"><title>{}: {:.4f} at {}</title></circle>", end_x, end_y, colour,
                           escaped(line.name), point.y.mean, x.label(point.x));
      if (point.y.most > point.y.least)
        marks += fmt::format("<line x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1:.1f}\" y2=\"{2:.1f}\" stroke=\"{3}\" stroke-width=\"1\"/>", end_x,
                             std::max(y.end, y.at(point.y.most)), std::max(y.end, y.at(point.y.least)), colour);
    }
    std::string out = "<g class=\"series\">";
    out += fmt::format("<path d=\"{}\" stroke=\"{}\" stroke-width=\"{}\" stroke-dasharray=\"{}\" fill=\"none\"><title>{}</title></path>", path, colour,
                       line.is_reference ? 2.6 : 1.5, dash_of(line.row), escaped(line.name));
    out += marks;
    out += fmt::format("<path class=\"leader\" d=\"M{:.1f} {:.1f}L{:.1f} {:.1f}L{:.1f} {:.1f}\" stroke=\"{}\"/>", end_x + 4, end_y, std::max(end_x + 4, x.end - 2), end_y, x.end + 22, label, colour);
    out += text_at(x.end + 26, label + 4, line.name, "start", fmt::format("class=\"label\" fill=\"{}\"{}", colour, line.is_reference ? " font-weight=\"700\"" : ""));
    return out + "</g>";
  }

  const SweepResults& results_;
  const std::string y_name_;
  const bool is_gap_;
  const double most_;
  std::vector<Line> lines_;
};

using Measure = std::function<double(const SweepRow&, const SweepRow::Evaluation&)>;

// A run that has gone astray must not flatten the others: nothing above a guess that knows nothing.
CurveChart loss_chart(const SweepResults& results, const Measure& measure) {
  return {results, "validation loss, nats per token", false, results.uniform_loss * 1.05, [&](const SweepRow& row) {
            std::vector<Line::Point> points;
            for (const auto& evaluation : row.evaluations) points.push_back({measure(row, evaluation), evaluation.loss});
            return points;
          }};
}

CurveChart training_chart(const SweepResults& results) {
  return {results, "training loss against the reference, %", true, 25, [](const SweepRow& row) {
            std::vector<Line::Point> points;
            for (const auto& stretch : row.training_gaps)
              if (stretch.seeds > 0) points.push_back({static_cast<double>(stretch.last_step), stretch.percent});
            return points;
          }};
}

struct Box {
  double left, top, right, bottom;
  bool meets(const Box& other) const { return left < other.right && other.left < right && top < other.bottom && other.top < bottom; }
};

// Final figure of every row against its bytes.
class ByteChart {
 public:
  // A gap against the baseline, or the row's reference if there is none, or the loss if there is neither.
  explicit ByteChart(const SweepResults& results) : results_(results) {
    const bool to_baseline = !results.baseline.empty();
    const bool to_reference = std::ranges::any_of(results.rows, [](const SweepRow& row) { return row.reference_gap.has_value(); });
    y_name_ = to_baseline ? "gap to " + results.baseline + ", %" : to_reference ? "gap to the reference, %" : "validation loss, nats per token";
    is_gap_ = to_baseline || to_reference;
    for (std::size_t r = 0; r < results.rows.size(); ++r) {
      const auto& row = results.rows[r];
      const double bytes = row.forward_bytes + row.backward_bytes;
      const auto value = to_baseline ? row.baseline_gap : to_reference ? row.reference_gap : std::optional(row.validation_loss);
      if (row.seeds > 0 && bytes > 0 && value && std::isfinite(value->mean)) points_.push_back({r, bytes, *value});
    }
  }

  bool empty() const { return points_.empty(); }

  // REQUIRES: not empty.
  std::string draw() const {
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
    if (is_gap_ && y.from < 0 && y.to > 0) out += fmt::format("<line class=\"zero\" x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/>", x.begin, x.end, y.at(0), y.at(0));
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

 private:
  struct Point {
    std::size_t row;
    double bytes;
    Spread value;
  };

  static double place(const Axis& y, double value) { return std::clamp(y.at(value), y.end, y.begin); }

  // Far outliers are drawn at the upper edge, with their figure.
  Axis value_axis() const {
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
    axis.label = [digits, sign](double v) { return std::abs(v) < 1e-9 ? "0" : sign ? fmt::format("{:+.{}f}", v, digits) : fmt::format("{:.{}f}", v, digits); };
    return axis;
  }

  // Steps through the rows that no other beats in both figures.
  std::string frontier(const Axis& x, const Axis& y) const {
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
    return fmt::format("<path class=\"frontier\" d=\"{}H{:.1f}\"><title>rows that no other beats in both bytes and loss</title></path>", path, x.end);
  }

  std::string draw_point(const Point& point, const Axis& x, const Axis& y, std::vector<Box>& taken) const {
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
        out += fmt::format("<path d=\"M{0:.1f} {1:.1f}V{2:.1f}M{3:.1f} {1:.1f}h6M{3:.1f} {2:.1f}h6\" stroke=\"{4}\" fill=\"none\"/>", px, high, low, px - 3, colour);
      out += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"4.5\" fill=\"{}\"><title>{}: {:.4g} B per token and hop, {} nats per token</title></circle>", px, py, colour, escaped(row.name), point.bytes,
                         loss_text(row.validation_loss, row.seeds));
    }
    const std::string label = outlier ? fmt::format("{} {:+.0f}{}", row.name, point.value.mean, is_gap_ ? " %" : "") : row.name;
    const double width = static_cast<double>(label.size()) * kLetter;
    // The nearest free place around the point.
    Box best{};
    double best_distance = -1;
    for (const double distance : {0.0, 14.0, 28.0, 42.0, 56.0})
      for (const auto& [dx, dy] : {std::pair(6.0, -11.0), std::pair(6.0, 11.0), std::pair(8.0, 0.0), std::pair(-6.0 - width, -11.0),
                                   std::pair(-6.0 - width, 11.0), std::pair(-8.0 - width, 0.0), std::pair(-width / 2, -14.0), std::pair(-width / 2, 14.0)}) {
        const double shift = dy < 0 ? -distance : distance;
        const double left = px + dx, top = py + dy + shift - 7;
        const Box box{left, top, left + width, top + 14};
        const bool inside = box.left > x.begin && box.right < x.end && box.top > 0 && box.bottom < y.begin;
        if (best_distance < 0 && inside && std::ranges::none_of(taken, [&](const Box& other) { return box.meets(other); })) {
          best = box;
          best_distance = distance;
        }
      }
    if (best_distance < 0) return out + "</g>";  // no room: the name still shows on hover
    taken.push_back(best);
    if (best_distance > 0) {
      const double to_x = std::clamp(px, best.left, best.right), to_y = best.top > py ? best.top + 2 : best.bottom - 2;
      out += fmt::format("<path class=\"leader\" d=\"M{:.1f} {:.1f}L{:.1f} {:.1f}\" stroke=\"{}\"/>", px, py, to_x, to_y, colour);
    }
    return out + text_at(best.left, best.top + 11, label, "start", fmt::format("class=\"label\" fill=\"{}\"", colour)) + "</g>";
  }

  const SweepResults& results_;
  std::string y_name_;
  bool is_gap_ = false;
  std::vector<Point> points_;
};

std::string html_table(const SweepResults& results) {
  std::string out = "<table><thead><tr><th>row<th>codec<th class=\"n\">numbers<th>values<th class=\"n\">B/token/hop<br>forward + backward<th class=\"n\">+ ids<th class=\"n\">less than<br>dense bf16"
                    "<th class=\"n\">validation loss<th class=\"n\">seeds<th class=\"n\">gap to reference, %";
  if (!results.baseline.empty()) out += fmt::format("<th class=\"n\">gap to<br>{}, %", escaped(results.baseline));
  out += "<th class=\"n\">parameters";
  for (const auto& link : results.links) out += fmt::format("<th class=\"n\">s/step at<br>{}", link_text(link));
  out += "</tr></thead><tbody>\n";
  for (std::size_t r = 0; r < results.rows.size(); ++r) {
    const auto& row = results.rows[r];
    out += fmt::format("<tr><td><svg class=\"swatch\" viewBox=\"0 0 26 10\"><line x1=\"0\" x2=\"26\" y1=\"5\" y2=\"5\" stroke=\"{}\" stroke-width=\"2.5\" stroke-dasharray=\"{}\"/></svg>{}<td>{}<td class=\"n\">{}<td>{}", colour_of(r), dash_of(r),
                       escaped(row.name), escaped(row.codec), row.columns, escaped(row.values));
    if (row.seeds == 0) {
      out += "<td colspan=\"12\" class=\"missing\">no run of this row has finished</tr>\n";
      continue;
    }
    const bool has_reference = !row.reference.empty() && row.reference != row.name;
    out += fmt::format("<td class=\"n\">{:.4g} + {:.4g}<td class=\"n\">{:.3g}<td class=\"n\">{}<td class=\"n\">{}<td class=\"n\">{}<td class=\"n\">{}", row.forward_bytes, row.backward_bytes, row.token_bytes,
                       row.dense_ratio > 0 ? fmt::format("{:.3g}×", row.dense_ratio) : "–", loss_text(row.validation_loss, row.seeds), row.seeds,
                       has_reference ? fmt::format("{}<small>{}</small>", gap_text(row.reference_gap, row.seeds), escaped(row.reference)) : "–");
    if (!results.baseline.empty()) out += fmt::format("<td class=\"n\">{}", row.name == results.baseline ? "–" : gap_text(row.baseline_gap, row.seeds));
    out += fmt::format("<td class=\"n\">{}", scaled(static_cast<double>(row.parameters)));
    for (const double step : row.step_seconds) out += fmt::format("<td class=\"n\">{:.3g}", step);
    out += "</tr>\n";
  }
  return out + "</tbody></table>\n";
}

constexpr const char* kStyle = R"(
body{font:15px/1.45 system-ui,sans-serif;color:#1c1c1c;background:#fff;max-width:1280px;margin:28px auto 60px;padding:0 20px}
h1{font-size:25px;margin:0 0 4px}h2{font-size:18px;margin:38px 0 2px}p{margin:2px 0 10px;color:#444;max-width:90ch}
svg{width:100%;max-width:1120px;height:auto;display:block;font-family:system-ui,sans-serif}
.grid{stroke:#e9e9e9}.axis{stroke:#777}.zero{stroke:#888;stroke-dasharray:4 3}
.tick{font-size:12px;fill:#444}.name{font-size:13px;fill:#1c1c1c}.label{font-size:12px;paint-order:stroke;stroke:#fff;stroke-width:3px;stroke-linejoin:round}
.leader{fill:none;stroke-width:.8;stroke-dasharray:1.5 2.5;opacity:.55}
.frontier{fill:none;stroke:#bbb;stroke-width:1.4}
.lines:hover .series,.points:hover .series{opacity:.18}.lines .series:hover,.points .series:hover{opacity:1}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:13px;white-space:nowrap;font-variant-numeric:tabular-nums}
th{text-align:left;font-weight:600;border-bottom:1.5px solid #777;padding:5px 9px;vertical-align:bottom;line-height:1.25}
td{padding:4px 9px;border-bottom:1px solid #eee}.n{text-align:right}small{display:block;color:#666;font-size:11px;line-height:1.1}
.missing{color:#a00}.swatch{width:26px;height:10px;display:inline-block;margin-right:7px}
details{margin-top:10px}summary{cursor:pointer;font-size:14px;color:#1c1c1c}
@media print{details{display:block}}
)";

}  // namespace

std::string sweep_report(const SweepResults& results) {
  std::string out = fmt::format("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\n<title>{}</title><style>{}</style></head><body>\n", escaped(results.name), kStyle);
  std::string seeds;
  for (const auto seed : results.seeds) seeds += fmt::format("{}{}", seeds.empty() ? "" : ", ", seed);
  out += fmt::format("<h1>{}</h1>\n<p>{} rows, {} steps, {} tokens each, in the same order; seed{}.{}</p>\n", escaped(results.name), results.rows.size(), results.steps,
                     scaled(static_cast<double>(results.tokens)), results.seeds.size() > 1 ? "s " + seeds : " " + seeds,
                     results.seeds.size() > 1 ? " Points are means over the seeds, whiskers reach from the least to the most." : "");

  if (const ByteChart chart(results); !chart.empty())
    out += "<h2>What the bytes cost</h2>\n<p>After equal tokens. The grey line joins the rows that no other beats in both figures.</p>\n" + chart.draw();

  const CurveChart by_tokens = loss_chart(results, [](const SweepRow&, const SweepRow::Evaluation& e) { return static_cast<double>(e.tokens); });
  if (!by_tokens.empty()) {
    Axis x;
    x.to = by_tokens.most_x();
    x.ticks = linear_ticks(0, x.to, 8);
    x.label = scaled;
    out += "<h2>Loss against tokens</h2>\n" + by_tokens.draw(x, "tokens trained on");
  }
  const CurveChart by_bytes = loss_chart(results, [](const SweepRow&, const SweepRow::Evaluation& e) { return e.hop_bytes; });
  if (!by_bytes.empty()) {
    Axis x = log_axis(by_bytes.least_x(), by_bytes.most_x());
    x.label = bytes_label;
    out += "<h2>Loss against bytes</h2>\n<p>Payload that crossed one boundary, both ways, token ids included.</p>\n" + by_bytes.draw(x, "bytes over one boundary");
  }
  if (const CurveChart training = training_chart(results); !training.empty()) {
    Axis x;
    x.to = training.most_x();
    x.ticks = linear_ticks(0, x.to, 8);
    x.label = [](double v) { return fmt::format("{:g}", v); };
    out += "<h2>Training loss against the reference</h2>\n<p>The same batches, so that small differences show; each point is the mean of the steps since the one before.</p>\n" + training.draw(x, "step");
  }
  out += "<h2>Loss against seconds</h2>\n<p>Predicted: steps times the step time of the event simulation, with the compute times measured for each stage while it trained on one core.</p>\n";
  for (std::size_t l = 0; l < results.links.size(); ++l) {
    const CurveChart by_seconds = loss_chart(results, [l](const SweepRow& row, const SweepRow::Evaluation& e) { return static_cast<double>(e.step) * row.step_seconds[l]; });
    if (by_seconds.empty()) continue;
    Axis x = log_axis(by_seconds.least_x(), by_seconds.most_x());
    x.ticks = clock_ticks(x.from, x.to);
    if (x.ticks.size() < 3) x.ticks = log_ticks(x.from, x.to);
    x.label = seconds_label;
    out += fmt::format("<details{}><summary>{}</summary>\n{}</details>\n", l == 0 ? " open" : "", link_text(results.links[l]), by_seconds.draw(x, "predicted time at " + link_text(results.links[l])));
  }
  out += "<h2>Table</h2>\n<div class=\"wide\">" + html_table(results) + "</div>\n</body></html>\n";
  return out;
}

}  // namespace isthmus
