// Sessions over a library of scripted answers (fake_onnxruntime.cpp); the real one is tested from Python.

#include <dlfcn.h>
#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <span>
#include <string>
#include <string_view>

#include "allocation_count.hpp"
#include "runtime/onnx_session.hpp"

using namespace zeta;
using namespace std::chrono_literals;
using runtime::OnnxError;
using runtime::OnnxLibrary;
using runtime::OnnxSession;
using runtime::OnnxSessionConfig;

namespace {

OnnxLibrary& library() { return OnnxLibrary::at(ZETA_FAKE_ONNXRUNTIME); }

OnnxSessionConfig config() { return {.features = 2, .outputs = 2, .max_rows = 4}; }

OnnxSession session(std::string_view model, OnnxSessionConfig with = config()) {
  return OnnxSession{library(), std::as_bytes(std::span{model}), std::move(with)};
}

/// Objects that the library has made for sessions and not released.
int alive() {
  void* const handle = ::dlopen(ZETA_FAKE_ONNXRUNTIME, RTLD_NOW | RTLD_LOCAL);
  return reinterpret_cast<int (*)()>(::dlsym(handle, "fake_onnxruntime_alive"))();
}

std::string refusal(std::string_view model, const OnnxSessionConfig& with = config()) {
  try {
    (void)session(model, with);
  } catch (const OnnxError& error) {
    return error.what();
  }
  return "";
}

constexpr std::array<float, 4> kGood{1, 2, 3, 4};
constexpr std::array<float, 4> kBad{-1, 2, 3, 4};

}  // namespace

TEST_CASE("a session answers for as many rows as there are, up to those it has room for") {
  OnnxSession net = session("doubles its input");
  std::array<float, 8> out{};
  for (const std::size_t rows : {2U, 1U, 2U}) {
    out.fill(0);
    REQUIRE(net.run(std::span{kGood}.first(2 * rows), rows, std::span{out}.first(2 * rows)));
    CHECK(out[0] == 2.0F);
    CHECK(out[1] == 4.0F);
    CHECK(out[2] == (rows == 2 ? 6.0F : 0.0F));
  }
  std::array<float, 10> many{};
  std::array<float, 10> more{};
  CHECK_FALSE(net.run(many, 5, more));
  CHECK_FALSE(net.run(std::span{many}.first(0), 0, std::span{more}.first(0)));
  CHECK_FALSE(net.run(std::span{many}.first(3), 2, std::span{more}.first(4)));
  CHECK_FALSE(net.run(std::span{many}.first(4), 2, std::span{more}.first(5)));
  CHECK(net.stats().runs == 3);
}

TEST_CASE("a session that cannot be made says why and leaves nothing behind") {
  const int before = alive();
  CHECK(refusal("refused") == "ONNX Runtime 1.99.0: this is no model");
  CHECK(refusal("two inputs") == "a net with 2 inputs; expected one");
  CHECK(refusal("other name") == "a net with input \"quantiles\"; expected \"features\"");
  CHECK(refusal("no tensor") == "a net with input that is no tensor; expected a float32 matrix");
  CHECK(refusal("doubles") == "a net with input of another type or rank; expected a float32 matrix");
  CHECK(refusal("vector") == "a net with input of another type or rank; expected a float32 matrix");
  CHECK(refusal("fixed rows") == "a net with input of shape 4 x 2; expected -1 (free) x 2");
  CHECK(refusal("wide") == "a net with input of shape -1 x 3; expected -1 (free) x 2");
  CHECK(refusal("good", {.features = 2, .outputs = 2, .max_rows = 0}) != "");
  CHECK(alive() == before);
  {
    const OnnxSession net = session("good");
  }
  CHECK(alive() == before);
}

TEST_CASE("a library that is absent or something else is refused") {
  CHECK_THROWS_AS((void)OnnxLibrary::at("/nowhere/libonnxruntime.so.1"), OnnxError);
  CHECK_THROWS_AS((void)OnnxLibrary::at("libc.so.6"), OnnxError);
  CHECK(&library() == &library());
}

TEST_CASE("a run allocates nothing of ours") {
  OnnxSession net = session("good", {.features = 2, .outputs = 2, .max_rows = 2, .deadline = 1s});
  std::array<float, 4> out{};
  const auto before = test::allocations();
  for (int i = 0; i < 1000; ++i) REQUIRE(net.run(kGood, 2, out));
  CHECK(test::allocations() == before);
}

TEST_CASE("a failed run leaves the output alone; after three the net rests, and longer each time") {
  OnnxSession net = session("fails");
  std::array<float, 4> out{7, 7, 7, 7};
  for (int i = 0; i < 3 + 100 + 1 + 200; ++i) CHECK_FALSE(net.run(kBad, 2, out));
  CHECK(out == std::array<float, 4>{7, 7, 7, 7});
  auto stats = net.stats();
  CHECK(stats.failures == 4);
  CHECK(stats.rests == 2);
  CHECK(stats.rested == 300);
  // It comes back by itself, and what was held against it is forgotten.
  REQUIRE(net.run(kGood, 2, out));
  CHECK(out[0] == 2.0F);
  for (int i = 0; i < 3 + 100; ++i) CHECK_FALSE(net.run(kBad, 2, out));
  CHECK(net.run(kGood, 2, out));
  for (int rest = 0; rest < 9; ++rest) {
    while (net.stats().rests < 4 + static_cast<unsigned>(rest)) CHECK_FALSE(net.run(kBad, 2, out));
  }
  stats = net.stats();
  for (unsigned i = 0; i < OnnxSession::kLongestRest; ++i) CHECK_FALSE(net.run(kGood, 2, out));
  CHECK(net.run(kGood, 2, out));
}

TEST_CASE("a run past the deadline is late and gives no answer") {
  OnnxSession net = session("slow", {.features = 2, .outputs = 2, .max_rows = 2, .deadline = 10ms});
  std::array<float, 4> out{7, 7, 7, 7};
  CHECK_FALSE(net.run(kBad, 2, out));
  CHECK(out[0] == 7.0F);
  CHECK(net.stats().late == 1);
  CHECK(net.stats().failures == 0);
  CHECK(net.stats().longest_run_ns >= 20'000'000);
}

TEST_CASE("a run without end is stopped, and the next one is not") {
  OnnxSession net = session("hangs", {.features = 2, .outputs = 2, .max_rows = 2, .hang_limit = 50ms});
  std::array<float, 4> out{};
  for (int i = 0; i < 2; ++i) {
    CHECK_FALSE(net.run(kBad, 2, out));
    CHECK(net.run(kGood, 2, out));
  }
  CHECK(net.stats().stopped == 2);
  CHECK(net.stats().late == 2);
  CHECK(net.stats().failures == 0);
  CHECK(net.stats().rests == 0);
}

TEST_CASE("runs that end about when their limit does are stopped or answered, and nothing else") {
  OnnxSession net = session("good", {.features = 2, .outputs = 2, .max_rows = 2, .hang_limit = 1us});
  std::array<float, 4> out{};
  std::uint64_t answered = 0;
  std::uint64_t refused = 0;
  for (int i = 0; i < 3000; ++i) (net.run(kGood, 2, out) ? answered : refused) += 1;
  const auto stats = net.stats();
  CHECK(answered + stats.late + stats.rested == 3000);
  CHECK(refused == stats.late + stats.rested);
  CHECK(stats.failures == 0);
}

#ifndef ZETA_SANITIZED  // a child of the sanitizers' threads is none of their business
TEST_CASE("a forked child neither runs nor destroys the session, and makes its own") {
  auto net =
      std::make_unique<OnnxSession>(library(), std::as_bytes(std::span{std::string_view{"good"}}),
                                    OnnxSessionConfig{.features = 2, .outputs = 2, .max_rows = 2, .hang_limit = 1s});
  std::array<float, 4> out{};
  REQUIRE(net->run(kGood, 2, out));
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(60);
    const int before = alive();
    bool is_right = !net->is_of_this_process() && !net->run(kGood, 2, out);
    net.reset();
    is_right = is_right && alive() == before;
    OnnxSession own = session("good");
    is_right = is_right && own.run(kGood, 2, out);
    ::_exit(is_right ? 0 : 1);
  }
  int status = -1;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(status == 0);
  CHECK(net->run(kGood, 2, out));
}
#endif
