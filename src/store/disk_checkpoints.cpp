#include "store/disk_checkpoints.h"

#include <exception>
#include <utility>

namespace isthmus::store {

// A disk that is slower than the checkpoints are frequent holds up training; without that, copies would pile up.
void DiskCheckpoints::write(const Mark& mark, StageTensors tensors, Done done) {
  wait();
  writing_ = std::thread([this, mark, tensors = std::move(tensors), done = std::move(done)] {
    Status written;
    try {
      written = put(mark, tensors);
    } catch (const std::exception& error) {
      written = fail("cannot write the checkpoint of step {}: {}", mark.version, error.what());
    }
    done(std::move(written));
  });
}

void DiskCheckpoints::wait() {
  if (writing_.joinable()) writing_.join();
}

}  // namespace isthmus::store
