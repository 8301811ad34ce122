#pragma once
// A trained net inside the loop: one ONNX Runtime session behind forecast::NetRunner.

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "runtime/clock.hpp"
#include "runtime/onnx_library.hpp"
#include "runtime/onnx_memory.hpp"
#include "runtime/run_deadline.hpp"
#include "zeta/core/time.hpp"
#include "zeta/forecast/net.hpp"

namespace zeta::runtime {

struct OnnxSessionConfig {
  std::string input_name = "features";
  std::string output_name = "quantiles";
  std::size_t features = 0;
  std::size_t outputs = 0;
  std::size_t max_rows = 0;
  /// A run that takes longer gives no answer. Zero: no limit.
  Duration deadline = Duration::zero();
  /// A run that is still going after this long is told to stop, which it does between two nodes. Zero: it is left.
  Duration hang_limit = Duration::zero();
};

/// What a session did since it was made.
struct OnnxSessionStats {
  std::uint64_t runs = 0;                          ///< Calls that reached ONNX Runtime.
  std::uint64_t failures = 0;                      ///< Runs that it answered with an error.
  std::uint64_t late = 0;                          ///< Runs that took longer than the deadline.
  std::uint64_t stopped = 0;                       ///< Runs that the hang limit ended; late too.
  std::uint64_t rests = 0;                         ///< Times that it was taken out of use for a while.
  std::uint64_t rested = 0;                        ///< Calls that were answered with "no answer" meanwhile.
  std::uint64_t tensor_allocations = 0;            ///< ONNX Runtime's calls to our allocator during runs.
  std::uint64_t tensor_allocations_from_heap = 0;  ///< Those that nothing kept at hand could serve.
  std::int64_t last_run_ns = 0;
  std::int64_t longest_run_ns = 0;
};

/// One ONNX Runtime session: one thread, no spinning, tensors made once. Made from bytes that were checked before
/// (python/zeta/forecast/artefact.py); the runtime never opens a file.
///
/// One caller at a time, always the same thread or handed over; `stats` from any. `run` allocates nothing of ours, and
/// takes no lock but the try-lock of the allocator. It gives no answer when ONNX Runtime fails, when the deadline had
/// passed, and in a process forked from the one that made it; the output is then untouched. After three runs in a row
/// without an answer it rests for 100 calls, then twice as many each time, up to 6,400, so that a net that is always
/// late costs little. Whether numbers are finite is for the caller to judge.
class OnnxSession final : public forecast::NetRunner {
 public:
  static constexpr std::uint32_t kFailuresToRest = 3;
  static constexpr std::uint32_t kShortestRest = 100;
  static constexpr std::uint32_t kLongestRest = 6'400;

  /// Throws OnnxError when the bytes are no net with this input and output, or the runtime refuses them.
  OnnxSession(OnnxLibrary& library, std::span<const std::byte> model, OnnxSessionConfig config)
      : library_{library}, config_{std::move(config)}, forks_{OnnxLibrary::forks()} {
    if (config_.features == 0 || config_.outputs == 0 || config_.max_rows == 0) {
      throw OnnxError{"a session needs at least one feature, output and row"};
    }
    inputs_.resize(config_.max_rows * config_.features);
    outputs_.resize(config_.max_rows * config_.outputs);
    try {
      const auto guard = OnnxLibrary::between_forks();
      open(model);
      bind(config_.max_rows);
      for (int i = 0; i < kWarmUps; ++i) library_.call(OnnxCall::kRunWithBinding, session_, run_options(), binding());
    } catch (...) {
      close();
      throw;
    }
    if (config_.hang_limit > Duration::zero()) {
      hang_ = std::make_unique<RunDeadline>(
          [this] { (void)library_.try_call(OnnxCall::kRunOptionsSetTerminate, run_options_); });
    }
  }

  ~OnnxSession() override {
    if (forks_ != OnnxLibrary::forks()) {
      (void)hang_.release();  // its thread is not here
      return;                 // abandoned: to destroy it could wait for a lock that nobody here holds
    }
    hang_.reset();
    const auto guard = OnnxLibrary::between_forks();
    close();
  }

  [[nodiscard]] bool run(std::span<const float> features, std::size_t rows, std::span<float> out) noexcept override {
    if (forks_ != OnnxLibrary::forks() || rows == 0 || rows > config_.max_rows) return false;
    if (features.size() != rows * config_.features || out.size() != rows * config_.outputs) return false;
    if (resting_ > 0) {
      --resting_;
      add(rested_, 1);
      return false;
    }
    const OnnxAllocations before = OnnxMemory::of_this_thread();
    const bool is_answered = (rows == bound_rows_ || try_bind(rows)) && answer(features);
    const OnnxAllocations& after = OnnxMemory::of_this_thread();
    add(allocations_, after.calls - before.calls);
    add(allocations_from_heap_, after.from_heap - before.from_heap);
    if (!is_answered) {
      rest_after_failures();
      return false;
    }
    failures_in_a_row_ = 0;
    rest_ = kShortestRest;
    std::copy_n(outputs_.data(), out.size(), out.data());
    return true;
  }

  /// Runs twice on the numbers of the last run and forgets the answers; as `run`, by its caller, counted nowhere. After
  /// 50 ms of sleep the code and weights have left the caches and a run takes 25 times as long: a loop that wakes a
  /// little early and calls this has its answer at about the usual speed when the tick is due. (The second one still
  /// helps, a third no more.)
  void warm_up() noexcept {
    if (forks_ != OnnxLibrary::forks() || resting_ > 0 || bound_rows_ == 0) return;
    if (hang_ != nullptr) hang_->begin(config_.hang_limit);
    for (int i = 0; i < 2; ++i) {
      (void)library_.try_call(OnnxCall::kRunWithBinding, session_, run_options(), binding());
    }
    if (hang_ == nullptr || !hang_->end()) return;
    (void)library_.try_call(OnnxCall::kRunOptionsUnsetTerminate, run_options_);
    rest_after_failures();
  }

  [[nodiscard]] OnnxSessionStats stats() const noexcept {
    const auto read = [](const auto& value) { return value.load(std::memory_order_relaxed); };  // figures to report
    return {.runs = read(runs_),
            .failures = read(failures_),
            .late = read(late_),
            .stopped = read(stopped_),
            .rests = read(rests_),
            .rested = read(rested_),
            .tensor_allocations = read(allocations_),
            .tensor_allocations_from_heap = read(allocations_from_heap_),
            .last_run_ns = read(last_run_ns_),
            .longest_run_ns = read(longest_run_ns_)};
  }

  [[nodiscard]] const OnnxLibrary& library() const noexcept { return library_; }
  [[nodiscard]] const OnnxSessionConfig& config() const noexcept { return config_; }
  /// Whether this process made it. If not, make another one.
  [[nodiscard]] bool is_of_this_process() const noexcept { return forks_ == OnnxLibrary::forks(); }

 private:
  static constexpr int kWarmUps = 3;  // until ONNX Runtime has planned its memory

  [[nodiscard]] bool answer(std::span<const float> features) noexcept {
    std::copy_n(features.data(), features.size(), inputs_.data());
    const Instant began = SteadyClock{}.now();
    if (hang_ != nullptr) hang_->begin(config_.hang_limit);
    const bool is_good = library_.try_call(OnnxCall::kRunWithBinding, session_, run_options(), binding());
    const bool is_stopped = hang_ != nullptr && hang_->end();
    const std::int64_t took_ns = (SteadyClock{}.now() - began).count();
    if (is_stopped) (void)library_.try_call(OnnxCall::kRunOptionsUnsetTerminate, run_options_);
    const bool is_late = is_stopped || (config_.deadline > Duration::zero() && took_ns > config_.deadline.count());
    add(runs_, 1);
    add(failures_, is_good || is_stopped ? 0 : 1);
    add(late_, is_late ? 1 : 0);
    add(stopped_, is_stopped ? 1 : 0);
    last_run_ns_.store(took_ns, std::memory_order_relaxed);           // a figure to report
    if (took_ns > longest_run_ns_.load(std::memory_order_relaxed)) {  // written here only
      longest_run_ns_.store(took_ns, std::memory_order_relaxed);      // a figure to report
    }
    return is_good && !is_late;
  }

  void rest_after_failures() noexcept {
    if (++failures_in_a_row_ < kFailuresToRest) return;
    failures_in_a_row_ = kFailuresToRest - 1;  // one more after the rest is enough
    resting_ = rest_;
    rest_ = std::min(2 * rest_, kLongestRest);
    add(rests_, 1);
  }

  /// Only the caller of run adds, so that a load and a store suffice; others read figures.
  template <class Number>
  static void add(std::atomic<Number>& to, Number by) noexcept {
    to.store(to.load(std::memory_order_relaxed) + by, std::memory_order_relaxed);
  }
  static void add(std::atomic<std::uint64_t>& to, int by) noexcept { add(to, static_cast<std::uint64_t>(by)); }

  // --- making and unmaking -------------------------------------------------------------------------------------------

  void open(std::span<const std::byte> model) {
    void* options = nullptr;
    library_.call(OnnxCall::kCreateSessionOptions, &options);
    const auto configure = [&] {
      constexpr int kAllOptimisations = 99;
      constexpr int kFatalOnly = 4;
      library_.call(OnnxCall::kSetIntraOpNumThreads, options, 1);
      library_.call(OnnxCall::kSetInterOpNumThreads, options, 1);
      library_.call(OnnxCall::kSetSessionGraphOptimizationLevel, options, kAllOptimisations);
      library_.call(OnnxCall::kSetSessionLogSeverityLevel, options, kFatalOnly);
      const auto set = [&](const char* key, const char* value) {
        library_.call(OnnxCall::kAddSessionConfigEntry, options, key, value);
      };
      set("session.intra_op.allow_spinning", "0");
      set("session.inter_op.allow_spinning", "0");
      if (library_.memory() != nullptr) set("session.use_env_allocators", "1");
      library_.call(OnnxCall::kCreateSessionFromArray, library_.environment(), static_cast<const void*>(model.data()),
                    model.size(), static_cast<const void*>(options), &session_);
    };
    try {
      configure();
    } catch (...) {
      library_.release(OnnxCall::kReleaseSessionOptions, options);
      throw;
    }
    library_.release(OnnxCall::kReleaseSessionOptions, options);
    check_port("input", OnnxCall::kSessionGetInputCount, OnnxCall::kSessionGetInputName,
               OnnxCall::kSessionGetInputTypeInfo, config_.input_name, config_.features);
    check_port("output", OnnxCall::kSessionGetOutputCount, OnnxCall::kSessionGetOutputName,
               OnnxCall::kSessionGetOutputTypeInfo, config_.output_name, config_.outputs);
    library_.call(OnnxCall::kCreateRunOptions, &run_options_);
    library_.call(OnnxCall::kCreateIoBinding, session_, &binding_);
  }

  /// One float32 matrix of free height, of this name and width.
  void check_port(const char* role, OnnxCall count_of, OnnxCall name_of, OnnxCall type_of, const std::string& name,
                  std::size_t width) const {
    const void* const session = session_;
    std::size_t count = 0;
    library_.call(count_of, session, &count);
    const auto refuse = [&](const std::string& given, const std::string& expected) {
      throw OnnxError{"a net with " + given + "; expected " + expected};
    };
    if (count != 1) refuse(std::to_string(count) + " " + role + "s", "one");
    char* named = nullptr;
    library_.call(name_of, session, std::size_t{0}, library_.names(), &named);
    const std::string given{named};
    (void)library_.try_call(OnnxCall::kAllocatorFree, library_.names(), static_cast<void*>(named));
    if (given != name) refuse(std::string{role} + " \"" + given + "\"", "\"" + name + "\"");
    void* type = nullptr;
    library_.call(type_of, session, std::size_t{0}, &type);
    const std::unique_ptr<void, Releaser> owner{type, Releaser{library_, OnnxCall::kReleaseTypeInfo}};
    const void* tensor = nullptr;
    library_.call(OnnxCall::kCastTypeInfoToTensorInfo, static_cast<const void*>(type), &tensor);
    if (tensor == nullptr) refuse(std::string{role} + " that is no tensor", "a float32 matrix");
    int element = 0;
    library_.call(OnnxCall::kGetTensorElementType, tensor, &element);
    std::size_t rank = 0;
    library_.call(OnnxCall::kGetDimensionsCount, tensor, &rank);
    constexpr int kFloat = 1;
    if (element != kFloat || rank != 2) refuse(std::string{role} + " of another type or rank", "a float32 matrix");
    std::int64_t shape[2] = {0, 0};
    library_.call(OnnxCall::kGetDimensions, tensor, &shape[0], rank);
    if (shape[0] != -1 || shape[1] != static_cast<std::int64_t>(width)) {
      refuse(std::string{role} + " of shape " + std::to_string(shape[0]) + " x " + std::to_string(shape[1]),
             "-1 (free) x " + std::to_string(width));
    }
  }

  struct Releaser {
    const OnnxLibrary& library;
    OnnxCall how;
    void operator()(void* object) const noexcept { library.release(how, object); }
  };

  /// Makes tensors of so many rows over our own memory.
  void bind(std::size_t rows) {
    bound_rows_ = 0;
    library_.release(OnnxCall::kReleaseValue, std::exchange(input_, nullptr));
    library_.release(OnnxCall::kReleaseValue, std::exchange(output_, nullptr));
    input_ = tensor(inputs_, rows, config_.features);
    output_ = tensor(outputs_, rows, config_.outputs);
    library_.call(OnnxCall::kBindInput, binding_, config_.input_name.c_str(), static_cast<const void*>(input_));
    library_.call(OnnxCall::kBindOutput, binding_, config_.output_name.c_str(), static_cast<const void*>(output_));
    bound_rows_ = rows;
  }

  [[nodiscard]] bool try_bind(std::size_t rows) noexcept {
    try {
      bind(rows);
      return true;
    } catch (...) {
      return false;
    }
  }

  [[nodiscard]] void* tensor(std::vector<float>& over, std::size_t rows, std::size_t columns) const {
    const std::int64_t shape[2] = {static_cast<std::int64_t>(rows), static_cast<std::int64_t>(columns)};
    constexpr int kFloat = 1;
    void* made = nullptr;
    library_.call(OnnxCall::kCreateTensorWithDataAsOrtValue, library_.cpu(), static_cast<void*>(over.data()),
                  rows * columns * sizeof(float), &shape[0], std::size_t{2}, kFloat, &made);
    return made;
  }

  void close() noexcept {
    library_.release(OnnxCall::kReleaseIoBinding, binding_);
    library_.release(OnnxCall::kReleaseValue, input_);
    library_.release(OnnxCall::kReleaseValue, output_);
    library_.release(OnnxCall::kReleaseRunOptions, run_options_);
    library_.release(OnnxCall::kReleaseSession, session_);
  }

  [[nodiscard]] const void* run_options() const noexcept { return run_options_; }
  [[nodiscard]] const void* binding() const noexcept { return binding_; }

  OnnxLibrary& library_;
  const OnnxSessionConfig config_;
  const std::uint32_t forks_;
  std::vector<float> inputs_;
  std::vector<float> outputs_;
  void* session_ = nullptr;
  void* binding_ = nullptr;
  void* run_options_ = nullptr;
  void* input_ = nullptr;
  void* output_ = nullptr;
  std::size_t bound_rows_ = 0;
  std::unique_ptr<RunDeadline> hang_;

  std::uint32_t failures_in_a_row_ = 0;
  std::uint32_t resting_ = 0;
  std::uint32_t rest_ = kShortestRest;

  std::atomic<std::uint64_t> runs_{0};
  std::atomic<std::uint64_t> failures_{0};
  std::atomic<std::uint64_t> late_{0};
  std::atomic<std::uint64_t> stopped_{0};
  std::atomic<std::uint64_t> rests_{0};
  std::atomic<std::uint64_t> rested_{0};
  std::atomic<std::uint64_t> allocations_{0};
  std::atomic<std::uint64_t> allocations_from_heap_{0};
  std::atomic<std::int64_t> last_run_ns_{0};
  std::atomic<std::int64_t> longest_run_ns_{0};
};

}  // namespace zeta::runtime
