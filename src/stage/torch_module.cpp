#include "stage/torch_module.h"

#include <dlfcn.h>

#include <filesystem>
#include <system_error>

#include "base/version.h"

namespace isthmus::stage {

namespace {

namespace fs = std::filesystem;

constexpr const char* kFile = "libisthmus_torch.so";

Result<const TorchModule*> load() {
  const auto path = torch_module_path();
  if (!path) return tl::unexpected(path.error());
  void* const library = ::dlopen(path->c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return fail("cannot load libtorch: {}", ::dlerror());
  const auto entry = reinterpret_cast<TorchModuleEntry>(::dlsym(library, kTorchModuleEntry));
  const TorchModule* const module = entry == nullptr ? nullptr : entry(kVersion);
  if (module == nullptr)
    return fail("{} is not of this program's version, {}; install both from one build", *path, kVersion);
  return module;
}

}  // namespace

Result<std::string> torch_module_path() {
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  if (error) return fail("cannot find this program's own folder, where {} is: {}", kFile, error.message());
  // As it is built, and as it is installed.
  const fs::path beside = program.parent_path() / kFile;
  const fs::path installed = program.parent_path().parent_path() / "lib" / "isthmus" / kFile;
  for (const fs::path& path : {beside, installed})
    if (fs::exists(path, error)) return path.string();
  return fail(
      "this computes with libtorch, but {} is neither in {} nor in {}: a build without libtorch. Install or build it "
      "whole; a trial needs no arithmetic with pipeline.device = \"emulated\"",
      kFile, beside.parent_path().string(), installed.parent_path().string());
}

Result<const TorchModule*> torch_module() {
  static const Result<const TorchModule*> loaded = load();
  return loaded;
}

}  // namespace isthmus::stage
