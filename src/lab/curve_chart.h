#pragma once

#include <functional>
#include <string>
#include <vector>

#include "lab/chart.h"
#include "lab/sweep_results.h"

namespace isthmus::lab {

// One line per row of a sweep, its name at the right edge.
class CurveChart {
 public:
  struct Point {
    double x;
    Spread y;
  };
  // `points` of a row; those that are no numbers, or not to the right of 0, are left out. Nothing is drawn above
  // `most`. `results` outlive the chart.
  CurveChart(const SweepResults& results, std::string y_name, bool is_gap, double most,
             const std::function<std::vector<Point>(const SweepRow&)>& points);

  bool empty() const { return lines_.empty(); }
  // REQUIRES, here and below: not empty.
  double least_x() const;
  double most_x() const;
  // `x`: all of it but where it is drawn.
  std::string draw(Axis x, const std::string& x_name) const;

 private:
  struct Line {
    std::size_t row;
    bool is_reference;  // drawn heavier
    std::string name;
    std::vector<Point> points;
  };
  bool is_reference(const std::string& name) const;
  double extreme(const std::function<double(const Line&)>& of) const;
  Axis value_axis() const;
  static std::string draw_line(const Line& line, const Axis& x, const Axis& y, double label);

  const SweepResults& results_;
  const std::string y_name_;
  const bool is_gap_;
  const double most_;
  std::vector<Line> lines_;
};

}  // namespace isthmus::lab
