#include "compress/combine_updates.h"

#include <algorithm>
#include <cmath>

#include "compress/vectorized.h"

namespace isthmus::compress {

namespace {

// Numbers of each update that are decoded at a time.
constexpr std::uint64_t kSlab = 16 * kTile;

// Of an even number the lower of the two in the middle; 0 of none.
double lower_median(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>((values.size() - 1) / 2);
  std::ranges::nth_element(values, middle);
  return *middle;
}

// How an update relates to the mean of the others, up to a common scale.
struct Relation {
  double agreement = 0;
  double deviation = 0;  // of the agreement, by chance
};

// Scalar products of all pairs, so that the mean of any of the updates is compared without making it.
class Overlaps {
 public:
  Overlaps(const UpdateCodec& codec, std::span<const Update> updates, const std::vector<std::size_t>& checked)
      : count_(updates.size()), pairs_(count_ * count_) {
    for (const std::size_t i : checked)
      for (const std::size_t j : checked)
        if (i <= j)
          pairs_[i * count_ + j] = pairs_[j * count_ + i] = codec.overlap(updates[i].payload, updates[j].payload);
  }

  const Overlap& of(std::size_t i, std::size_t j) const { return pairs_[i * count_ + j]; }
  double norm(std::size_t i) const { return std::sqrt(of(i, i).product); }

  // `parts`: what each update is multiplied with in the mean; 0: it is no part of it.
  Relation with_others(std::size_t i, const std::vector<double>& parts) const {
    double product = 0, deviation = 0, norm2 = 0;
    for (std::size_t j = 0; j < count_; ++j) {
      if (j == i || parts[j] == 0) continue;
      product += parts[j] * of(i, j).product;
      // At most the sum of the deviations, however alike the others are.
      deviation += parts[j] * std::sqrt(of(i, j).squares);
      for (std::size_t k = 0; k < count_; ++k)
        if (k != i) norm2 += parts[j] * parts[k] * of(j, k).product;
    }
    const double norms = norm(i) * std::sqrt(std::max(norm2, 0.0));
    if (norms == 0) return {};
    return {product / norms, deviation / norms};
  }

 private:
  const std::size_t count_;
  std::vector<Overlap> pairs_;
};

ISTHMUS_VECTORIZED void scale(float* numbers, float factor, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) numbers[i] *= factor;
}
ISTHMUS_VECTORIZED void add(const float* numbers, float* out, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) out[i] += numbers[i];
}
ISTHMUS_VECTORIZED void order(float* low, float* high, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    const float a = low[i], b = high[i];
    low[i] = b < a ? b : a;
    high[i] = b < a ? a : b;
  }
}

// Sorts each coordinate over the rows: odd-even transposition, the same comparisons whatever the numbers.
void sort_coordinates(std::vector<std::vector<float>>& rows, std::size_t count) {
  for (std::size_t round = 0; round < rows.size(); ++round)
    for (std::size_t i = round % 2; i + 1 < rows.size(); i += 2) order(rows[i].data(), rows[i + 1].data(), count);
}

// An update that is part of the result, and what it is multiplied with.
struct Member {
  ByteView payload;
  float factor = 0;
};

// The sum of the members' numbers, sorted at each coordinate where `dropped` of either end are to be left out.
void combine(const UpdateCodec& codec, const std::vector<Member>& members, std::size_t dropped, std::span<float> out) {
  std::vector<std::vector<float>> rows(members.size(), std::vector<float>(std::min<std::uint64_t>(kSlab, out.size())));
  for (std::uint64_t first = 0; first < out.size(); first += kSlab) {
    const std::span<float> slab = out.subspan(first, std::min<std::uint64_t>(kSlab, out.size() - first));
    for (std::size_t i = 0; i < members.size(); ++i) {
      codec.decode(members[i].payload, first, std::span(rows[i]).first(slab.size()));
      scale(rows[i].data(), members[i].factor, slab.size());
    }
    if (dropped > 0) sort_coordinates(rows, slab.size());
    std::ranges::fill(slab, 0.0f);
    for (std::size_t i = dropped; i + dropped < rows.size(); ++i) add(rows[i].data(), slab.data(), slab.size());
  }
}

}  // namespace

std::vector<UpdateFinding> combine_updates(const UpdateCodec& codec, std::span<const Update> updates, CombineRule rule,
                                           std::span<float> out) {
  std::vector<UpdateFinding> findings(updates.size());
  std::vector<std::size_t> checked, counted;
  for (std::size_t i = 0; i < updates.size(); ++i) {
    if (const auto status = codec.check(updates[i].payload); !status) {
      findings[i].offence = status.error().message;
      continue;
    }
    checked.push_back(i);
    if (updates[i].weight > 0) counted.push_back(i);
  }

  const Overlaps overlaps(codec, updates, checked);
  std::vector<double> norms;
  for (const std::size_t i : counted)
    if (overlaps.norm(i) > 0) norms.push_back(overlaps.norm(i));
  const double median_norm = lower_median(norms);
  const bool judged = counted.size() >= 3;
  for (const std::size_t i : checked) {
    findings[i].norm = overlaps.norm(i);
    findings[i].factor = median_norm > 0 && findings[i].norm > median_norm ? median_norm / findings[i].norm : 1;
  }
  for (const std::size_t i : counted)
    if (judged && findings[i].norm > kLoudNorm * median_norm)
      findings[i].offence = fmt::format("its norm is {:.0f} times the median's", findings[i].norm / median_norm);

  std::vector<double> parts(updates.size()), agreements;
  for (const std::size_t i : counted) parts[i] = updates[i].weight * findings[i].factor;
  std::vector<Relation> relations(updates.size());
  for (const std::size_t i : checked)
    relations[i] = overlaps.with_others(i, parts), findings[i].agreement = relations[i].agreement;
  for (const std::size_t i : counted) agreements.push_back(findings[i].agreement);
  const double median = lower_median(agreements);
  std::vector<std::size_t> members;
  double weights = 0;
  for (const std::size_t i : counted) {
    const auto [agreement, deviation] = relations[i];
    if (judged && median > 0 && agreement + kChance * deviation < median / 4) {
      const char* relation =
          agreement + kChance * deviation < 0 ? "it points away from" : "it has nothing in common with";
      findings[i].factor = 0;
      findings[i].offence = fmt::format("{} the others' (cosine {:.2f}, median {:.2f})", relation, agreement, median);
      continue;
    }
    members.push_back(i);
    weights += updates[i].weight;
  }

  // Rows that the median or the trimmed mean leave out at either end, and what is left.
  const std::size_t count = members.size();
  const std::size_t dropped = rule == CombineRule::kMean || count < 3 ? 0
                              : rule == CombineRule::kMedian          ? (count - 1) / 2
                                                                      : std::max<std::size_t>(1, count / 4);
  std::vector<Member> rows;
  for (const std::size_t i : members) {
    const double share =
        rule == CombineRule::kMean ? updates[i].weight / weights : 1.0 / static_cast<double>(count - 2 * dropped);
    rows.push_back({updates[i].payload, static_cast<float>(share * findings[i].factor)});
  }
  combine(codec, rows, dropped, out);
  return findings;
}

}  // namespace isthmus::compress
