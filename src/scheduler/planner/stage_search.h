#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <vector>

namespace isthmus::planner {

// The numbers of 1 … most stages that are worth a try, of those that are allowed: all of them, then every sixteenth
// part more.
std::vector<std::uint32_t> stage_counts(std::uint32_t most, const std::function<bool(std::uint32_t)>& allowed);

// Which of them are tried for a fleet: all of them. Where that would cost more than the
// budget, first powers of two, then what lies in the middle between the best one and its neighbours, as long as the
// budget lasts; as long as nothing has been found, beyond it.
class StageSearch {
 public:
  // Of these numbers, ascending. `cost`: of trying a number of stages, per stage.
  StageSearch(std::vector<std::uint32_t> counts, double cost, double budget);

  // The number to try next; nothing: enough was tried.
  std::optional<std::uint32_t> next() const;
  // `score`: the less the better; infinite: there is no such plan.
  void tried(std::uint32_t stages, double score);

  // Numbers that a larger budget would have tried.
  bool whole() const { return scores_.size() == counts_.size(); }

 private:
  bool affordable(std::uint32_t stages) const { return cost_ * stages <= left_; }

  const double cost_;
  double left_;
  std::vector<std::uint32_t> counts_;
  bool all_ = false;                      // the budget is enough for all
  std::map<std::size_t, double> scores_;  // by place in counts_
};

}  // namespace isthmus::planner
