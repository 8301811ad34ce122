#pragma once
// ONNX Runtime through the shared library inside its Python wheel, without its headers.

#include <dlfcn.h>
#include <pthread.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>

#include "runtime/onnx_memory.hpp"

namespace zeta::runtime {

/// The library is absent, too old, or refused what it was asked; says which.
class OnnxError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Places in ONNX Runtime's table of C functions. The table only ever grows at its end, so that these numbers hold for
/// each version since the one that is asked for; they are all that is needed of its header.
enum class OnnxCall : std::size_t {
  kGetErrorMessage = 2,
  kCreateEnv = 3,
  kCreateSessionFromArray = 8,
  kCreateSessionOptions = 10,
  kSetSessionLogSeverityLevel = 22,
  kSetSessionGraphOptimizationLevel = 23,
  kSetIntraOpNumThreads = 24,
  kSetInterOpNumThreads = 25,
  kSessionGetInputCount = 30,
  kSessionGetOutputCount = 31,
  kSessionGetInputTypeInfo = 33,
  kSessionGetOutputTypeInfo = 34,
  kSessionGetInputName = 36,
  kSessionGetOutputName = 37,
  kCreateRunOptions = 39,
  kRunOptionsSetTerminate = 46,
  kRunOptionsUnsetTerminate = 47,
  kCreateTensorWithDataAsOrtValue = 49,
  kCastTypeInfoToTensorInfo = 55,
  kGetTensorElementType = 60,
  kGetDimensionsCount = 61,
  kGetDimensions = 62,
  kCreateCpuMemoryInfo = 69,
  kAllocatorFree = 76,
  kGetAllocatorWithDefaultOptions = 78,
  kReleaseStatus = 93,
  kReleaseSession = 95,
  kReleaseValue = 96,
  kReleaseRunOptions = 97,
  kReleaseTypeInfo = 98,
  kReleaseSessionOptions = 100,
  kAddSessionConfigEntry = 130,
  kRunWithBinding = 133,
  kCreateIoBinding = 134,
  kReleaseIoBinding = 135,
  kBindInput = 136,
  kBindOutput = 137,
  kRegisterAllocator = 176,
};

/// One loaded library: its functions, its environment, its memory. Any thread may use it. Never unloaded, because what
/// it made may live as long as the process.
class OnnxLibrary {
 public:
  static constexpr std::uint32_t kApiVersion = 20;  ///< Of ONNX Runtime 1.20, the oldest that is supported.

  /// The library at `path`, loaded by the first who asks. Throws OnnxError.
  [[nodiscard]] static OnnxLibrary& at(const std::string& path) {
    Shared& shared = Shared::one();
    const std::lock_guard guard{shared.mutex};
    std::unique_ptr<OnnxLibrary>& library = shared.libraries[path];
    if (library == nullptr) library.reset(new OnnxLibrary{path});
    return *library;
  }

  OnnxLibrary(const OnnxLibrary&) = delete;
  OnnxLibrary& operator=(const OnnxLibrary&) = delete;

  [[nodiscard]] const std::string& version() const noexcept { return version_; }
  [[nodiscard]] const std::string& path() const noexcept { return path_; }

  /// Calls a function that returns a status. Throws OnnxError with the library's own words.
  template <class... Arguments>
  void call(OnnxCall what, Arguments... arguments) const {
    if (void* const status = function<void*(Arguments...)>(what)(arguments...)) {
      const std::string message = function<const char*(void*)>(OnnxCall::kGetErrorMessage)(status);
      release(OnnxCall::kReleaseStatus, status);
      throw OnnxError{"ONNX Runtime " + version_ + ": " + message};
    }
  }

  /// The same for the hot path: whether it worked.
  template <class... Arguments>
  [[nodiscard]] bool try_call(OnnxCall what, Arguments... arguments) const noexcept {
    void* const status = function<void*(Arguments...)>(what)(arguments...);
    if (status == nullptr) return true;
    release(OnnxCall::kReleaseStatus, status);
    return false;
  }

  void release(OnnxCall what, void* object) const noexcept {
    if (object != nullptr) function<void(void*)>(what)(object);
  }

  [[nodiscard]] const void* environment() const noexcept { return environment_; }
  [[nodiscard]] const void* cpu() const noexcept { return cpu_; }
  /// The library's own allocator, for the names that it hands out.
  [[nodiscard]] void* names() const noexcept { return names_; }
  /// What sessions take tensors from; nullptr where another part of the process has registered its own allocator.
  [[nodiscard]] const OnnxMemory* memory() const noexcept { return is_memory_used_ ? memory_.get() : nullptr; }

  /// How many forks lie between the first process that used a library and this one. What was made in another process
  /// must be neither run nor destroyed: the threads that it may wait for are not here.
  [[nodiscard]] static std::uint32_t forks() noexcept {
    return Shared::one().forks.load(std::memory_order_relaxed);  // changes in a child before it has a second thread
  }

  /// Held while a session is made or destroyed, so that a fork never copies the library in the middle of it.
  [[nodiscard]] static std::unique_lock<std::mutex> between_forks() { return std::unique_lock{Shared::one().mutex}; }

 private:
  /// Of the process. Leaked: sessions may end after static objects do.
  struct Shared {
    std::mutex mutex;
    std::map<std::string, std::unique_ptr<OnnxLibrary>> libraries;
    std::atomic<std::uint32_t> forks{0};

    static Shared& one() {
      static Shared& shared = *[] {
        auto* const made = new Shared;
        if (pthread_atfork(&before_fork, &after_fork_in_parent, &after_fork_in_child) != 0) throw std::bad_alloc{};
        return made;
      }();
      return shared;
    }
    static void before_fork() { one().mutex.lock(); }
    static void after_fork_in_parent() { one().mutex.unlock(); }
    static void after_fork_in_child() {
      one().forks.fetch_add(1, std::memory_order_relaxed);  // this thread is the only one
      one().mutex.unlock();
    }
  };

  struct Base {
    const void* const* (*get_api)(std::uint32_t version) noexcept;
    const char* (*get_version)() noexcept;
  };

  explicit OnnxLibrary(const std::string& path) : path_{path} {
    // From 1.29 on, the library makes a device id, a cache and a thread that sends telemetry, unless it is told not to
    // before it begins. A scheduler must not send its host's data; and in a forked child, where that thread is missing,
    // the exit waits for it for ever. Who has set the variable keeps its value.
    ::setenv("ORT_DISABLE_TELEMETRY", "1", 0);
    // Local: another copy of the library, such as the one inside the Python package, keeps its own symbols.
    void* const handle = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (handle == nullptr) throw OnnxError{std::string{"cannot load ONNX Runtime: "} + ::dlerror()};
    void* const entry = ::dlsym(handle, "OrtGetApiBase");
    if (entry == nullptr) throw OnnxError{path + " has no OrtGetApiBase; it is not ONNX Runtime"};
    const Base* const base = reinterpret_cast<const Base* (*)() noexcept>(entry)();
    version_ = base->get_version();
    // Judged by its name first: an old one prints a complaint when asked for a newer table.
    if (!is_old(version_)) functions_ = base->get_api(kApiVersion);
    if (functions_ == nullptr) {
      throw OnnxError{"ONNX Runtime " + version_ + " at " + path + " is too old; expected 1.20 or later"};
    }
    constexpr int kFatalOnly = 4;
    call(OnnxCall::kCreateEnv, kFatalOnly, "zeta", &environment_);
    constexpr int kDeviceAllocator = 0;
    constexpr int kDefaultMemory = 0;
    call(OnnxCall::kCreateCpuMemoryInfo, kDeviceAllocator, kDefaultMemory, &cpu_);
    call(OnnxCall::kGetAllocatorWithDefaultOptions, &names_);
    memory_ = std::make_unique<OnnxMemory>(cpu_);
    is_memory_used_ = try_call(OnnxCall::kRegisterAllocator, environment_, memory_->as_allocator());
  }

  [[nodiscard]] static bool is_old(const std::string& version) noexcept {
    unsigned major = 0;
    unsigned minor = 0;
    return std::sscanf(version.c_str(), "%u.%u", &major, &minor) == 2 && major == 1 && minor < kApiVersion;
  }

  template <class Signature>
  [[nodiscard]] Signature* function(OnnxCall what) const noexcept {
    return reinterpret_cast<Signature*>(const_cast<void*>(functions_[static_cast<std::size_t>(what)]));
  }

  std::string path_;
  std::string version_;
  const void* const* functions_ = nullptr;
  void* environment_ = nullptr;
  void* cpu_ = nullptr;
  void* names_ = nullptr;
  std::unique_ptr<OnnxMemory> memory_;
  bool is_memory_used_ = false;
};

}  // namespace zeta::runtime
