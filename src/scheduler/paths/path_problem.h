#pragma once

#include <cstdint>
#include <vector>

#include "base/time.h"

namespace isthmus::paths {

// Paths that skip stages (Skip-Pipe, arXiv 2502.19913): every microbatch visits `visits` of the stages, other
// microbatches the ones it leaves out, so that a step costs less compute and crosses fewer links.

// Where the loss is computed. kOrigin: the last node sends back to the node of the first stage that drew the sample,
// which has the head (Skip-Pipe's "data nodes"). kLastStage: the last stage has it, and is never skipped.
enum class PathEnd : std::uint8_t { kOrigin, kLastStage };

// Nodes are numbered 0 … nodes.size()-1, whatever their stage.
struct PathProblem {
  struct Node {
    Duration forward{};        // one microbatch
    Duration backward{};       // one microbatch, weight gradients included
    Duration loss{};           // one microbatch, if the loss is computed here
    std::uint32_t memory = 1;  // microbatches in flight: forward begun, backward not yet finished
  };
  std::vector<Node> nodes;
  std::vector<std::vector<std::uint32_t>> stages;  // nodes of each stage; every node in exactly one
  std::vector<Duration> transfer;                  // nodes × nodes: one microbatch from (row) to (column)
  std::vector<std::uint32_t> microbatches;         // that begin at each node of stages[0], in its order
  std::uint32_t visits = 1;                        // stages on a path, the first one counted
  std::uint32_t skips_in_a_row = 0;                // at most
  PathEnd end = PathEnd::kOrigin;

  Duration between(std::uint32_t from, std::uint32_t to) const { return transfer[from * nodes.size() + to]; }
  // Stages 1 … end_of_skippable()-1 may be skipped.
  std::uint32_t end_of_skippable() const {
    return static_cast<std::uint32_t>(stages.size()) - (end == PathEnd::kLastStage ? 1 : 0);
  }
  // Where each microbatch begins: one of every origin in turn, as long as it has any.
  std::vector<std::uint32_t> origins() const {
    std::vector<std::uint32_t> all;
    for (std::uint32_t round = 0, before = 0;; ++round, before = static_cast<std::uint32_t>(all.size())) {
      for (std::size_t i = 0; i < microbatches.size(); ++i)
        if (round < microbatches[i]) all.push_back(stages[0][i]);
      if (all.size() == before) return all;
    }
  }
  std::vector<std::uint32_t> stage_of_nodes() const {
    std::vector<std::uint32_t> stage_of(nodes.size());
    for (std::uint32_t s = 0; s < stages.size(); ++s)
      for (const std::uint32_t node : stages[s]) stage_of[node] = s;
    return stage_of;
  }
};

// What a planner decides: the nodes of every microbatch, in the order of origins(), by ascending stage; and who goes
// first where two could: the microbatch with the lower rank. Ranks are a permutation of 0 … microbatches-1.
struct PathChoice {
  std::vector<std::vector<std::uint32_t>> nodes;
  std::vector<std::uint32_t> rank;
  friend bool operator==(const PathChoice&, const PathChoice&) = default;
};

// What follows from it, with every start.
struct PathPlan {
  struct Visit {
    std::uint32_t node = 0;
    Time forward{};   // start
    Time backward{};  // start
    friend bool operator==(const Visit&, const Visit&) = default;
  };
  struct Path {
    std::vector<Visit> visits;  // in the order of the forward pass
    Time loss{};                // start
    friend bool operator==(const Path&, const Path&) = default;
  };
  std::vector<Path> paths;              // by microbatch, in the order of PathProblem::origins()
  Duration makespan{};                  // end of the last backward
  std::vector<std::uint32_t> coverage;  // microbatches that visit each stage
  friend bool operator==(const PathPlan&, const PathPlan&) = default;
};

}  // namespace isthmus::paths
