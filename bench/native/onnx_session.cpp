// One net in a native session: time of a run on its own thread, without Python, and what ONNX Runtime takes from the
// heap meanwhile. `onnx_session LIBRARY MODEL FEATURES OUTPUTS ROWS RUNS HANG_LIMIT_MS
// PAUSE_US WARM` prints one JSON object. A pause before each timed run is what a loop has between its ticks; WARM says
// how many warm-ups come between the two.

#include "runtime/onnx_session.hpp"

#include <malloc.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <iterator>
#include <span>
#include <thread>
#include <vector>

namespace {
std::atomic<std::uint64_t> mallocs{0};  // a count
}

// The program's own malloc and operator new come before the C library's, for the library that it loads too.
extern "C" void* __libc_malloc(std::size_t);
extern "C" void* malloc(std::size_t bytes) {
  mallocs.fetch_add(1, std::memory_order_relaxed);
  return __libc_malloc(bytes);
}

int main(int count, char** words) {
  if (count != 10) return 2;
  try {
    using Clock = std::chrono::steady_clock;
    std::ifstream file{words[2], std::ios::binary};
    const std::vector<char> model{std::istreambuf_iterator<char>{file}, {}};
    const auto number = [&](int at) { return static_cast<std::size_t>(std::strtoul(words[at], nullptr, 10)); };
    const std::size_t rows = number(5);
    const std::size_t runs = number(6);
    zeta::runtime::OnnxLibrary& library = zeta::runtime::OnnxLibrary::at(words[1]);
    zeta::runtime::OnnxSession session{library,
                                       std::as_bytes(std::span{model}),
                                       {.features = number(3),
                                        .outputs = number(4),
                                        .max_rows = rows,
                                        .hang_limit = std::chrono::milliseconds{number(7)}}};
    const std::vector<float> features(rows * number(3), 0.25F);
    std::vector<float> out(rows * number(4));
    std::size_t unanswered = 0;  // stopped by the hang limit, because others had the core
    const auto run = [&] { unanswered += session.run(features, rows, out) ? 0U : 1U; };
    for (int i = 0; i < 1000; ++i) run();
    const auto before = session.stats();
    const std::uint64_t mallocs_before = mallocs.load(std::memory_order_relaxed);
    for (int i = 0; i < 1000; ++i) run();
    const std::uint64_t mallocs_after = mallocs.load(std::memory_order_relaxed);
    const auto after = session.stats();
    std::vector<double> us(runs);
    const std::chrono::microseconds pause{number(8)};
    const std::size_t warm_ups = number(9);
    for (double& each : us) {
      if (pause.count() > 0) std::this_thread::sleep_for(pause);
      for (std::size_t i = 0; i < warm_ups; ++i) session.warm_up();
      const auto began = Clock::now();
      run();
      each = std::chrono::duration<double, std::micro>(Clock::now() - began).count();
    }
    std::sort(us.begin(), us.end());
    const auto at = [&](double part) { return us[static_cast<std::size_t>(part * static_cast<double>(runs - 1))]; };
    const auto per_run = [](std::uint64_t later, std::uint64_t earlier) {
      return static_cast<double>(later - earlier) / 1000.0;
    };
    std::printf(
        "{\"version\": \"%s\", \"us_p50\": %.3f, \"us_p99\": %.3f, \"us_p999\": %.3f, \"mallocs_per_run\": %.3f, "
        "\"tensor_allocations_per_run\": %.3f, \"tensor_allocations_from_heap_per_run\": %.3f, \"unanswered\": %zu}\n",
        library.version().c_str(), at(0.5), at(0.99), at(0.999), per_run(mallocs_after, mallocs_before),
        per_run(after.tensor_allocations, before.tensor_allocations),
        per_run(after.tensor_allocations_from_heap, before.tensor_allocations_from_heap), unanswered);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
