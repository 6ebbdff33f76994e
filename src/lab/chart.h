#pragma once

#include <cmath>
#include <functional>
#include <string>
#include <vector>

namespace isthmus::lab {

// What charts are drawn with: inline SVG, nothing else. Lengths are pixels; y grows downwards.

inline constexpr double kWidth = 1080;
inline constexpr double kLeft = 64, kTop = 14, kBottom = 46;
inline constexpr double kLetter = 6.6;  // width of a letter of a label, on average and a bit more

// Of one line of many, by its number.
std::string colour_of(std::size_t row);
std::string dash_of(std::size_t row);

// Text as it stands in HTML.
std::string escaped(const std::string& text);

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
std::vector<double> linear_ticks(double from, double to, int count);
std::vector<double> log_ticks(double from, double to);
// Those that people read off a clock.
std::vector<double> clock_ticks(double from, double to);
// With room on both sides of the range.
Axis log_axis(double from, double to);

std::string text_at(double x, double y, const std::string& text, const char* anchor, const std::string& more = "");
// Grid, ticks and the names of both axes.
std::string frame(const Axis& x, const Axis& y, const std::string& x_name, const std::string& y_name);
// The whole picture.
std::string svg(double height, const std::string& content);

}  // namespace isthmus::lab
