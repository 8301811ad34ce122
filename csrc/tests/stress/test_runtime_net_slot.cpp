// Nets are swapped under a loop that runs without pause: no tick mixes two versions, and each net ends once.

#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <memory>
#include <span>
#include <thread>

#include "runtime/net_slot.hpp"
#include "stress/team.hpp"
#include "zeta/forecast/net.hpp"

using namespace zeta;
using namespace zeta::test;

namespace {

/// Answers with its own number everywhere, so that a mixed tick would show.
class Numbered final : public forecast::NetRunner {
 public:
  Numbered(float number, std::atomic<int>& alive) : number_{number}, alive_{alive} {
    alive_.fetch_add(1, std::memory_order_relaxed);  // a count
  }
  ~Numbered() override {
    number_ = -1.0F;                                 // a use after the end would show, and the sanitizers would tell
    alive_.fetch_sub(1, std::memory_order_relaxed);  // a count
  }
  bool run(std::span<const float>, std::size_t rows, std::span<float> out) noexcept override {
    ++runs_;
    for (std::size_t i = 0; i < rows; ++i) out[i] = number_;
    return true;
  }

 private:
  float number_;
  std::atomic<int>& alive_;
  std::uint64_t runs_ = 0;  // plain: a loop and an end that are not ordered are a race
};

}  // namespace

TEST_CASE("nets swapped under load: no tick mixes versions, none goes backwards, each net ends once") {
  const std::size_t swaps = items_in_all() / 500;
  std::atomic<int> alive{0};
  std::atomic<bool> is_over{false};
  bool is_mixed = false;
  bool goes_back = false;
  std::uint64_t last = 0;
  std::atomic<std::uint64_t> versions{0};
  {
    runtime::NetSlot<forecast::NetRunner> slot;
    std::jthread loop{[&] {
      std::array<float, 16> first{};
      std::array<float, 16> second{};
      while (!is_over.load(std::memory_order_relaxed)) {  // only a signal to stop; the join orders the rest
        auto* const version = slot.take();
        if (version == nullptr || version->net == nullptr) continue;
        if (version->number < last) goes_back = true;
        versions.store(version->number, std::memory_order_relaxed);  // a count
        last = version->number;
        (void)version->net->run({}, first.size(), first);
        (void)version->net->run({}, second.size(), second);
        for (std::size_t i = 0; i < first.size(); ++i) is_mixed |= first[i] != first[0] || second[i] != first[0];
      }
    }};
    std::jthread collector{[&] {
      while (!is_over.load(std::memory_order_relaxed)) {  // as above
        slot.collect();
        std::this_thread::yield();
      }
    }};
    run_threads(2, [&](std::size_t me) {
      // On a busy machine the loop may begin when all is offered; it is to see some of it.
      for (std::size_t i = 0; i < swaps || versions.load(std::memory_order_relaxed) < 10; ++i) {
        (void)slot.offer(i % 16 == 15 ? nullptr : std::make_unique<Numbered>(static_cast<float>(2 * i + me), alive));
        if (i % 4 == 0) std::this_thread::yield();
      }
    });
    is_over.store(true, std::memory_order_relaxed);  // as above
  }
  CHECK_FALSE(is_mixed);
  CHECK_FALSE(goes_back);
  CHECK(versions.load(std::memory_order_relaxed) >= 10);
  CHECK(alive.load(std::memory_order_relaxed) == 0);  // the threads have ended
}
