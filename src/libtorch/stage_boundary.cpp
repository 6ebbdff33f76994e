#include "libtorch/stage_boundary.h"

#include <fmt/format.h>

#include <span>

#include "model/torch.h"

namespace isthmus::libtorch {

StageBoundary::StageBoundary(const spec::RunSpec& run, StageId stage, compress::Direction direction)
    : codec_(compress::make_boundary_codec(run, direction)),
      feeds_back_(run.boundary.error_feedback),
      shape_(compress::boundary_shape(run)),
      dither_(run.run.seed, fmt::format("dither of stage {}", stage)) {}

compress::EncodedTensor StageBoundary::encode(const at::Tensor& tensor, StepId step, MicrobatchId m, bool training) {
  const at::Tensor values = tensor.detach().to(at::kCPU, at::kFloat).contiguous();
  const std::span<const float> numbers(values.const_data_ptr<float>(), static_cast<std::size_t>(values.numel()));
  const std::uint64_t dither = dither_.bits((step.value << 24) ^ m.value);
  compress::EncodedTensor encoded;
  encoded.header.codec = codec_->id();
  encoded.values = share(training && feeds_back_ ? feedback_.encode(numbers, shape_, dither)
                                                 : codec_->encode(numbers, shape_, dither));
  return encoded;
}

Result<at::Tensor> StageBoundary::decode(const compress::EncodedTensor& tensor, at::Device device) const {
  if (const auto& header = tensor.header; header.codec != codec_->id() || header.era != 0)
    return fail("a payload of codec {}, era {}; this run's have codec {}, era 0", header.codec, header.era,
                codec_->id());
  at::Tensor values =
      torch::empty({static_cast<std::int64_t>(shape_.tokens), static_cast<std::int64_t>(shape_.columns)});
  const Status status =
      codec_->decode(*tensor.values, shape_, {values.data_ptr<float>(), static_cast<std::size_t>(values.numel())});
  if (!status) return tl::unexpected(status.error());
  return values.to(device);
}

}  // namespace isthmus::libtorch
