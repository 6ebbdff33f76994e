#include "libtorch/weight_bytes.h"

#include <cstring>

#include "model/torch.h"

namespace isthmus::libtorch {

ByteView bytes_of(const at::Tensor& cpu) {
  return {static_cast<const std::uint8_t*>(cpu.const_data_ptr()), cpu.nbytes()};
}

at::Tensor take_floats(ByteView& bytes, const at::Tensor& like) {
  at::Tensor values = torch::empty(like.sizes());
  std::memcpy(values.mutable_data_ptr(), bytes.data(), values.nbytes());
  bytes = bytes.subspan(values.nbytes());
  return values.to(like.device());
}

std::vector<float> flat_weights(const std::vector<model::Parameter>& parameters) {
  const torch::NoGradGuard no_graph;
  std::size_t numbers = 0;
  for (const auto& p : parameters) numbers += static_cast<std::size_t>(p.master.numel());
  std::vector<float> weights;
  weights.reserve(numbers);
  for (const auto& p : parameters) {
    const at::Tensor values = p.master.to(at::kCPU).contiguous();
    weights.insert(weights.end(), values.const_data_ptr<float>(), values.const_data_ptr<float>() + values.numel());
  }
  return weights;
}

std::vector<at::Tensor> trained_tensors(const model::Parameter& parameter) {
  std::vector<at::Tensor> tensors{parameter.master};
  tensors.insert(tensors.end(), parameter.moments.begin(), parameter.moments.end());
  return tensors;
}

}  // namespace isthmus::libtorch
