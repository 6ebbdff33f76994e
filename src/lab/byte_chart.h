#pragma once

#include <string>
#include <vector>

#include "lab/chart.h"
#include "lab/sweep_results.h"

namespace isthmus::lab {

// Final figure of every row of a sweep against its bytes: a gap against the baseline, or the row's reference if there
// is none, or the loss if there is neither.
class ByteChart {
 public:
  // `results` outlive the chart.
  explicit ByteChart(const SweepResults& results);

  bool empty() const { return points_.empty(); }
  // REQUIRES: not empty.
  std::string draw() const;

 private:
  struct Point {
    std::size_t row;
    double bytes;
    Spread value;
  };
  struct Box {
    double left, top, right, bottom;
    bool meets(const Box& other) const {
      return left < other.right && other.left < right && top < other.bottom && other.top < bottom;
    }
  };
  Axis value_axis() const;
  std::string frontier(const Axis& x, const Axis& y) const;
  std::string draw_point(const Point& point, const Axis& x, const Axis& y, std::vector<Box>& taken) const;

  const SweepResults& results_;
  std::string y_name_;
  bool is_gap_ = false;
  std::vector<Point> points_;
};

}  // namespace isthmus::lab
