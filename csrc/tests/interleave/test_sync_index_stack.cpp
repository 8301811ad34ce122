// The index stack under every order of its threads' steps, and with each of its memory orders weakened.

#include <doctest/doctest.h>

#include <array>
#include <string>

#include "interleave/explore.hpp"
#include "interleave/freeze.hpp"
#include "interleave/model_atomic.hpp"
#include "interleave/mutation.hpp"
#include "zeta/sync/index_stack.hpp"

using namespace zeta::interleave;
using Stack = zeta::sync::IndexStack<ModelAtomic>;

namespace {

constexpr std::uint32_t kNull = Stack::kNull;

/// "" when the stack and `held` together have each of `count` indices once.
std::string each_once(Stack& stack, std::uint32_t count, std::initializer_list<std::uint32_t> held) {
  std::array<int, 8> seen{};
  for (const std::uint32_t index : held) {
    if (index != kNull) ++seen.at(index);
  }
  for (std::uint32_t i = 0; i <= count; ++i) {
    const std::uint32_t index = stack.pop();
    if (index == kNull) break;
    ++seen.at(index);
  }
  for (std::uint32_t i = 0; i < count; ++i) {
    if (seen[i] != 1) return "index " + std::to_string(i) + " is there " + std::to_string(seen[i]) + " times";
  }
  return "";
}

std::string pushed_chain_is_popped_whole(Model& model) {
  Stack stack{4};
  std::array<ModelAtomic<int>, 4> named;  // what the indices name
  std::array<std::uint32_t, 2> popped{kNull, kNull};
  std::string wrong;
  const auto take = [&](std::size_t at) {
    popped[at] = stack.pop();
    if (popped[at] != kNull && named[popped[at]].load(std::memory_order_relaxed) != 7) wrong = "what it names is stale";
  };
  const auto give = [&](std::uint32_t index) {
    named[index].store(7, std::memory_order_relaxed);
    stack.push(index);
  };
  const bool is_done = model.run(
      [&] {
        give(3);
        give(2);
      },
      [&] {
        give(1);
        take(0);
      },
      [&] {
        give(0);
        take(1);
      });
  if (!is_done || !wrong.empty()) return wrong;
  return each_once(stack, 4, {popped[0], popped[1]});
}

std::string popped_and_pushed_again(Model& model) {
  Stack stack{3};
  for (const std::uint32_t index : {2U, 1U, 0U}) stack.push(index);
  const auto cycle = [&] {
    for (int i = 0; i < 2; ++i) {
      const std::uint32_t index = stack.pop();
      if (index != kNull) stack.push(index);
    }
  };
  std::uint32_t kept_a = kNull;
  std::uint32_t kept_b = kNull;
  const bool is_done = model.run(
      cycle,
      [&] {
        kept_a = stack.pop();
        kept_b = stack.pop();
        if (kept_a != kNull) stack.push(kept_a);
        kept_a = kNull;
      },
      cycle);
  return is_done ? each_once(stack, 3, {kept_a, kept_b}) : "";
}

std::string taken_at_once(Model& model) {
  Stack stack{4};
  std::array<ModelAtomic<int>, 4> named;
  std::array<int, 4> seen{};
  std::string wrong;
  const auto give = [&](std::uint32_t index) {
    named[index].store(7, std::memory_order_relaxed);
    stack.push(index);
  };
  const auto take_all = [&] {
    int most = 5;
    for (std::uint32_t index = stack.take_all(); index != kNull && --most > 0; index = stack.below(index)) {
      ++seen.at(index);
      if (named[index].load(std::memory_order_relaxed) != 7) wrong = "what it names is stale";
    }
    if (most == 0) wrong = "the chain has a loop";
  };
  const bool is_done = model.run(
      [&] {
        give(3);
        give(2);
      },
      [&] {
        give(1);
        give(0);
      },
      [&] {
        take_all();
        take_all();
      });
  if (!is_done || !wrong.empty()) return wrong;
  take_all();
  return seen == std::array{1, 1, 1, 1} ? wrong : "an index was lost or given twice";
}

std::string poster_and_leaving_owner(Model& model) {
  Stack stack{1};
  ModelAtomic<int> is_owned{1};
  bool poster_sees_owner = false;
  bool owner_sees_post = false;
  const bool is_done = model.run(
      [&] {
        stack.push(0);
        poster_sees_owner = is_owned.load(std::memory_order_seq_cst) == 1;
      },
      [&] {
        is_owned.store(0, std::memory_order_seq_cst);
        owner_sees_post = !stack.is_empty();
      });
  return is_done && poster_sees_owner && !owner_sees_post ? "nobody will look at the post" : "";
}

const Suite& suite() {
  static const Suite suite{
      .files = {"sync/index_stack.hpp"},
      .scenarios = {{"three threads push chains and pop", pushed_chain_is_popped_whole},
                    {"three threads pop and push again", popped_and_pushed_again},
                    {"two threads push, one takes all", taken_at_once},
                    {"a poster and a leaving owner", poster_and_leaving_owner}},
      .argued = {{"IndexStack::pop compare_exchange E50 -acquire",
                  "docs/memory_model.md, argued equivalents: the head it compares with was acquired"}}};
  return suite;
}

}  // namespace

TEST_CASE("whatever three threads push, pop and take from an index stack, each index is in one place") {
  for (const NamedScenario& named : suite().scenarios) expect_right(named);
}

TEST_CASE("a thread stopped inside an index stack stops nobody") {
  for (const NamedScenario& named : suite().scenarios) {
    if (named.name.find("owner") != std::string::npos) continue;
    const Scenario scenario = named.scenario;
    // The frozen thread holds what it popped, so only the others' progress is judged.
    expect_unstoppable({named.name, [scenario](Model& model) {
                          (void)scenario(model);
                          return std::string();
                        }});
  }
}

TEST_CASE("every memory order of the index stack is needed" * doctest::skip(kSanitized)) {
  expect_killed(suite(), 100'000, true);
}
