// complete + submit + poll on the shared scheduler, in one thread, with a queue of a given depth kept full.
//
//   lifecycle DEPTH REPLICAS COUNT [plain | allocating]
//
// Prints one line of JSON: nanoseconds per lifecycle, and how often anything was allocated meanwhile (malloc and its
// kin are counted by the definitions below). With `plain` the loop is not timed step by step: what callgrind counts
// (--toggle-collect=plain_lifecycles) is then the scheduler alone. With `allocating` each lifecycle is made to allocate
// once, to show that the count sees it. Time is virtual, so a run is the same every time.

#include <malloc.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "zeta/core/rng.hpp"
#include "zeta/sched/shared_scheduler.hpp"

// --- every way to get memory, counted --------------------------------------------------------------------------------

namespace {
bool is_counting = false;
std::uint64_t allocations = 0;

void count() noexcept {
  if (is_counting) ++allocations;
}
}  // namespace

extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);

void* malloc(std::size_t bytes) noexcept {
  count();
  return __libc_malloc(bytes);
}
void* calloc(std::size_t items, std::size_t bytes) noexcept {
  count();
  return __libc_calloc(items, bytes);
}
void* realloc(void* old, std::size_t bytes) noexcept {
  count();
  return __libc_realloc(old, bytes);
}
void* aligned_alloc(std::size_t alignment, std::size_t bytes) noexcept {
  count();
  return __libc_memalign(alignment, bytes);
}
void* memalign(std::size_t alignment, std::size_t bytes) noexcept {
  count();
  return __libc_memalign(alignment, bytes);
}
int posix_memalign(void** out, std::size_t alignment, std::size_t bytes) noexcept {
  count();
  *out = __libc_memalign(alignment, bytes);
  return *out == nullptr ? 12 : 0;
}
}

namespace {

using zeta::Instant;
using zeta::sched::Placement;
using zeta::sched::Request;
using zeta::sched::Ticket;

constexpr zeta::Duration kStep{2'000};  // between events
constexpr std::size_t kCycle = 1U << 14U;

zeta::sched::SchedulerConfig three_models(std::uint32_t depth, std::uint32_t replicas) {
  zeta::sched::SchedulerConfig config;
  config.max_queued = depth + 20'000;
  config.max_running = 64 * 3 * replicas + 1'024;
  config.max_replicas = 3 * replicas;
  const double sizes[] = {7.0, 8.0, 14.0};  // billion parameters; times as zeta's prior has them
  const double qualities[] = {0.50, 0.55, 0.70};
  for (std::uint8_t m = 0; m < 3; ++m) {
    config.devices.push_back({false, 0.9});
    const double size = sizes[m];
    zeta::ServiceModel service{2.0e-3 + 0.59e-3 * size, 2.1e-6 * size,           0.09e-9 * size,
                               1.0e-3 + 0.77e-3 * size, 2.0e-6 + 0.55e-6 * size, 15e-9 + 3.0e-9 * size};
    zeta::sched::ModelConfig model;
    model.quality = qualities[m];
    model.service = service;
    model.device = zeta::DeviceId{m};
    config.models.push_back(model);
    for (std::uint32_t r = 0; r < replicas; ++r) {
      zeta::sched::ReplicaConfig replica;
      replica.model = zeta::ModelId{m};
      config.replicas.push_back(replica);
    }
  }
  return config;
}

std::vector<Request> requests() {
  zeta::Rng random{1};
  std::vector<Request> rows(kCycle);
  for (Request& row : rows) {
    row.prompt_tokens = 50 + static_cast<std::uint32_t>(random.next_below(1'500));
    row.max_tokens = 256;
    row.complexity = static_cast<float>(random.next_unit());
    row.first_token_deadline =
        Instant{} + zeta::Duration{1'000'000'000 + static_cast<std::int64_t>(random.next_below(59'000'000'000))};
  }
  return rows;
}

class Bench {
 public:
  Bench(std::uint32_t depth, std::uint32_t replicas)
      : config_{three_models(depth, replicas)}, shared_{config_}, rows_{requests()}, running_(1U << 16U) {
    while (shared_.with_owner([](auto& s) { return s.waiting(); }) < depth) submit();
    poll();
  }

  void lifecycle() noexcept {
    now_ += kStep;
    (void)shared_.complete(running_[first_++ & (running_.size() - 1)], 200, now_);
    submit();
    poll();
  }

  /// Completions counted by the scheduler.
  [[nodiscard]] std::uint64_t completed() {
    return shared_.with_owner([](auto& s) { return s.ledger().ended(zeta::Outcome::completed); });
  }
  [[nodiscard]] bool adds_up() {
    return shared_.with_owner([](auto& s) { return s.ledger().adds_up(); });
  }

 private:
  void submit() noexcept {
    Request request = rows_[next_++ & (kCycle - 1)];
    request.first_token_deadline += now_ - Instant{};
    (void)shared_.submit(request, now_);
  }

  void poll() noexcept {
    shared_.poll(
        0, static_cast<std::size_t>(-1),
        [this](const Placement& placement) { running_[last_++ & (running_.size() - 1)] = placement.ticket; }, now_);
  }

  zeta::sched::SchedulerConfig config_;
  zeta::sched::SharedScheduler<> shared_;
  std::vector<Request> rows_;
  std::vector<Ticket> running_;  // a ring
  std::size_t first_ = 0;
  std::size_t last_ = 0;
  std::size_t next_ = 0;
  Instant now_{};
};

}  // namespace

extern "C" [[gnu::noinline]] void plain_lifecycles(void* bench, std::size_t count) noexcept {
  for (std::size_t i = 0; i < count; ++i) static_cast<Bench*>(bench)->lifecycle();
}

int main(int arguments, char** values) {
  if (arguments < 4) {
    std::fprintf(stderr, "usage: lifecycle DEPTH REPLICAS COUNT [plain | allocating]\n");
    return 2;
  }
  const auto depth = static_cast<std::uint32_t>(std::strtoul(values[1], nullptr, 10));
  const auto replicas = static_cast<std::uint32_t>(std::strtoul(values[2], nullptr, 10));
  const auto count = static_cast<std::size_t>(std::strtoul(values[3], nullptr, 10));
  const std::string_view mode = arguments > 4 ? values[4] : "";
  const bool is_plain = mode == "plain";
  const bool is_allocating = mode == "allocating";

  Bench bench{depth, replicas};
  const std::size_t warm_up = count / 10 + 100;
  for (std::size_t i = 0; i < warm_up; ++i) bench.lifecycle();

  std::vector<double> ns(is_plain ? 1 : count);
  using Clock = std::chrono::steady_clock;
  const auto began = Clock::now();
  is_counting = true;
  if (is_plain) {
    plain_lifecycles(&bench, count);
  } else {
    auto before = Clock::now();
    for (double& each : ns) {
      bench.lifecycle();
      if (is_allocating) ::operator delete(::operator new(1));  // called by name, or the compiler may leave both out
      const auto after = Clock::now();
      each = std::chrono::duration<double, std::nano>(after - before).count();
      before = after;
    }
  }
  is_counting = false;
  const double mean =
      std::chrono::duration<double, std::nano>(Clock::now() - began).count() / static_cast<double>(count);

  if (!bench.adds_up() || bench.completed() != warm_up + count) {
    std::fprintf(stderr, "wrong answer: %llu completions counted, %zu done\n",
                 static_cast<unsigned long long>(bench.completed()), warm_up + count);
    return 1;
  }
  std::sort(ns.begin(), ns.end());
  const auto at = [&](double q) { return ns[static_cast<std::size_t>(q * static_cast<double>(ns.size() - 1))]; };
  std::printf("{\"depth\": %u, \"replicas\": %u, \"lifecycles\": %zu, \"ns_mean\": %.1f, ", depth, replicas, count,
              mean);
  std::printf("\"ns_p50\": %.0f, \"ns_p99\": %.0f, \"ns_p999\": %.0f, \"allocations\": %llu}\n", at(0.5), at(0.99),
              at(0.999), static_cast<unsigned long long>(allocations));
  return 0;
}
