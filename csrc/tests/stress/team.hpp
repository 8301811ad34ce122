#pragma once
// What the stress tests share: how much to do, and threads to do it.

#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <fstream>
#include <thread>
#include <vector>

namespace zeta::test {

/// Items in all: what ZETA_STRESS names (nightly: 10^9 and more); without it ten million, fewer under a sanitizer.
inline std::size_t items_in_all() {
  const char* const asked = std::getenv("ZETA_STRESS");
  if (asked != nullptr) return std::strtoul(asked, nullptr, 10);
#if defined(__SANITIZE_THREAD__)
  return 400'000;
#elif defined(__SANITIZE_ADDRESS__)
  return 2'000'000;
#else
  return 10'000'000;
#endif
}

/// What this process has in memory now.
inline std::size_t resident_bytes() {
  std::ifstream file{"/proc/self/statm"};
  std::size_t pages = 0;
  file >> pages >> pages;
  return pages * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
}

/// Runs body(0) to body(count - 1), each on a thread of its own, and waits for them.
template <class Body>
void run_threads(std::size_t count, Body&& body) {
  std::vector<std::jthread> threads;
  for (std::size_t i = 0; i < count; ++i) threads.emplace_back([&, i] { body(i); });
}

}  // namespace zeta::test
