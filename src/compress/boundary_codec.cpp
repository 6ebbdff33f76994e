#include "compress/boundary_codec.h"

#include <array>

#include "compress/block_integers.h"
#include "compress/plain_values.h"
#include "spec/boundary_form.h"

namespace isthmus::compress {

namespace {

// The names of boundary.values. A new format is a file and a line here.
struct ValueFormat {
  std::string_view name;
  std::unique_ptr<BoundaryCodec> (*make)(Rounding);
};
constexpr std::array kFormats = {
    ValueFormat{"fp32", make_fp32},
    ValueFormat{"bf16", make_bf16},
    ValueFormat{"int8", make_int8},
    ValueFormat{"int4", make_int4},
};

}  // namespace

std::unique_ptr<BoundaryCodec> make_value_codec(std::string_view values, Rounding rounding) {
  for (const auto& format : kFormats)
    if (format.name == values) return format.make(rounding);
  return nullptr;
}

std::unique_ptr<BoundaryCodec> make_boundary_codec(const spec::RunSpec& run, Direction direction) {
  const bool forward = direction == Direction::kForward;
  auto values = make_value_codec(forward ? run.boundary.values : run.boundary.gradient_values,
                                 forward ? Rounding::kNearest : Rounding::kStochastic);
  if (spec::boundary_form(run.boundary.codec).sparse) return make_top_k(run.boundary.rank, std::move(values));
  return values;
}

BoundaryShape boundary_shape(const spec::RunSpec& run) {
  const spec::BoundaryForm form = spec::boundary_form(run.boundary.codec);
  return {std::uint64_t{run.train.sequences_per_microbatch} * run.model.context,
          form.narrow && !form.sparse ? run.boundary.rank : run.model.hidden};
}

}  // namespace isthmus::compress
