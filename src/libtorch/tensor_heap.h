#pragma once

namespace isthmus::libtorch {

// Has libtorch take the memory of CPU tensors by plain malloc and align it by itself. Its own way, posix_memalign,
// leaves holes in glibc's heap before 2.38 that no tensor of the same size fits in again: a stage's process then grows
// to half as much again as its tensors ever are. Once or often; before the first tensor that shall be counted.
void use_tensor_heap();

}  // namespace isthmus::libtorch
