// libnvrtc.so: compiles a kernel by translating it and calling g++. The "PTX" is a path, which libcuda.so opens.
//
// Compiled kernels are named by a hash of their source and of the headers, and kept in STANDIN_CACHE. The directory of
// this library has the headers (build.sh puts them there, with a precompiled prelude).
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <fstream>
#include <mutex>
#include <sstream>
#include <string>
#include <sys/stat.h>
#include <unistd.h>

#include "abi.h"
#include "settings.h"
#include "translate.h"

#ifndef HEADERS_HASH
#error "build.sh defines HEADERS_HASH"
#endif
#define NVRTC extern "C" __attribute__((visibility("default"))) int

namespace {

constexpr int COMPILATION_FAILED = 6;   // NVRTC_ERROR_COMPILATION

struct Program {
    std::string source, image, log;
};

// FNV-1a.
std::string hash(const std::string &text) {
    uint64_t value = 0xcbf29ce484222325;
    for (unsigned char c : text) value = (value ^ c) * 0x100000001b3;
    char digits[17];
    snprintf(digits, sizeof digits, "%016llx", static_cast<unsigned long long>(value));
    return digits;
}

std::string home() {
    Dl_info info;
    if (!dladdr(reinterpret_cast<void *>(home), &info)) return ".";
    const std::string path = info.dli_fname;
    return path.substr(0, path.rfind('/'));
}

// STANDIN_CACHE, else a temporary directory of this process, which is removed when it ends.
const std::string &cache() {
    static std::string temporary;
    static const std::string path = [] {
        const std::string kept = settings::text("STANDIN_CACHE");
        if (!kept.empty()) {
            mkdir(kept.c_str(), 0755);
            return kept;
        }
        char pattern[] = "/tmp/standin-XXXXXX";
        const char *made = mkdtemp(pattern);
        temporary = made ? made : "";
        if (made) atexit([] { if (system(("rm -rf '" + temporary + "'").c_str())) return; });
        return temporary;
    }();
    return path;
}

std::string contents(const std::string &path) {
    std::ifstream file(path);
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
}

// Writes beside the target and renames, so that another process never sees half a file.
void write_whole(const std::string &path, const std::string &text) {
    const std::string part = path + "." + std::to_string(getpid());
    std::ofstream(part) << text;
    rename(part.c_str(), path.c_str());
}

int compile(Program &program) {
    const std::string id = hash(program.source), sources = settings::text("STANDIN_SOURCES");
    const Translation translation = translate(program.source);
    if (!sources.empty()) {
        mkdir(sources.c_str(), 0755);
        write_whole(sources + "/" + id + ".cu", program.source);
    }
    const std::string library = cache() + "/" + id + "-" HEADERS_HASH ".so";
    program.image = STANDIN_IMAGE + library;
    if (access(library.c_str(), R_OK) == 0) {
        log_line("reused " + translation.kernel + " " + id);
        return 0;
    }
    if (translation.kernel.empty()) {
        program.log = "no __global__ function";
        return COMPILATION_FAILED;
    }
    const std::string base = library + "." + std::to_string(getpid());
    std::ofstream(base + ".cpp") << translation.source;
    const std::string here = home(), command = "g++ " STANDIN_KERNEL_FLAGS " -include '" + here + "/device/prelude.h' -I'" + here +
        "/device/include' -shared '" + base + ".cpp' -o '" + base + "' 2>'" + base + ".log'";
    const int status = system(command.c_str());
    program.log = contents(base + ".log");
    unlink((base + ".log").c_str());
    if (status != 0) {
        log_line("failed " + translation.kernel + " " + base + ".cpp");   // the translation is kept
        return COMPILATION_FAILED;
    }
    unlink((base + ".cpp").c_str());
    rename(base.c_str(), library.c_str());
    log_line("compiled " + translation.kernel + " " + id);
    return 0;
}

}

NVRTC nvrtcVersion(int *major, int *minor) { *major = 13; *minor = 0; return 0; }
NVRTC nvrtcCreateProgram(Program **program, const char *source, const char *, int, const char **, const char **) {
    *program = new Program{source, "", ""};
    return 0;
}
NVRTC nvrtcCompileProgram(Program *program, int, const char **) {
    static std::mutex lock;
    std::lock_guard<std::mutex> hold(lock);
    return compile(*program);
}
NVRTC nvrtcGetProgramLogSize(Program *program, size_t *bytes) { *bytes = program->log.size() + 1; return 0; }
NVRTC nvrtcGetProgramLog(Program *program, char *text) { strcpy(text, program->log.c_str()); return 0; }
NVRTC nvrtcGetPTXSize(Program *program, size_t *bytes) { *bytes = program->image.size() + 1; return 0; }
NVRTC nvrtcGetPTX(Program *program, char *text) { strcpy(text, program->image.c_str()); return 0; }
NVRTC nvrtcDestroyProgram(Program **program) {
    delete *program;
    *program = nullptr;
    return 0;
}
extern "C" __attribute__((visibility("default"))) const char *nvrtcGetErrorString(int error) {
    return error == COMPILATION_FAILED ? "NVRTC_ERROR_COMPILATION" : "an error of the stand-in compiler";
}
