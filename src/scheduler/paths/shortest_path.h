#pragma once

#include <cstdint>
#include <vector>

#include "scheduler/paths/path_problem.h"

namespace isthmus::paths {

// The path of one microbatch alone: the nodes that need the least time forward, for the loss and backward when nobody
// else is there. A* over (number of visits, node) (Hart, Nilsson and Raphael, 1968); what remains is bounded from below
// by the best rest without forbidden nodes, which is computed once for each origin. Kept limits: stages that must not
// be skipped, skips in a row.
//
// REQUIRES: a problem that passed check_problem.
class ShortestPath {
 public:
  explicit ShortestPath(const PathProblem& problem);

  struct Found {
    std::vector<std::uint32_t> nodes;  // empty: every path is forbidden
    Duration seconds{};
  };
  // `forbidden`: by node. The origin cannot be forbidden.
  Found find(std::uint32_t origin, const std::vector<bool>& forbidden) const;

 private:
  std::vector<std::uint32_t> successors(std::uint32_t node) const;
  Duration step(std::uint32_t from, std::uint32_t to) const;
  Duration finish(std::uint32_t origin, std::uint32_t last) const;
  bool may_end(std::uint32_t node) const;

  const PathProblem& problem_;
  std::vector<std::uint32_t> stage_of_;
  // By origin's place in its stage, visits made (1 …), node; kNever: no way from there.
  std::vector<std::vector<std::vector<Duration>>> rest_;
};

}  // namespace isthmus::paths
