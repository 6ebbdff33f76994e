#pragma once

#include "model/stage_model.h"
#include "protocol/measurements.h"
#include "spec/run_spec.h"

namespace isthmus::libtorch {

// What one microbatch takes in one of the model's layers, in its embedding and in its head: F, I and W of each alone,
// on tokens of no meaning. Memory is left out. Takes a few hundredths of a second, for some sequences stand for the
// microbatch; where one sequence takes longer than a second, it is all. Weights, sums and random numbers are as before;
// the parameters must have no sums yet.
protocol::DeviceFigures time_layers(model::StageModel& model, const spec::RunSpec& run);

}  // namespace isthmus::libtorch
