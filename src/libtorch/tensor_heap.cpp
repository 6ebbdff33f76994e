#include "libtorch/tensor_heap.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/alignment.h>

#include <cstdint>
#include <cstdlib>
#include <new>

namespace isthmus::libtorch {

namespace {

class TensorHeap final : public c10::Allocator {
 public:
  c10::DataPtr allocate(std::size_t bytes) override {
    if (bytes == 0) return {nullptr, c10::Device(c10::kCPU)};
    void* const whole = std::malloc(bytes + sizeof(void*) + c10::gAlignment);
    if (!whole) throw std::bad_alloc();
    const auto first = reinterpret_cast<std::uintptr_t>(whole) + sizeof(void*);
    void** const tensor = reinterpret_cast<void**>((first + c10::gAlignment - 1) / c10::gAlignment * c10::gAlignment);
    // What to free stands before it: some callers know a tensor by nothing but its address.
    tensor[-1] = whole;
    return {tensor, tensor, &give_back, c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &give_back; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override { default_copy_data(to, from, bytes); }

 private:
  static void give_back(void* tensor) { std::free(static_cast<void**>(tensor)[-1]); }
};

}  // namespace

void use_tensor_heap() {
  static TensorHeap heap;
  c10::SetCPUAllocator(&heap);
}

}  // namespace isthmus::libtorch
