#include "stage/torch_module.h"

#include <dlfcn.h>
#include <sys/resource.h>

#include <filesystem>
#include <system_error>

#include "base/headers_digest.h"

namespace isthmus::stage {

namespace {

namespace fs = std::filesystem;

constexpr const char* kFile = "libisthmus_torch.so";
// libtorch maps about 0.6 GB. With less than this the loader, in the middle of its work, ends the process.
constexpr rlim_t kAddressSpaceBytes = 1'000'000'000;

Result<const TorchModule*> load() {
  const auto path = torch_module_path();
  if (!path) return tl::unexpected(path.error());
  rlimit space{};
  if (::getrlimit(RLIMIT_AS, &space) == 0 && space.rlim_cur < kAddressSpaceBytes)
    return fail("cannot load libtorch: this process may have {} MB of address space, expected {} (ulimit -v)",
                space.rlim_cur / 1'000'000, kAddressSpaceBytes / 1'000'000);
  // What its static objects throw would leave the loader's locks taken: the process ends, with a sentence.
  void* const library = [&]() noexcept { return ::dlopen(path->c_str(), RTLD_NOW | RTLD_LOCAL); }();
  if (library == nullptr) return fail("cannot load libtorch: {}", ::dlerror());
  const auto entry = reinterpret_cast<TorchModuleEntry>(::dlsym(library, kTorchModuleEntry));
  const TorchModule* const module = entry == nullptr ? nullptr : entry(headers_digest());
  if (module == nullptr)
    return fail("{} is not of this program's build; install both from one, and start again", *path);
  return module;
}

}  // namespace

Result<std::string> torch_module_path() {
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  if (error) return fail("cannot find this program's own folder, where {} is: {}", kFile, error.message());
  const fs::path beside = program.parent_path() / kFile;
  if (fs::exists(beside, error)) return beside.string();
  return fail(
      "this computes with libtorch, but {} is not in {}: a build without libtorch. Install or build it whole; a trial "
      "needs no arithmetic with pipeline.device = \"emulated\"",
      kFile, program.parent_path().string());
}

Result<const TorchModule*> torch_module() {
  static const Result<const TorchModule*> loaded = load();
  return loaded;
}

}  // namespace isthmus::stage
