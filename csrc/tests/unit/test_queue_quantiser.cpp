#include <doctest/doctest.h>

#include <initializer_list>
#include <limits>

#include "zeta/core/rng.hpp"
#include "zeta/queue/quantiser.hpp"

using namespace zeta;
using queue::Key;
using queue::Quantiser;

namespace {

constexpr Key kMost = std::numeric_limits<Key>::max();

/// Around a multiple, where a quotient that is rounded wrongly shows.
void check_around(const Quantiser& quantise, Key quantum, Key key) {
  for (const Key near : {key - 1, key, key + 1}) CHECK(quantise(near) == near / quantum);
}

}  // namespace

TEST_CASE("the quantum's number is the quotient, for every quantum and key") {
  Rng random{1};
  for (int i = 0; i < 20'000; ++i) {
    const Key quantum = (random.next_u64() >> random.next_below(64)) | 1U;
    const Key even = quantum << random.next_below(4);
    for (const Key divisor : {quantum, even == 0 ? Key{1} : even}) {
      const Quantiser quantise{divisor};
      const Key key = random.next_u64() >> random.next_below(64);
      check_around(quantise, divisor, key / divisor * divisor + divisor);
      check_around(quantise, divisor, key);
    }
  }
}

TEST_CASE("the edges of quanta and keys") {
  for (const Key quantum : {Key{1}, Key{2}, Key{3}, Key{1'000'000}, Key{1} << 32U, (Key{1} << 63U) - 1, Key{1} << 63U,
                            (Key{1} << 63U) + 1, kMost}) {
    CAPTURE(quantum);
    const Quantiser quantise{quantum};
    for (const Key key : {Key{0}, Key{1}, quantum - 1, quantum, (Key{1} << 63U) - 1, Key{1} << 63U, kMost - 1, kMost}) {
      CAPTURE(key);
      CHECK(quantise(key) == key / quantum);
    }
  }
}
