#pragma once

#include <cstdint>

#include "model/parameter.h"
#include "model/torch.h"
#include "model/weight_work.h"

namespace isthmus::model {

// How a function of autograd, whose arguments are tensors and numbers, gets at a parameter and a list of work.

template <class T>
std::int64_t as_number(T* pointer) {
  return reinterpret_cast<std::int64_t>(pointer);
}

inline void remember(torch::autograd::AutogradContext* ctx, Parameter& parameter, WeightWorkList* work) {
  ctx->saved_data["parameter"] = as_number(&parameter);
  ctx->saved_data["work"] = as_number(work);
}

inline Parameter& remembered_parameter(torch::autograd::AutogradContext* ctx) {
  return *reinterpret_cast<Parameter*>(ctx->saved_data["parameter"].toInt());
}

// Leaves the weight's share for later.
inline void leave(torch::autograd::AutogradContext* ctx, WeightWork work) {
  work.parameter = &remembered_parameter(ctx);
  reinterpret_cast<WeightWorkList*>(ctx->saved_data["work"].toInt())->push_back(std::move(work));
}

}  // namespace isthmus::model
