#include "stage/outer_optimizer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "base/digest.h"
#include "base/little_endian.h"
#include "compress/update_likeness.h"

namespace isthmus::stage {

namespace {

// Two updates that share so many of the places they could have chosen, and largely agree there, are one. Honest
// siblings share half of the places at most, or, where all numbers moved by as much (a first step of AdamW), all of
// them with signs of their own.
constexpr double kAlike = 0.75;
constexpr double kAgree = 0.95;

compress::CombineRule rule_of(const spec::RunSpec::Sync& sync) {
  return sync.rule == "median"    ? compress::CombineRule::kMedian
         : sync.rule == "trimmed" ? compress::CombineRule::kTrimmed
                                  : compress::CombineRule::kMean;
}

std::uint32_t weight_of(ByteView update) {
  ByteView in = update;
  return take_le<std::uint32_t>(in).value_or(0);
}

ByteView payload_of(ByteView update) {
  return update.subspan(std::min<std::size_t>(update.size(), compress::kUpdateWeightBytes));
}

std::vector<float> floats_of(ByteView bytes) {
  std::vector<float> values(bytes.size() / 4);
  if (!values.empty()) std::memcpy(values.data(), bytes.data(), values.size() * 4);
  return values;
}

}  // namespace

OuterOptimizer::OuterOptimizer(const spec::RunSpec& run, std::vector<std::uint64_t> tensors,
                               std::unique_ptr<RehearsedLiar> liar)
    : sync_(run.sync),
      microbatches_max_(run.train.microbatches_per_step * run.sync.every),
      steps_(run.run.steps),
      regular_(run, tensors, false),
      last_(run, tensors, true),
      liar_(std::move(liar)) {}

void OuterOptimizer::begin(std::vector<float> weights) { set(std::move(weights), {}); }

void OuterOptimizer::set(std::vector<float> anchor, std::vector<float> momentum) {
  anchor_ = std::move(anchor);
  momentum_ = std::move(momentum);
  momentum_.resize(*sync_.momentum > 0 ? anchor_.size() : 0, 0.0f);
  residual_.clear();
  warming_ = 0;
  common_.clear();
  told_.clear();
  told_before_.clear();
}

std::uint64_t OuterOptimizer::offset(std::uint32_t slice) const {
  std::uint64_t numbers = 0;
  for (std::uint32_t s = 0; s < slice; ++s) numbers += slices().codec(s).numbers();
  return numbers;
}

template <class Visit>
void OuterOptimizer::for_each_stretch(Visit&& visit) const {
  std::uint64_t place = 0;
  for (std::uint32_t s = 0; s < slices().count(); ++s)
    for (const auto& stretch : slices().stretches(s, version_)) {
      // Behind the end of the stage is padding.
      if (stretch.first < anchor_.size())
        visit(stretch.first, place, std::min(stretch.size, anchor_.size() - stretch.first));
      place += stretch.size;
    }
}

void OuterOptimizer::begin_sync(std::uint64_t version) {
  if (version_ == version && !common_.empty()) return;
  version_ = version;
  common_.assign(slices().numbers(), 0.0f);
  told_.assign(slices().count(), {});
  told_before_.resize(slices().count());
}

std::vector<SharedBytes> OuterOptimizer::updates(std::uint64_t version, std::span<const float> weights,
                                                 std::uint32_t microbatches) {
  begin_sync(version);
  const bool counts = warming_ == 0 && microbatches > 0;
  // In place where it can be: these are the largest arrays there are.
  std::vector<float> update;
  if (slices().sparse()) {
    update = anchor_;
    for (std::size_t i = 0; i < update.size(); ++i) update[i] -= weights[i];
  } else {
    update.assign(slices().numbers(), 0.0f);
    for_each_stretch([&](std::uint64_t at, std::uint64_t place, std::uint64_t size) {
      for (std::uint64_t i = 0; i < size; ++i) update[place + i] = anchor_[at + i] - weights[at + i];
    });
  }
  // What stays in the weights is in the update already.
  if (!residual_.empty() && counts && !keeps_in_weights()) {
    const auto share = static_cast<float>(sync_.error_feedback);
    for (std::size_t i = 0; i < residual_.size(); ++i) update[i] += share * residual_[i];
  }
  // A liar goes on from the truth itself.
  std::vector<float> truth;
  if (liar_) {
    truth = update;
    liar_->distort(update, version);
  }
  std::vector<SharedBytes> told;
  for (std::uint32_t s = 0; s < slices().count(); ++s) {
    Bytes bytes;
    append_le(bytes, counts ? microbatches : 0u);
    if (counts) {
      const Bytes payload = slices().codec(s).encode(std::span(update).subspan(offset(s), slices().codec(s).numbers()));
      bytes.insert(bytes.end(), payload.begin(), payload.end());
    }
    told.push_back(share(std::move(bytes)));
  }
  if (liar_) update = std::move(truth);
  // While this replica warms up nothing of it is told, then or later.
  residual_.clear();
  if (slices().sparse() && counts) residual_ = std::move(update);
  if (liar_) liar_->replace(told, told_before_);
  return told;
}

OuterOptimizer::Agreement OuterOptimizer::agree(std::uint64_t version, std::uint32_t slice,
                                                const std::vector<SharedBytes>& updates) {
  begin_sync(version);
  const compress::UpdateCodec& codec = slices().codec(slice);
  std::vector<compress::Update> given;
  Agreement agreement;
  for (const auto& update : updates) {
    const std::uint32_t weight = weight_of(*update);
    // Nobody has seen more than there was.
    const bool possible = weight <= microbatches_max_;
    given.push_back({possible ? static_cast<double>(weight) : 0.0, payload_of(*update)});
    agreement.offences.push_back(
        possible ? "" : fmt::format("it claims {} microbatches, there were {}", weight, microbatches_max_));
  }
  const std::span<float> common = std::span(common_).subspan(offset(slice), codec.numbers());
  const auto findings = compress::combine_updates(codec, given, rule_of(sync_), common);
  counted_ = 0;
  for (std::size_t i = 0; i < findings.size(); ++i) {
    counted_ += given[i].weight > 0 && findings[i].factor > 0;
    if (agreement.offences[i].empty() && given[i].weight > 0) agreement.offences[i] = findings[i].offence;
  }
  accuse_copies(slice, updates, agreement.offences);
  // Small ones are remembered, to be recognised when they come again.
  if (slices().sparse()) told_[slice] = updates;
  if (!slices().sparse()) {
    // Replicas that only take it have it in bf16, so those that made it use these bits, too.
    std::vector<float> rest(common.begin(), common.end());
    Bytes bytes = codec.encode(rest);
    codec.decode(bytes, 0, common);
    agreement.digest = digest_hex(bytes);
    agreement.bytes = share(std::move(bytes));
  }
  return agreement;
}

// A replica that sends what another one, or itself, has sent already computed nothing. Dense updates of a model that
// still learns the same thing everywhere are alike, too, so of these only equal ones are taken for copies.
void OuterOptimizer::accuse_copies(std::uint32_t slice, const std::vector<SharedBytes>& updates,
                                   std::vector<std::string>& offences) const {
  const compress::UpdateCodec& codec = slices().codec(slice);
  const auto sound = [&](ByteView payload) { return codec.check(payload).has_value(); };
  const auto alike = [&](ByteView a, ByteView b) {
    if (!slices().sparse()) return std::ranges::equal(a, b);
    return sound(b) && compress::likeness(codec, a, b) >= kAlike &&
           codec.overlap(a, b).product >= kAgree * std::sqrt(codec.norm2(a) * codec.norm2(b));
  };
  for (std::size_t i = 0; i < updates.size(); ++i) {
    const ByteView own = payload_of(*updates[i]);
    // Where steps are skipped nothing moves, with everybody alike.
    if (!offences[i].empty() || !sound(own) || codec.norm2(own) == 0) continue;
    for (const auto& before : told_before_[slice])
      if (alike(own, payload_of(*before))) offences[i] = "it sent what was sent at the sync before";
    for (std::size_t j = 0; j < updates.size() && offences[i].empty(); ++j)
      if (j != i && alike(own, payload_of(*updates[j]))) offences[i] = "it sent the same as another replica";
  }
}

Result<OuterOptimizer::Agreement> OuterOptimizer::take(std::uint64_t version, std::uint32_t slice,
                                                       const SharedBytes& agreement) {
  begin_sync(version);
  const compress::UpdateCodec& codec = slices().codec(slice);
  if (auto sound = codec.check(*agreement); !sound) return tl::unexpected(sound.error());
  codec.decode(*agreement, 0, std::span(common_).subspan(offset(slice), codec.numbers()));
  return Agreement{agreement, digest_hex(*agreement), {}};
}

Status OuterOptimizer::take_all(std::uint64_t version, const SharedBytes& outcome) {
  begin_sync(version);
  ByteView rest = *outcome;
  const auto next = [&](std::uint64_t size) -> Result<SharedBytes> {
    if (rest.size() < size) return fail("what a sync agreed on ends {} bytes early", size - rest.size());
    Bytes part(rest.begin(), rest.begin() + static_cast<std::ptrdiff_t>(size));
    rest = rest.subspan(size);
    return share(std::move(part));
  };
  for (std::uint32_t s = 0; s < slices().count(); ++s) {
    if (slices().sparse()) {
      std::vector<SharedBytes> updates;
      while (!rest.empty()) {
        auto update = next(weight_of(rest) == 0 ? compress::kUpdateWeightBytes : slices().bytes(s));
        if (!update) return tl::unexpected(update.error());
        updates.push_back(std::move(*update));
      }
      (void)agree(version, s, updates);
    } else {
      auto agreement = next(slices().codec(s).bytes());
      if (!agreement) return tl::unexpected(agreement.error());
      if (auto taken = take(version, s, *agreement); !taken) return tl::unexpected(taken.error());
    }
  }
  if (!rest.empty()) return fail("what a sync agreed on has {} bytes too many", rest.size());
  return {};
}

std::string OuterOptimizer::digest() const {
  // What decides it, momentum aside, which follows from all anchors so far.
  Checksum sum;
  for (const auto* values : {&common_, &anchor_})
    sum.update({reinterpret_cast<const std::uint8_t*>(values->data()), values->size() * 4});
  return fmt::format("{:016x}", sum.value());
}

void OuterOptimizer::apply(std::span<float> weights) {
  // A sparse mean that is taken twice makes up for replicas that told other numbers. It is never more than all told
  // together; and the last one, when all is told, is where the replicas are.
  const bool rest = regular_.sparse() && !slices().sparse();
  const double most = slices().sparse() ? counted_ : *sync_.learning_rate;
  const auto rate = static_cast<float>(rest ? 1.0 : std::min(*sync_.learning_rate, most)),
             share = static_cast<float>(rest ? 0.0 : *sync_.momentum);
  for_each_stretch([&](std::uint64_t at, std::uint64_t place, std::uint64_t size) {
    float* const anchor = anchor_.data() + at;
    const float* const common = common_.data() + place;
    if (momentum_.empty()) {
      for (std::uint64_t i = 0; i < size; ++i) anchor[i] -= rate * common[i];
    } else {
      float* const momentum = momentum_.data() + at;
      for (std::uint64_t i = 0; i < size; ++i) {
        momentum[i] = share * momentum[i] + common[i];
        anchor[i] -= rate * (common[i] + share * momentum[i]);
      }
    }
    std::copy_n(anchor, size, weights.data() + at);
  });
  if (keeps_in_weights() && !residual_.empty()) {
    const auto share = static_cast<float>(sync_.error_feedback);
    for (std::size_t i = 0; i < residual_.size(); ++i) weights[i] -= share * residual_[i];
    residual_.clear();
  }
  told_before_ = std::move(told_);
  told_.clear();
  common_.clear();
  if (warming_ > 0) --warming_;
}

SharedBytes OuterOptimizer::state() const {
  Bytes bytes;
  bytes.reserve(state_bytes());
  for (const auto* values : {&anchor_, &momentum_}) {
    const auto* first = reinterpret_cast<const std::uint8_t*>(values->data());
    bytes.insert(bytes.end(), first, first + values->size() * 4);
  }
  return share(std::move(bytes));
}

Status OuterOptimizer::restore(ByteView state) {
  if (state.size() != state_bytes())
    return fail("a state of {} bytes, this stage's has {}", state.size(), state_bytes());
  set(floats_of(state.first(anchor_.size() * 4)), floats_of(state.subspan(anchor_.size() * 4)));
  warming_ = sync_.warmup;
  return {};
}

}  // namespace isthmus::stage
