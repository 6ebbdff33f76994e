#include "scheduler/paths/min_cost_assignment.h"

#include <limits>

namespace isthmus::paths {

std::vector<std::uint32_t> min_cost_assignment(const std::vector<std::vector<double>>& cost) {
  const std::size_t rows = cost.size(), columns = rows == 0 ? 0 : cost[0].size();
  constexpr double kInfinite = std::numeric_limits<double>::infinity();
  // Column `columns` is where an augmenting path begins.
  const std::size_t root = columns;
  std::vector<double> of_row(rows), of_column(columns + 1);
  std::vector<std::size_t> row_of(columns + 1, rows), before(columns + 1);
  for (std::size_t row = 0; row < rows; ++row) {
    row_of[root] = row;
    std::size_t at = root;
    std::vector<double> slack(columns, kInfinite);
    std::vector<bool> done(columns + 1);
    while (row_of[at] != rows) {
      done[at] = true;
      double least = kInfinite;
      std::size_t next = root;
      for (std::size_t c = 0; c < columns; ++c) {
        if (done[c]) continue;
        const double reduced = cost[row_of[at]][c] - of_row[row_of[at]] - of_column[c];
        if (reduced < slack[c]) {
          slack[c] = reduced;
          before[c] = at;
        }
        if (slack[c] < least) {
          least = slack[c];
          next = c;
        }
      }
      for (std::size_t c = 0; c <= columns; ++c)
        if (done[c]) {
          of_row[row_of[c]] += least;
          of_column[c] -= least;
        } else if (c < columns) {
          slack[c] -= least;
        }
      at = next;
    }
    for (; at != root; at = before[at]) row_of[at] = row_of[before[at]];
  }
  std::vector<std::uint32_t> column_of(rows);
  for (std::size_t c = 0; c < columns; ++c)
    if (row_of[c] != rows) column_of[row_of[c]] = static_cast<std::uint32_t>(c);
  return column_of;
}

}  // namespace isthmus::paths
