// The scheduler inside a C++ program: requests in, placements out, time passed in. No Python, no thread, no clock.
//
// One replica that takes one request at a time. Three requests arrive together; the one with the least slack goes
// first.

#include <cstdio>
#include <map>
#include <optional>
#include <string_view>

#include "zeta/sched/config.hpp"
#include "zeta/sched/scheduler.hpp"

namespace {

constexpr zeta::Instant at_ms(long long ms) { return zeta::Instant{zeta::Duration{ms * 1'000'000}}; }

zeta::sched::SchedulerConfig one_model_on_one_gpu() {
  zeta::sched::SchedulerConfig config;
  config.max_queued = 1'000;
  config.devices.emplace_back();

  // Made-up figures of the right size for a 7B model on a large GPU; fit your own.
  zeta::sched::ModelConfig model;
  model.service.prefill_base_s = 0.010;
  model.service.prefill_per_token_s = 4e-5;
  model.service.decode_base_s = 0.008;
  model.service.decode_per_sequence_s = 5e-5;
  config.models.push_back(model);

  zeta::sched::ReplicaConfig replica;
  replica.max_in_flight = 1;
  config.replicas.push_back(replica);
  return config;
}

}  // namespace

int main() {
  zeta::sched::Scheduler scheduler{one_model_on_one_gpu()};
  std::map<std::uint64_t, std::string_view> names;

  const auto submit = [&](std::string_view name, std::uint32_t prompt_tokens, long long deadline_ms) {
    zeta::sched::Request request;
    request.prompt_tokens = prompt_tokens;
    request.max_tokens = 200;
    request.first_token_deadline = at_ms(deadline_ms);
    const zeta::sched::Ticket ticket = scheduler.reserve();
    names[ticket.value()] = name;
    scheduler.admit(ticket, request, at_ms(0));
  };
  submit("batch", 2'000, 60'000);
  submit("long document", 20'000, 1'500);
  submit("chat", 300, 1'000);
  scheduler.settle(at_ms(0));

  // Your server calls these as its engine answers; here every request simply takes half a second.
  for (long long now_ms = 0; const std::optional<zeta::sched::Placement> placed = scheduler.next_placement();) {
    std::printf("%5lld ms  %-13s starts\n", now_ms, names[placed->ticket.value()].data());
    static_cast<void>(scheduler.first_token(placed->ticket, at_ms(now_ms + 100)));
    now_ms += 500;
    static_cast<void>(scheduler.complete(placed->ticket, 200, at_ms(now_ms)));
  }
}
