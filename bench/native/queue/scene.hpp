#pragma once
// What the queues are filled with. Every scene is a hold model: a taken entry is pushed again, later, so that the
// number of queued entries stays what it was and every item can be accounted for at the end.

#include <algorithm>
#include <array>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "measure.hpp"
#include "zeta/core/rng.hpp"
#include "zeta/queue/entry.hpp"

namespace zeta::bench {

using queue::Item;
using queue::Key;

enum class Clock {
  taken,  // virtual: a thread's present is the latest key that it has taken, so what is taken is about due
  real,   // the counter, in nanoseconds; stands still while other queues are measured
};

/// Slack is a class's time × (0.5 to 1.5), uniform; all classes are equally frequent unless one is listed twice.
struct Scene {
  std::string workload;
  std::size_t size = 0;
  Clock clock = Clock::taken;
  std::uint64_t quantum_ns = 0;
  std::vector<std::uint64_t> classes_ns;
  double spread = 0.5;  // slack is class × (1 ± spread)

  static constexpr std::uint64_t kQuanta = 262'144;  // horizon in quanta
  static constexpr Key kStart = 1'000'000'000'000;   // the present when a queue is filled
  [[nodiscard]] std::uint64_t horizon_ns() const noexcept { return quantum_ns * kQuanta; }

  /// llm: slack classes of 0.5, 5 and 60 s at 1 ms; llm64: the same at 64 ms. us: 20, 200, 200 and 2000 µs at 1.6 µs,
  /// or 25.6 µs where fewer than 10,000 are queued (else almost every entry has a bucket to itself). uniform: 0 to 120
  /// s at 1 ms.
  static Scene make(const std::string& workload, std::size_t size) {
    Scene made;
    made.workload = workload;
    made.size = size;
    if (workload == "llm" || workload == "llm64") {
      made.quantum_ns = workload == "llm" ? 1'000'000 : 64'000'000;
      made.classes_ns = {500'000'000, 5'000'000'000, 60'000'000'000};
    } else if (workload == "us") {
      made.clock = Clock::real;
      made.quantum_ns = size < 10'000 ? 25'600 : 1'600;
      made.classes_ns = {20'000, 200'000, 200'000, 2'000'000};
    } else if (workload == "uniform") {
      made.quantum_ns = 1'000'000;
      made.classes_ns = {60'000'000'000};
      made.spread = 1.0;
    } else {
      throw std::invalid_argument{"workload '" + workload + "'; expected llm, llm64, us or uniform"};
    }
    return made;
  }

  [[nodiscard]] std::uint64_t slack_ns(Rng& random) const noexcept {
    return slack_of(classes_ns[random.next_below(classes_ns.size())], random);
  }

  /// Until the key of an entry met at a random moment of a steady run: long slacks are met in proportion to their
  /// length, at a uniform point of it. (Filling with whole slacks would begin with a wave that takes N pairs to
  /// settle.)
  [[nodiscard]] std::uint64_t remaining_ns(Rng& random) const noexcept {
    const std::uint64_t longest = *std::max_element(classes_ns.begin(), classes_ns.end());
    for (;;) {
      const std::uint64_t slack = slack_ns(random);
      if (random.next_unit() * (1.0 + spread) * static_cast<double>(longest) < static_cast<double>(slack)) {
        return random.next_below(slack);
      }
    }
  }

 private:
  [[nodiscard]] std::uint64_t slack_of(std::uint64_t middle, Rng& random) const noexcept {
    return 1 +
           static_cast<std::uint64_t>(static_cast<double>(middle) * (1.0 - spread + 2.0 * spread * random.next_unit()));
  }
};

/// Slacks drawn beforehand, so that drawing costs a load: 8 KiB, one per thread.
class Slacks {
 public:
  Slacks(const Scene& scene, std::uint64_t seed) {
    Rng random{seed};
    for (std::uint64_t& each : values_) each = scene.slack_ns(random);
  }
  std::uint64_t next() noexcept { return values_[at_++ % values_.size()]; }

 private:
  std::array<std::uint64_t, 1'024> values_{};
  std::size_t at_ = 0;
};

/// A thread's present by the entries that it took.
class TakenClock {
 public:
  explicit TakenClock(Key now) noexcept : now_{now} {}
  Key read() noexcept { return now_; }
  void taken(Key key) noexcept { now_ = std::max(now_, key); }
  [[nodiscard]] Key last() const noexcept { return now_; }

 private:
  Key now_;
};

/// Nanoseconds by the counter, `now` at the tick `began`.
class RealClock {
 public:
  RealClock(Key now, Ticks began) noexcept
      : start_{now},
        began_{began},
        last_{now},
        ns_per_tick_{static_cast<std::uint64_t>(4'294'967'296.0 / TickScale::get().ticks_per_ns)} {}
  Key read() noexcept {
    const Ticks now = counter();
    if (now > began_) {
      last_ = start_ + static_cast<Key>((static_cast<unsigned __int128>(now - began_) * ns_per_tick_) >> 32U);
    }
    return last_;
  }
  void taken(Key) noexcept {}
  [[nodiscard]] Key last() const noexcept { return last_; }

 private:
  static Ticks counter() noexcept {
#if defined(__x86_64__)
    return __rdtsc();  // half the time of rdtscp; nothing is measured with it
#else
    return steady_ns();
#endif
  }
  Key start_;
  Ticks began_;
  Key last_;
  std::uint64_t ns_per_tick_;  // 32.32 fixed point
};

}  // namespace zeta::bench
