#pragma once

#include <map>
#include <memory>
#include <string>

#include "base/result.h"
#include "runner/stage_compute.h"
#include "spec/run_config.h"
#include "stage/checkpoint_model.h"
#include "stage/merged_model.h"
#include "stage/recut.h"
#include "store/whole_checkpoint.h"

namespace isthmus::stage {

// All that computes with libtorch, behind one door: a library beside the program, which only those load who compute
// with a model's weights. A coordinator or a planner starts without libtorch's half a second and 100 MB. Any thread.
class TorchModule {
 public:
  virtual ~TorchModule() = default;

  // A CUDA device, and a driver for it.
  virtual bool has_cuda() const = 0;

  // The stage's layers on a CPU or CUDA device. Errors: no such device. Sets the process's number of compute threads.
  virtual Result<std::unique_ptr<runner::StageCompute>> make_stage(const spec::RunConfig& run, StageId stage,
                                                                   ReplicaId replica) const = 0;

  // Sets the process's number of compute threads: pipeline.threads, or one, because sums depend on it and the same text
  // should come on every machine. Errors: a checkpoint that is not whole.
  virtual Result<std::unique_ptr<CheckpointModel>> open_checkpoint(const spec::RunConfig& run,
                                                                   const std::string& folder,
                                                                   std::uint64_t version) const = 0;

  // `before` wrote the checkpoint, with its optimizer; what is made points into it. REQUIRES: `run` has the same model,
  // codec, seed and optimizer.
  virtual Recut recut(const spec::RunConfig& before, const store::WholeCheckpoint& checkpoint,
                      const spec::RunConfig& run) const = 0;

  // The trained tensors of all stages by name, as transformers reads them: a LlamaForCausalLM where is_llama(run),
  // otherwise what src/app/modeling_isthmus.py expects.
  virtual MergedModel merge(const spec::RunSpec& run,
                            const std::map<std::string, store::NamedTensor>& weights) const = 0;
};

// Where the library is. Errors: it is not there, in a build without libtorch.
Result<std::string> torch_module_path();

// Loads the library at the first call; it stays for the life of the process. Errors: it is not there (a build without
// libtorch), cannot be loaded, or is of another build.
Result<const TorchModule*> torch_module();

// What the library and the program agree on: the name of its only entry, which takes the program's headers_digest() and
// gives nullptr to another one.
using TorchModuleEntry = const TorchModule* (*)(const char* headers);
inline constexpr const char* kTorchModuleEntry = "isthmus_torch_module";

}  // namespace isthmus::stage
