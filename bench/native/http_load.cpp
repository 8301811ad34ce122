// A fake OpenAI engine and the load generator that measures what stands before it, both on one thread and so on one
// core.
//
//   http_load [ENGINES]
//
// First prints {"engines": [PORT, …]}: so many ports on the loopback interface (2 unless told), of the kernel's choice.
// Then reads commands from the standard input, a line each, and prints one JSON document for each; ends at the input's
// end. A command is a list of key=value:
//
//   ports=P[,P…]      where to send; the engines' own ports measure the rig itself
//   connections=N     kept alive
//   rate=R            an open loop: arrivals at R per second whatever the answers do, exponential gaps, the same ones
//   in
//                     every run; latency counts from the arrival's own time. 0: closed, each connection asks when
//                     answered
//   seconds=S warm=S  what counts, and what goes before it
//   stream=0|1 chunks=K pace_us=U first_us=U usage=0|1
//                     answers as server-sent events: the first chunk after first_us, then one each pace_us (0: as fast
//                     as the socket takes them). K travels as max_tokens. Without stream, first_us delays the answer.
//   stagger=S         the connections begin spread over S seconds
//   request_bytes, reply_bytes, chunk_bytes, model, key, path, limit (seconds for one answer), spin=1 (never sleeps)
//
// An answer counts only if it is whole and is the answer to this very request: its status, its number, its length, the
// numbering of its chunks, [DONE], and usage where it was asked for. Everything else is an error, by kind.

#include <fcntl.h>

#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "http/backend.hpp"
#include "http/load.hpp"
#include "http/loop.hpp"
#include "http/text.hpp"
#include "http/wire.hpp"

namespace zeta::bench::http {
namespace {

Plan parse(const std::string& line) {
  Plan plan;
  plan.limit = 10'000'000'000;
  plan.window = 1'000'000'000;
  std::istringstream words(line);
  for (std::string word; words >> word;) {
    const std::size_t equals = word.find('=');
    if (equals == std::string::npos) throw std::invalid_argument("not key=value: " + word);
    const std::string key = word.substr(0, equals);
    const std::string value = word.substr(equals + 1);
    const auto whole = [&] { return std::stoull(value); };
    const auto scaled = [&](double scale) { return static_cast<Nanos>(std::stod(value) * scale); };
    Shape& shape = plan.shape;
    if (key == "ports") {
      std::istringstream ports(value);
      for (std::string port; std::getline(ports, port, ',');) {
        plan.ports.push_back(static_cast<std::uint16_t>(std::stoul(port)));
      }
    } else if (key == "connections") {
      plan.connections = whole();
    } else if (key == "rate") {
      plan.rate = std::stod(value);
    } else if (key == "seconds") {
      plan.window = scaled(1e9);
    } else if (key == "warm") {
      plan.warm = scaled(1e9);
    } else if (key == "stagger") {
      plan.stagger = scaled(1e9);
    } else if (key == "limit") {
      plan.limit = scaled(1e9);
    } else if (key == "spin") {
      plan.is_spinning = value == "1";
    } else if (key == "stream") {
      shape.is_stream = value == "1";
    } else if (key == "usage") {
      shape.wants_usage = value == "1";
    } else if (key == "chunks") {
      shape.chunks = whole();
    } else if (key == "pace_us") {
      shape.pace = scaled(1e3);
    } else if (key == "first_us") {
      shape.first = scaled(1e3);
    } else if (key == "request_bytes") {
      shape.request_bytes = whole();
    } else if (key == "reply_bytes") {
      shape.reply_bytes = whole();
    } else if (key == "chunk_bytes") {
      shape.chunk_bytes = whole();
    } else if (key == "model") {
      shape.model = value;
    } else if (key == "key") {
      shape.key = value;
    } else if (key == "path") {
      shape.path = value;
    } else {
      throw std::invalid_argument("unknown key: " + key);
    }
  }
  if (plan.ports.empty()) throw std::invalid_argument("ports=P is missing");
  if (plan.connections == 0 || plan.window <= 0) throw std::invalid_argument("connections and seconds are at least 1");
  return plan;
}

void print_times(const char* name, std::vector<Nanos>& times) {
  std::printf(",\"%s\":", name);
  if (times.empty()) {
    std::printf("null");
    return;
  }
  std::sort(times.begin(), times.end());
  const auto us = [&](double q) {
    return 1e-3 * static_cast<double>(times[static_cast<std::size_t>(q * static_cast<double>(times.size() - 1))]);
  };
  double sum = 0;
  for (const Nanos time : times) sum += static_cast<double>(time);
  std::printf("{\"count\":%zu,\"mean\":%.2f,\"p50\":%.2f,\"p90\":%.2f,\"p99\":%.2f,\"p999\":%.2f,\"most\":%.2f}",
              times.size(), 1e-3 * sum / static_cast<double>(times.size()), us(0.5), us(0.9), us(0.99), us(0.999),
              us(1.0));
}

void report(const Plan& plan, Outcome& out, Served& served) {
  const double seconds = 1e-9 * static_cast<double>(plan.window);
  std::printf("{\"per_s\":%.1f,\"requests\":%" PRIu64 ",\"answered\":%" PRIu64 ",\"chunks\":%" PRIu64,
              static_cast<double>(out.latency.size()) / seconds, out.requests, out.answered, out.chunks);
  std::printf(",\"chunks_per_s\":%.1f,\"rig_cpu\":%.3f", static_cast<double>(out.chunk_delay.size()) / seconds,
              out.cpu_s / seconds);
  print_times("latency_us", out.latency);
  print_times("ttft_us", out.ttft);
  print_times("chunk_delay_us", out.chunk_delay);
  print_times("rig_late_us", served.late);
  std::printf(",\"errors\":%" PRIu64 ",\"errors_by_kind\":{", out.error_count());
  const char* comma = "";
  for (const auto& [kind, count] : out.errors) {
    std::printf("%s\"%s\":%" PRIu64, comma, kind.c_str(), count);
    comma = ",";
  }
  std::printf("},\"first_error\":\"%s\",\"unfinished\":%" PRIu64 ",\"reconnects\":%" PRIu64, out.first_error.c_str(),
              out.unfinished, out.reconnects);
  std::printf(",\"usage_unasked\":%" PRIu64 ",\"engine_requests\":%" PRIu64 ",\"engine_cut_off\":%" PRIu64
              ",\"engine_requests_by_port\":[",
              out.usage_unasked, served.requests, served.cut_off);
  comma = "";
  for (const std::uint64_t count : served.by_port) {
    std::printf("%s%" PRIu64, comma, count);
    comma = ",";
  }
  std::printf("]}\n");
}

/// Collects the standard input's lines.
class Input final : public Handler {
 public:
  void on_ready(std::uint32_t) override {
    char room[4'096];
    const ssize_t count = read(0, room, sizeof room);
    if (count <= 0) {
      is_at_end = true;
    } else {
      text.append(room, static_cast<std::size_t>(count));
    }
  }
  bool take_line(std::string& line) {
    const std::size_t stop = text.find('\n');
    if (stop == std::string::npos) return false;
    line = text.substr(0, stop);
    text.erase(0, stop + 1);
    return true;
  }
  std::string text;
  bool is_at_end = false;
};

int serve(std::size_t count) {
  Loop loop;
  Engine engine(loop);
  std::vector<std::unique_ptr<EnginePort>> ports;
  std::printf("{\"engines\":[");
  for (std::size_t i = 0; i < count; ++i) {
    ports.push_back(std::make_unique<EnginePort>(engine));
    std::printf("%s%d", i == 0 ? "" : ",", ports.back()->port());
  }
  std::printf("]}\n");
  std::fflush(stdout);
  Input input;
  loop.watch(0, EPOLLIN, input);
  std::vector<std::unique_ptr<Load>> done;  // their timers may still be under way
  while (!input.is_at_end) {
    loop.turn(now() + 1'000'000'000);
    for (std::string line; input.take_line(line);) {
      try {
        const Plan plan = parse(line);
        engine.apply(plan.shape);
        done.push_back(std::make_unique<Load>(loop, plan));
        Outcome out = done.back()->run();
        report(plan, out, engine.served);
      } catch (const std::invalid_argument& wrong) {
        std::printf("{\"error\":\"%s\"}\n", wrong.what());
      }
      std::fflush(stdout);
    }
  }
  return 0;
}

}  // namespace
}  // namespace zeta::bench::http

int main(int argc, char** argv) {
  try {
    return zeta::bench::http::serve(argc > 1 ? std::stoull(argv[1]) : 2);
  } catch (const std::exception& failure) {
    std::fprintf(stderr, "http_load: %s\n", failure.what());
    return 1;
  }
}
