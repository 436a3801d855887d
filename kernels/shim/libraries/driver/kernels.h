// Modules, kernels and their launches.
#pragma once
#include "state.h"

CALL cuModuleLoadData(void** module, const void* image) {
  LOCKED;
  CHECK(may_block());
  const Result refused = Result(setting("STANDIN_LOAD", 0));
  if (refused) return refused;
  const auto* header = static_cast<const Elf64_Ehdr*>(image);
  if (memcmp(header->e_ident, ELFMAG, SELFMAG) != 0) return kInvalidImage;
  // What nvrtc.cpp makes ends with its table of sections.
  const size_t bytes = header->e_shoff + size_t(header->e_shnum) * header->e_shentsize;
  // The file stays open: a library is known by its path, and the next would get this one's number.
  const int file = memfd_create("kernels", MFD_CLOEXEC);
  if (file < 0 || write(file, image, bytes) != ssize_t(bytes)) return kOutOfMemory;
  const std::string path = "/proc/self/fd/" + std::to_string(file);
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    say("%s", dlerror());
    return kInvalidImage;
  }
  std::shared_ptr<Module> made(new Module{current, library});
  made->launch = reinterpret_cast<decltype(made->launch)>(dlsym(library, "gm_launch"));
  made->parameters = reinterpret_cast<decltype(made->parameters)>(dlsym(library, "gm_parameters"));
  if (!made->launch || !made->parameters) return kInvalidImage;
  modules[*module = made.get()] = made;
  return kSuccess;
}
CALL cuModuleUnload(void* of) {
  LOCKED;
  if (!modules.erase(of)) return kInvalidHandle;
  for (auto at = functions.begin(); at != functions.end();) {
    at = at->second->module.get() == of ? functions.erase(at) : std::next(at);
  }
  return kSuccess;
}
CALL cuModuleGetFunction(void** function, void* of, const char* name) {
  LOCKED;
  CHECK(may_block());
  auto module = modules.find(of);
  if (module == modules.end()) return kInvalidHandle;
  unsigned char parameters[64];
  const int count = module->second->parameters(name, parameters);
  if (count < 0) return kNotFound;
  // Asked again it is the same function, with the attributes that were set.
  for (auto& [key, made] : functions) {
    if (made->module == module->second && made->name == name) {
      *function = key;
      return kSuccess;
    }
  }
  std::shared_ptr<Function> made(new Function{module->second, name, {parameters, parameters + count}});
  functions[*function = made.get()] = made;
  return kSuccess;
}
CALL cuFuncSetAttribute(void* of, int which, int value) {
  LOCKED;
  CHECK(may_block());
  auto function = functions.find(of);
  if (function == functions.end()) return kInvalidHandle;
  if (which != 8 || value < 0 || value > 227 << 10) return kInvalidValue;
  function->second->shared = unsigned(value);
  return kSuccess;
}

// STANDIN_FAULT, once: what a run of this kernel ends with.
static Result fault_of(const std::string& kernel) {
  static std::string name;
  static long left = -1;
  static Result result = kSuccess;
  if (left < 0) {
    left = 0;
    if (const char* text = getenv("STANDIN_FAULT")) {
      const std::string whole = text;
      const size_t first = whole.find(':'), second = whole.find(':', first + 1);
      name = whole.substr(0, first);
      left = atol(whole.c_str() + first + 1);
      result = atoi(whole.c_str() + second + 1);
    }
  }
  if (left == 0 || (name != "*" && name != kernel)) return kSuccess;
  return --left == 0 ? result : kSuccess;
}

static Result run_kernel(const Function& function, const unsigned* grid, const unsigned* block, unsigned shared,
                         std::vector<uint64_t> values) {
  static unsigned runs = 0;
  // Threads upwards, downwards and shuffled in turn.
  static const unsigned orders[] = {0, 1, 7};
  std::vector<void*> arguments;
  for (size_t i = 0; i < values.size(); i++) {
    if (function.parameters[i] & 0x80 && values[i] && !is_live(function.module->context->gpu, values[i], 1)) {
      say("argument %zu of %s is %llx, which is in no allocation", i, function.name.c_str(), Address(values[i]));
      return kIllegalAddress;
    }
    arguments.push_back(&values[i]);
  }
  CHECK(fault_of(function.name));
  char message[512];
  if (!function.module->launch(function.name.c_str(), grid, block, shared, arguments.data(), orders[runs++ % 3],
                               message, sizeof message)) {
    return kSuccess;
  }
  say("%s: %s", function.name.c_str(), message);
  return kLaunchFailed;
}

CALL cuLaunchKernel(void* of, unsigned x, unsigned y, unsigned z, unsigned threads_x, unsigned threads_y,
                    unsigned threads_z, unsigned shared, void* stream, void** arguments, void** extra) {
  LOCKED;
  CHECK(ready());
  auto found = functions.find(of);
  if (found == functions.end()) return kInvalidHandle;
  const std::shared_ptr<Function> function = found->second;
  if (function->module->context != current) return kInvalidContext;
  const uint64_t threads = uint64_t(threads_x) * threads_y * threads_z;
  const bool grid_fits = x && y && z && x <= 0x7fffffffu && y <= 65535 && z <= 65535;
  if (!grid_fits || threads == 0 || threads > 1024 || shared > function->shared || extra) return kInvalidValue;
  // Arguments are taken at the call.
  std::vector<uint64_t> values;
  for (size_t i = 0; i < function->parameters.size(); i++) {
    uint64_t value = 0;
    memcpy(&value, arguments[i], function->parameters[i] & 0x7f);
    values.push_back(value);
  }
  return enqueue(static_cast<Stream*>(stream), [=] {
    const unsigned grid[] = {x, y, z}, block[] = {threads_x, threads_y, threads_z};
    return run_kernel(*function, grid, block, shared, values);
  });
}
