#pragma once

// What the house uses of libtorch. <torch/torch.h> is twice as much to read for the compiler: layers, optimizers and
// data loaders that are not ours.
#include <ATen/Parallel.h>
#include <torch/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/cuda.h>
#include <torch/types.h>
