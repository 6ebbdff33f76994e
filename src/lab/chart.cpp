#include "lab/chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace isthmus::lab {

namespace {

// Dark enough for lines and letters on white, and apart for most colour-blind eyes (Paul Tol's muted scheme, without
// its light ones). After the last one the dashes change.
constexpr std::array kColours = {"#332288", "#cc3311", "#117733", "#0077bb", "#aa4499",
                                 "#997700", "#44808a", "#882255", "#555555", "#ee7733"};
constexpr std::array kDashes = {"", "7 3", "2 3", "9 3 2 3"};

}  // namespace

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

std::vector<double> linear_ticks(double from, double to, int count) {
  const double rough = (to - from) / count;
  const double power = std::pow(10, std::floor(std::log10(rough)));
  double step = 10 * power;
  for (const double factor : {5.0, 2.0, 1.0})
    if (factor * power >= rough) step = factor * power;
  std::vector<double> ticks;
  for (double i = std::ceil(from / step - 1e-9); i * step <= to + step * 1e-9; ++i)
    ticks.push_back(i * step + 0.0);  // + 0.0: no -0
  return ticks;
}

std::vector<double> log_ticks(double from, double to) {
  std::vector<double> ticks;
  const bool fine = to / from < 3000;
  for (double power = std::floor(std::log10(from)); power <= std::log10(to); ++power)
    for (const double factor : {1.0, 2.0, 5.0})
      if (const double tick = factor * std::pow(10, power);
          (fine || factor == 1.0) && tick >= from * 0.999 && tick <= to * 1.001)
        ticks.push_back(tick);
  return ticks;
}

std::vector<double> clock_ticks(double from, double to) {
  std::vector<double> ticks;
  for (const double tick : {0.01, 0.1, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 4 * 3600.0, 12 * 3600.0, 86400.0,
                            4 * 86400.0, 16 * 86400.0, 64 * 86400.0})
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

std::string text_at(double x, double y, const std::string& text, const char* anchor, const std::string& more) {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\" {}>{}</text>", x, y, anchor, more,
                     escaped(text));
}

std::string frame(const Axis& x, const Axis& y, const std::string& x_name, const std::string& y_name) {
  std::string out;
  for (const double tick : y.ticks) {
    out += fmt::format("<line class=\"grid\" x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/>", x.begin, x.end,
                       y.at(tick), y.at(tick));
    out += text_at(x.begin - 8, y.at(tick) + 4, y.label(tick), "end", "class=\"tick\"");
  }
  out += fmt::format("<line class=\"axis\" x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/>", x.begin, x.end,
                     y.begin, y.begin);
  double taken = -1e9;  // to the right of the last label
  for (const double tick : x.ticks) {
    const double at = x.at(tick);
    out += fmt::format("<line class=\"axis\" x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/>", at, at,
                       y.begin, y.begin + 5);
    const std::string label = x.label(tick);
    const double half = static_cast<double>(label.size()) * kLetter / 2;
    if (at - half < taken) continue;
    taken = at + half + 8;
    out += text_at(at, y.begin + 19, label, "middle", "class=\"tick\"");
  }
  out += text_at((x.begin + x.end) / 2, y.begin + 39, x_name, "middle", "class=\"name\"");
  const double middle = (y.begin + y.end) / 2;
  out +=
      text_at(14, middle, y_name, "middle", fmt::format("class=\"name\" transform=\"rotate(-90 14 {:.1f})\"", middle));
  return out;
}

std::string svg(double height, const std::string& content) {
  return fmt::format("<svg viewBox=\"0 0 {} {:.0f}\" role=\"img\">{}</svg>\n", kWidth, height, content);
}

}  // namespace isthmus::lab
