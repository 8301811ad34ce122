#pragma once
// What the model speaks of: threads' knowledge, orders and operations, stores and locations, places in the source.

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <source_location>
#include <string>
#include <utility>

namespace zeta::interleave {

inline constexpr std::size_t kMaxThreads = 4;
inline constexpr std::uint32_t kHistory = 12;  // stores kept per location, a load reads none older

/// Per virtual thread, how many of its steps are known.
using Clock = std::array<std::uint32_t, kMaxThreads>;

inline void join(Clock& into, const Clock& other) noexcept {
  for (std::size_t t = 0; t < kMaxThreads; ++t) into[t] = std::max(into[t], other[t]);
}

/// What an operation's memory order asks for. One bit per promise, so that a mutation can break each alone.
enum : std::uint8_t { kRelaxed = 0, kAcquire = 1, kRelease = 2, kSeqCst = 4 };
using Order = std::uint8_t;

enum class Operation : std::uint8_t { kLoad, kStore, kExchange, kCompareExchange, kCompareExchangeFailure, kFetch };

constexpr const char* name_of(Operation operation) noexcept {
  constexpr std::array<const char*, 6> kNames{
      "load", "store", "exchange", "compare_exchange", "compare_exchange failure", "fetch"};
  return kNames[static_cast<std::size_t>(operation)];
}

inline std::string name_of(Order order) {
  if (order == kRelaxed) return "relaxed";
  std::string name;
  for (const auto& [bit, word] : {std::pair{kAcquire, "acquire"}, {kRelease, "release"}, {kSeqCst, "seq_cst"}}) {
    if ((order & bit) != 0) name += name.empty() ? word : std::string("+") + word;
  }
  return name;
}

/// One store in a location's modification order.
struct Store {
  std::uint64_t value;
  Clock released;  // what an acquire of this store learns; zero when no release sequence holds it
  Clock seen;      // per thread, its step when it first read or wrote this store; kNever
  bool is_change;  // a read-modify-write: nothing slips in between it and the store before
};
inline constexpr std::uint32_t kNever = 0xFFFFFFFFU;

/// What the model keeps of an atomic object. `ring` is null while only the set-up has written it.
struct Location {
  std::uint64_t initial = 0;
  Store* ring = nullptr;
  std::uint32_t count = 0;      // stores so far
  std::uint32_t sc_floor = 0;   // the newest store that a seq_cst operation has read or written
  std::uint32_t id = 0;         // from kReusedIds on: of a subject that is built once
  std::uint32_t epoch = 0;      // of a reused one: the last schedule that wrote it
  std::uint32_t last_load = 0;  // where the model lists the loads that may read ahead

  Store& at(std::uint32_t index) const noexcept { return ring[index % kHistory]; }
};

inline constexpr std::uint32_t kReusedIds = 1U << 24U;

/// An ordered operation in the source, as the first run found it, and the promise to break.
struct Site {
  std::source_location where;
  Operation operation;
  Order order;  // as written
};

struct Weakening {
  std::source_location where;
  Operation operation;
  Order dropped;
};

inline bool is_same_place(const std::source_location& a, const std::source_location& b) noexcept {
  return a.line() == b.line() && a.column() == b.column() &&
         (a.file_name() == b.file_name() || std::strcmp(a.file_name(), b.file_name()) == 0);
}

}  // namespace zeta::interleave
