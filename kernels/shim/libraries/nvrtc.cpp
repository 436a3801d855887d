// NVRTC whose target is this host: libnvrtc.so.13. A "cubin" is a shared library of the source, compiled with shim.h by
// the host's compiler (STANDIN_CXX); cuda.cpp loads it. So headers, options, the cache of compiled kernels and the names of
// kernels are the ones that the real compiler would get.
// Settings: STANDIN_NVRTC (major version), STANDIN_COMPILE (1: nothing compiles).
#include "work.h"
#include <cstring>
#include <fstream>
#include <regex>
#include <sstream>
#include <string>
#include <unistd.h>
#include <vector>

struct Program {
  std::string name, text, log, image;
  std::vector<std::pair<std::string, std::string>> headers;
};

enum { kSuccess = 0, kInvalidInput = 3, kInvalidOption = 5, kCompilation = 6 };

#define CALL extern "C" __attribute__((visibility("default"))) int

CALL nvrtcVersion(int* major, int* minor) {
  *major = int(setting("STANDIN_NVRTC", 13));
  *minor = 0;
  return kSuccess;
}
CALL nvrtcGetNumSupportedArchs(int* count) {
  *count = 2;
  return kSuccess;
}
CALL nvrtcGetSupportedArchs(int* archs) {
  archs[0] = 80;
  archs[1] = 90;
  return kSuccess;
}
CALL nvrtcCreateProgram(Program** made, const char* text, const char* name, int count, const char* const* texts,
                        const char* const* names) {
  Program* program = new Program{name, text, "", "", {}};
  for (int i = 0; i < count; i++) program->headers.push_back({names[i], texts[i]});
  *made = program;
  return kSuccess;
}
CALL nvrtcDestroyProgram(Program** program) {
  delete *program;
  *program = nullptr;
  return kSuccess;
}

static void put(const std::string& path, const std::string& text) { std::ofstream(path) << text; }
static std::string get(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

// The host's compiler in the folder of the sources; what it said goes to `log`.
static bool compile(const std::string& folder, const std::string& arguments, std::string* log) {
  const char* compiler = getenv("STANDIN_CXX");
  const std::string command = "cd " + folder + " && " + (compiler ? compiler : "c++") +
                              " -std=c++17 -O1 -fPIC -fvisibility=hidden -ffp-contract=off -w -I. -I'" SHIM_INCLUDE "' " +
                              arguments + " >said 2>&1";
  const int status = system(command.c_str());
  *log = get(folder + "/said");
  return status == 0;
}

CALL nvrtcCompileProgram(Program* program, int count, const char* const* options) {
  std::string arch;
  for (int i = 0; i < count; i++) {
    const std::string option = options[i], key = "--gpu-architecture=";
    if (option.rfind(key, 0) == 0) arch = option.substr(key.size());
  }
  if (arch != "sm_80" && arch != "sm_90") {
    program->log = "no such architecture: " + arch;
    return kInvalidOption;
  }
  if (setting("STANDIN_COMPILE", 0)) {
    program->log = program->name + "(3): error: asm operand type\n1 error detected";
    return kCompilation;
  }
  const char* temporary = getenv("TMPDIR");
  std::string folder = std::string(temporary ? temporary : "/tmp") + "/standin-XXXXXX";
  if (!mkdtemp(&folder[0])) return kCompilation;
  for (const auto& [name, text] : program->headers) put(folder + "/" + name, text);
  put(folder + "/kernel.cu", "#include \"shim/shim.h\"\n#line 1 \"" + program->name + "\"\n" + program->text + "\n");
  bool good = compile(folder, "-E -P -x c++ kernel.cu -o expanded.cpp", &program->log);
  if (good) {
    // The kernels that are left once conditions are decided.
    const std::string expanded = get(folder + "/expanded.cpp");
    const std::regex entry("extern \"C\"\\s+void\\s+(?!gm_)(\\w+)\\s*\\(");
    std::string launches, parameters;
    for (std::sregex_iterator at(expanded.begin(), expanded.end(), entry), end; at != end; ++at) {
      const std::string name = (*at)[1];
      launches += "  if (!strcmp(name, \"" + name + "\")) body = &shim::Call<&" + name + ">::run;\n";
      parameters += "  if (!strcmp(name, \"" + name + "\")) return shim::Call<&" + name + ">::parameters(sizes);\n";
    }
    std::ofstream(folder + "/kernel.cu", std::ios::app)
        << "#define EXPORTED extern \"C\" __attribute__((visibility(\"default\")))\n"
           "EXPORTED int gm_launch(const char* name, const unsigned* grid, const unsigned* block, unsigned shared,\n"
           "                       void** args, unsigned order, char* message, size_t len) {\n"
           "  void (*body)(void**) = nullptr;\n"
        << launches
        << "  return shim::launch(body, grid, block, shared, args, order, message, len);\n}\n"
           "EXPORTED int gm_parameters(const char* name, unsigned char* sizes) {\n"
        << parameters << "  return -1;\n}\n";
    good = compile(folder, FMA "-shared -x c++ kernel.cu -o kernel.so", &program->log);
  }
  if (good) program->image = get(folder + "/kernel.so");
  const std::string remove = "rm -rf " + folder;
  return system(remove.c_str()) == 0 && good ? kSuccess : kCompilation;
}
CALL nvrtcGetProgramLogSize(Program* program, size_t* bytes) {
  *bytes = program->log.size() + 1;
  return kSuccess;
}
CALL nvrtcGetProgramLog(Program* program, char* log) {
  strcpy(log, program->log.c_str());
  return kSuccess;
}
CALL nvrtcGetCUBINSize(Program* program, size_t* bytes) {
  *bytes = program->image.size();
  return kSuccess;
}
CALL nvrtcGetCUBIN(Program* program, char* image) {
  memcpy(image, program->image.data(), program->image.size());
  return kSuccess;
}
