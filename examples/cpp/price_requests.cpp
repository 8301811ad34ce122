// Orders a few requests by their latest start: deadline minus predicted service. Headers only, no Python, no thread.

#include <algorithm>
#include <array>
#include <cstdio>

#include "zeta/core/service_model.hpp"
#include "zeta/core/time.hpp"

namespace {

struct Request {
  const char* name;
  double prompt_tokens;
  double output_tokens;
  zeta::Instant deadline;

  [[nodiscard]] zeta::Instant latest_start(const zeta::ServiceModel& model) const {
    return deadline - zeta::duration_from_seconds(model.prefill_s(prompt_tokens));
  }
};

}  // namespace

int main() {
  // Made-up figures of the right size for a 7B model on a large GPU; fit your own.
  zeta::ServiceModel model;
  model.prefill_base_s = 0.010;
  model.prefill_per_token_s = 4e-5;
  model.decode_base_s = 0.008;
  model.decode_per_sequence_s = 5e-5;

  const auto at_ms = [](long long ms) { return zeta::Instant{zeta::Duration{ms * 1'000'000}}; };
  std::array<Request, 3> requests{{
      {"chat", 300, 200, at_ms(1000)},
      {"long document", 24'000, 400, at_ms(1500)},
      {"batch", 2'000, 1'000, at_ms(60'000)},
  }};
  std::ranges::sort(requests, {}, [&](const Request& request) { return request.latest_start(model); });
  for (const Request& request : requests) {
    std::printf("%-14s must start by %8.1f ms and costs %.3f GPU-seconds\n", request.name,
                static_cast<double>(zeta::to_ns(request.latest_start(model))) / 1e6,
                model.work_s(request.prompt_tokens, request.output_tokens));
  }
}
