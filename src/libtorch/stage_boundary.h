#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "base/counter_random.h"
#include "base/ids.h"
#include "compress/boundary_codec.h"
#include "compress/encoded_tensor.h"
#include "compress/error_feedback.h"
#include "spec/run_spec.h"

namespace isthmus::libtorch {

// One direction of a stage's boundaries: its tensors as the bytes that cross, and back. One thread.
class StageBoundary {
 public:
  StageBoundary(const spec::RunSpec& run, StageId stage, compress::Direction direction);

  // The same bytes whenever the microbatch is computed again, by whichever replica. With error feedback, what the codec
  // drops of a training microbatch is added to the next. Without token ids.
  compress::EncodedTensor encode(const at::Tensor& tensor, StepId step, MicrobatchId m, bool training);
  // Tokens × columns, fp32. Errors: as BoundaryCodec::decode, and another codec's tensors.
  Result<at::Tensor> decode(const compress::EncodedTensor& tensor, at::Device device) const;
  // Forgets what was dropped.
  void clear() { feedback_.clear(); }

 private:
  const std::unique_ptr<compress::BoundaryCodec> codec_;
  compress::ErrorFeedback feedback_{*codec_};
  const bool feeds_back_;
  const compress::BoundaryShape shape_;
  const CounterRandom dither_;
};

}  // namespace isthmus::libtorch
