#include "compress/combine_updates.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "compress/random_updates.h"

namespace isthmus::compress {
namespace {

using ::testing::HasSubstr;

constexpr std::uint64_t kNumbers = 16 * kTile + 123;

struct Combiner {
  const char* name;
  std::unique_ptr<UpdateCodec> (*make)();
};

const Combiner kCombiners[] = {
    {"sparse",
     [] {
       return make_sparse_update({1000, 0, kNumbers - 1001, 1});
     }},
    {"dense", [] { return make_dense_update(kNumbers); }},
};

// The payloads of one sync, and what became of them.
class CombineUpdates : public ::testing::TestWithParam<Combiner> {
 protected:
  void give(Values update, double weight = 1) {
    payloads_.push_back(codec_->encode(update));
    weights_.push_back(weight);
  }
  void give_honest(std::size_t count, double share) {
    for (std::size_t i = 0; i < count; ++i) give(honest(common_, share, "honest" + std::to_string(payloads_.size())));
  }
  std::vector<UpdateFinding> combine(CombineRule rule = CombineRule::kMean) {
    std::vector<Update> updates;
    for (std::size_t i = 0; i < payloads_.size(); ++i) updates.push_back({weights_[i], payloads_[i]});
    out_.assign(kNumbers, 77.0f);
    return combine_updates(*codec_, updates, rule, out_);
  }
  Values decoded(std::size_t i) const {
    Values out(kNumbers);
    codec_->decode(payloads_[i], 0, out);
    return out;
  }
  // The numbers of these updates at each coordinate, clipped, sorted; `reduce` makes the result of them.
  template <class Reduce>
  void expect_of_sorted(const std::vector<std::size_t>& members, const std::vector<UpdateFinding>& findings,
                        Reduce reduce) const {
    std::vector<Values> rows;
    for (const std::size_t i : members) rows.push_back(decoded(i));
    for (std::uint64_t n = 0; n < kNumbers; ++n) {
      std::vector<double> here;
      for (std::size_t i = 0; i < members.size(); ++i) here.push_back(findings[members[i]].factor * rows[i][n]);
      std::ranges::sort(here);
      ASSERT_NEAR(out_[n], reduce(here), 1e-5) << n;
    }
  }

  const std::unique_ptr<UpdateCodec> codec_ = GetParam().make();
  const Values common_ = normals(kNumbers, "common");
  std::vector<Bytes> payloads_;
  std::vector<double> weights_;
  Values out_;
};

constexpr std::size_t kCounts[] = {1, 2, 3, 4, 8};

TEST_P(CombineUpdates, MeansByWeight) {
  for (const std::size_t count : kCounts) {
    payloads_.clear(), weights_.clear();
    give_honest(count, 0.5);
    std::iota(weights_.begin(), weights_.end(), 1.0);
    const auto findings = combine();
    std::vector<double> expected(kNumbers);
    const double weights = std::accumulate(weights_.begin(), weights_.end(), 0.0);
    for (std::size_t i = 0; i < count; ++i) {
      EXPECT_GT(findings[i].factor, 0.9);
      EXPECT_LE(findings[i].factor, 1);
      EXPECT_TRUE(findings[i].offence.empty()) << findings[i].offence;
      const Values update = decoded(i);
      for (std::uint64_t n = 0; n < kNumbers; ++n)
        expected[n] += weights_[i] * findings[i].factor * update[n] / weights;
    }
    for (std::uint64_t n = 0; n < kNumbers; ++n) ASSERT_NEAR(out_[n], expected[n], 1e-5) << n;
  }
}

TEST_P(CombineUpdates, ComparesEachWithTheMeanOfTheOthers) {
  give_honest(4, 0.5);
  give(honest(common_, 0.3, "louder", 2), 3);
  const auto findings = combine();
  std::vector<Values> updates;
  for (std::size_t i = 0; i < 5; ++i) updates.push_back(decoded(i));
  for (std::size_t i = 0; i < 5; ++i) {
    double product = 0, norm2 = 0, others2 = 0;
    for (std::uint64_t n = 0; n < kNumbers; ++n) {
      double others = 0;
      for (std::size_t j = 0; j < 5; ++j)
        if (j != i) others += weights_[j] * findings[j].factor * updates[j][n];
      product += others * updates[i][n];
      norm2 += static_cast<double>(updates[i][n]) * updates[i][n];
      others2 += others * others;
    }
    EXPECT_NEAR(findings[i].norm, std::sqrt(norm2), 1e-9 * findings[i].norm);
    EXPECT_NEAR(findings[i].agreement, product / std::sqrt(norm2 * others2), 1e-9);
  }
}

// The same payloads in the same order give the same bits; in another order the same findings, and a sum that was
// rounded otherwise.
TEST_P(CombineUpdates, DependsOnNothingElse) {
  give_honest(4, 0.5);
  for (const auto rule : {CombineRule::kMean, CombineRule::kMedian, CombineRule::kTrimmed}) {
    const auto findings = combine(rule);
    const Values first = out_;
    combine(rule);
    EXPECT_EQ(out_, first);
    std::ranges::reverse(payloads_);
    const auto reversed = combine(rule);
    for (std::uint64_t n = 0; n < kNumbers; ++n) ASSERT_NEAR(out_[n], first[n], 1e-6);
    for (std::size_t i = 0; i < 4; ++i) {
      EXPECT_EQ(findings[i].norm, reversed[3 - i].norm);
      EXPECT_EQ(findings[i].factor, reversed[3 - i].factor);
      EXPECT_NEAR(findings[i].agreement, reversed[3 - i].agreement, 1e-12);
    }
  }
}

TEST_P(CombineUpdates, TakesTheMedianOfEachCoordinate) {
  for (const std::size_t count : kCounts) {
    payloads_.clear(), weights_.clear();
    give_honest(count, 0.5);
    weights_[0] = 7;  // counts as one of many all the same
    const auto findings = combine(CombineRule::kMedian);
    std::vector<std::size_t> all(count);
    std::iota(all.begin(), all.end(), 0);
    expect_of_sorted(all, findings,
                     [&](const auto& sorted) { return (sorted[(count - 1) / 2] + sorted[count / 2]) / 2; });
  }
}

TEST_P(CombineUpdates, TrimsEachCoordinate) {
  for (const std::size_t count : {1, 2, 3, 4, 6, 8}) {
    payloads_.clear(), weights_.clear();
    give_honest(count, 0.5);
    const auto findings = combine(CombineRule::kTrimmed);
    std::vector<std::size_t> all(count);
    std::iota(all.begin(), all.end(), 0);
    const std::size_t dropped = count < 3 ? 0 : count < 8 ? 1 : 2;
    expect_of_sorted(all, findings, [&](const auto& sorted) {
      return std::accumulate(sorted.begin() + static_cast<std::ptrdiff_t>(dropped),
                             sorted.end() - static_cast<std::ptrdiff_t>(dropped), 0.0) /
             static_cast<double>(count - 2 * dropped);
    });
  }
}

TEST_P(CombineUpdates, LeavesOutWhatIsRefused) {
  give_honest(3, 0.5);
  const auto without = combine();
  const Values expected = out_;
  Values bad = common_;
  bad[5] = std::numeric_limits<float>::quiet_NaN();
  give(bad, 100);
  payloads_.push_back(Bytes(3));
  weights_.push_back(1);
  const auto findings = combine();
  EXPECT_EQ(out_, expected);
  EXPECT_EQ(findings[3].factor, 0);
  EXPECT_THAT(findings[3].offence, HasSubstr("its numbers are not finite"));
  EXPECT_EQ(findings[4].factor, 0);
  EXPECT_THAT(findings[4].offence, HasSubstr("update of 3 bytes"));
  for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(findings[i].agreement, without[i].agreement);
}

TEST_P(CombineUpdates, ClipsAndNamesWhatIsTooLoud) {
  give_honest(3, 0.5);
  give(honest(common_, 0.5, "loud", 100));
  give(honest(common_, 0.5, "louder than some", 3));
  const auto findings = combine();
  std::vector<double> norms;
  for (const auto& finding : findings) norms.push_back(finding.norm);
  std::ranges::sort(norms);
  for (const auto& finding : findings)
    EXPECT_NEAR(finding.norm * finding.factor, std::min(finding.norm, norms[2]), 1e-9 * finding.norm);
  EXPECT_THAT(findings[3].offence, ::testing::MatchesRegex("its norm is (99|100|101) times the median's"));
  for (const std::size_t i : {0, 1, 2, 4}) EXPECT_TRUE(findings[i].offence.empty()) << findings[i].offence;
}

// Of two nobody can tell who is right: the larger becomes as small as the other.
TEST_P(CombineUpdates, TakesTheSmallerNormOfTwo) {
  give_honest(1, 0.5);
  give(honest(common_, 0.5, "loud", 100));
  const auto findings = combine();
  EXPECT_EQ(findings[0].factor, 1);
  EXPECT_NEAR(findings[1].factor, 0.01, 1e-3);
  EXPECT_TRUE(findings[1].offence.empty());
  // One that says nothing is not what the other is clipped to.
  payloads_.pop_back(), weights_.pop_back();
  give(Values(kNumbers, 0.0f));
  EXPECT_EQ(combine()[0].factor, 1);
  give(Values(kNumbers, 0.0f));
  give(honest(common_, 0.5, "loud", 100));
  EXPECT_NEAR(combine()[3].factor, 0.01, 1e-3);
}

TEST_P(CombineUpdates, ExcludesNoiseAndWhatPointsAway) {
  for (const std::size_t count : {2, 3, 7}) {
    payloads_.clear(), weights_.clear();
    give_honest(count, 0.7);
    const auto alone = combine();
    const Values expected = out_;
    give(normals(kNumbers, "noise", 0.5));
    auto findings = combine();
    EXPECT_EQ(findings[count].factor, 0);
    EXPECT_THAT(findings[count].offence, HasSubstr("it has nothing in common with the others' (cosine "));
    EXPECT_NEAR(findings[count].agreement, 0, 0.02);
    for (std::size_t i = 0; i < count; ++i) EXPECT_TRUE(findings[i].offence.empty()) << findings[i].offence;

    Values against = honest(common_, 0.7, "against", -1);
    payloads_[count] = codec_->encode(against);
    findings = combine();
    if (count > 2) {
      EXPECT_EQ(findings[count].factor, 0);
      EXPECT_THAT(findings[count].offence, HasSubstr("it points away from the others' (cosine -0."));
    }
    for (std::size_t i = 0; i < count; ++i) EXPECT_TRUE(findings[i].offence.empty()) << findings[i].offence;
  }
}

TEST_P(CombineUpdates, ExcludesWhatIsZero) {
  give_honest(3, 0.7);
  give(Values(kNumbers, 0.0f));
  EXPECT_EQ(combine()[3].factor, 0);
}

// However little the replicas' data has in common, down to nothing; one of them has half as much of it as the others.
TEST_P(CombineUpdates, AccusesNobodyHonest) {
  for (const double share : {0.0, 0.02, 0.1, 0.3, 0.7, 1.0})
    for (const std::size_t count : {3, 4, 8}) {
      payloads_.clear(), weights_.clear();
      give_honest(count - 1, share);
      give(honest(common_, share / 2, "other data"));
      for (const auto& finding : combine())
        EXPECT_TRUE(finding.offence.empty()) << "share " << share << " of " << count << ": " << finding.offence;
    }
}

// Two that stand against two: nobody is in the majority.
TEST_P(CombineUpdates, NeedsAMajority) {
  give_honest(2, 0.9);
  const Values others = normals(kNumbers, "others");
  give(honest(others, 0.9, "c"));
  give(honest(others, 0.9, "d"));
  for (const auto& finding : combine()) EXPECT_TRUE(finding.offence.empty()) << finding.offence;
}

TEST_P(CombineUpdates, AccusesNobodyWhereNoneAgree) {
  give(common_);
  give(normals(kNumbers, "another"));
  give(honest(common_, 0.9, "against", -1));
  for (const auto& finding : combine()) EXPECT_TRUE(finding.offence.empty()) << finding.offence;
}

TEST_P(CombineUpdates, TakesNothingOfWhoWarmsUp) {
  give_honest(3, 0.7);
  combine();
  const Values expected = out_;
  give(normals(kNumbers, "warming up", 1000), 0);
  for (const auto rule : {CombineRule::kMean, CombineRule::kMedian}) {
    const auto findings = combine(rule);
    EXPECT_TRUE(findings[3].offence.empty());
    EXPECT_GT(findings[3].norm, 0);
    if (rule == CombineRule::kMean) {
      EXPECT_EQ(out_, expected);
    }
  }
}

TEST_P(CombineUpdates, IsZeroWhereThereIsNothing) {
  EXPECT_TRUE(combine().empty());
  EXPECT_EQ(out_, Values(kNumbers, 0.0f));
  give(common_, 0);
  give(Values(kNumbers, std::numeric_limits<float>::infinity()));
  for (const auto rule : {CombineRule::kMean, CombineRule::kMedian, CombineRule::kTrimmed}) {
    combine(rule);
    EXPECT_EQ(out_, Values(kNumbers, 0.0f));
  }
}

INSTANTIATE_TEST_SUITE_P(All, CombineUpdates, ::testing::ValuesIn(kCombiners),
                         [](const auto& subject) { return std::string(subject.param.name); });

// What a sparse update does not hold counts as 0.
TEST(CombineSparseUpdates, HasAMedianOfZeroWhereFewSentANumber) {
  const auto codec = make_sparse_update({64, 64, 64});
  std::vector<Bytes> payloads;
  for (const std::size_t second : {70, 71, 72}) {
    Values update(192, 0.0f);
    update[3] = 2, update[second] = 1, update[150] = second == 70 ? -1.0f : 2.0f;
    payloads.push_back(codec->encode(update));
  }
  const std::vector<Update> updates{{1, payloads[0]}, {1, payloads[1]}, {1, payloads[2]}};
  Values out(192);
  const auto findings = combine_updates(*codec, updates, CombineRule::kMedian, out);
  EXPECT_GT(out[3], 1.5f);
  EXPECT_GT(out[150], 1.5f);
  for (const std::size_t n : {70, 71, 72}) EXPECT_EQ(out[n], 0.0f);
}

}  // namespace
}  // namespace isthmus::compress
