#include "scheduler/coordinator/ledger.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "base/counter_random.h"

namespace isthmus::coordinator {
namespace {

constexpr std::uint32_t kCount = 70;

// Two inner stages of four; with planned skips they see different numbers of microbatches.
protocol::Plan four_stages() {
  protocol::Plan plan;
  plan.stages.resize(4);
  plan.steps = 100;
  plan.microbatches = kCount;
  plan.planned_skips = 40;
  return plan;
}

protocol::Report of(std::uint64_t session, std::uint32_t stage, const DoneSet& done, std::uint64_t prepared = 0) {
  protocol::Report report;
  report.session = SessionId(session);
  report.stage = StageId(stage);
  report.done = done;
  report.prepared_epoch = EpochId(prepared);
  return report;
}

// What the ledger keeps up to date is what looking at every entry anew would say, whoever reports, repeats itself, owns
// twice, or is forgotten.
TEST(Ledger, SaysWhatAllEntriesTogetherSay) {
  const protocol::StepPaths paths(four_stages(), StepId(1), {});
  const CounterRandom random(7, "ledger");
  std::uint64_t drawn = 0;
  std::uint32_t complete = 0, twice = 0;
  for (int round = 0; round < 200; ++round) {
    Ledger ledger;
    ledger.begin(kCount, paths);
    std::map<std::uint64_t, DoneSet> done;
    std::map<std::uint64_t, std::uint64_t> prepared;
    const auto stage_of = [](std::uint64_t session) { return static_cast<std::uint32_t>(session % 4); };
    for (int event = 0; event < 150; ++event) {
      const std::uint64_t session = 4 + random.below(12, drawn++);
      if (random.below(40, drawn++) == 0) {
        ledger.forget(SessionId(session));
        done.erase(session);
        prepared.erase(session);
      } else {
        DoneSet& mine = done.try_emplace(session, kCount).first->second;
        // Three replicas share a stage's microbatches; sometimes one takes another's.
        for (std::uint32_t m = 0; m < kCount; ++m)
          if (paths.visits(MicrobatchId(m), StageId(stage_of(session))) &&
              (m % 3 == session / 4 - 1 || random.below(5000, drawn++) == 0) && random.below(3, drawn++) > 0)
            mine.insert(MicrobatchId(m));
        auto& epoch = prepared[session];
        epoch = std::max<std::uint64_t>(epoch, random.below(3, drawn++));
        ledger.record(of(session, stage_of(session), mine, epoch));
      }
      bool all = true, duplicate = false;
      for (std::uint32_t s = 0; s < 4; ++s) {
        std::uint32_t sum = 0;
        DoneSet owned(kCount);
        for (const auto& [other, set] : done)
          if (stage_of(other) == s) {
            owned.merge(set);
            sum += set.size();
          }
        duplicate = duplicate || sum != owned.size();
        all = all && owned.size() == paths.count(StageId(s));
      }
      const auto verdict = ledger.verdict();
      ASSERT_EQ(verdict.duplicate.has_value(), duplicate);
      ASSERT_EQ(verdict.complete, all && !duplicate);
      if (verdict.duplicate) {
        ASSERT_TRUE(done.contains(verdict.duplicate->value));
        ++twice;
        if (random.below(4, drawn++) == 0) {
          ledger.forget(*verdict.duplicate);
          done.erase(verdict.duplicate->value);
          prepared.erase(verdict.duplicate->value);
        }
      }
      complete += verdict.complete ? 1 : 0;
      for (const std::uint64_t epoch : {1, 2}) {
        const auto in_epoch = std::ranges::count(prepared, epoch, [](const auto& p) { return p.second; });
        ASSERT_EQ(ledger.all_prepared(done.size(), EpochId(epoch)), done.empty() || in_epoch == std::ssize(done));
      }
    }
  }
  EXPECT_GT(complete, 100u);
  EXPECT_GT(twice, 100u);
}

}  // namespace
}  // namespace isthmus::coordinator
