// The snapshot ring under every order of its threads' steps, and with each of its memory orders weakened.

#include <doctest/doctest.h>

#include <array>
#include <string>

#include "interleave/explore.hpp"
#include "interleave/freeze.hpp"
#include "interleave/model_atomic.hpp"
#include "interleave/mutation.hpp"
#include "zeta/sync/snapshot_ring.hpp"

using namespace zeta::interleave;

namespace {

struct Record {
  std::array<std::uint64_t, 3> words{};
};
template <std::size_t kSlots>
using Ring = zeta::sync::SnapshotRing<Record, ModelAtomic, kSlots>;

Record record_of(std::uint64_t number) { return {{number * 10 + 1, number * 10 + 2, number * 10 + 3}}; }

/// What one reader saw, judged as it goes.
template <std::size_t kSlots>
class Reader {
 public:
  void attempt(const Ring<kSlots>& ring, bool may_fail) {
    Record record;
    std::uint64_t number = 0;
    if (!ring.try_read(record, number)) {
      if (!may_fail) wrong = "a read began again though the writer had not come round";
      return;
    }
    judge(record, number);
  }

  void read(const Ring<kSlots>& ring) {
    Record record;
    judge(record, ring.read(record));
  }

  std::string wrong;
  std::uint64_t last = 0;

 private:
  void judge(const Record& record, std::uint64_t number) {
    if (number < last) wrong = "record " + std::to_string(number) + " after " + std::to_string(last);
    last = number;
    const Record expected = number == 0 ? Record{} : record_of(number);
    if (record.words != expected.words) wrong = "record " + std::to_string(number) + " is torn";
  }
};

/// A writer that comes round while two readers read.
template <std::size_t kSlots, std::uint64_t kRecords>
std::string overtaken_readers(Model& model) {
  Ring<kSlots> ring;
  ring.publish(record_of(1));
  std::array<Reader<kSlots>, 2> readers;
  const auto read_twice = [&ring](Reader<kSlots>& reader) {
    reader.read(ring);
    reader.read(ring);
    if (reader.last == 0) reader.wrong = "what was published before the reader began is not there";
  };
  const bool is_done = model.run(
      [&] {
        for (std::uint64_t number = 2; number <= kRecords; ++number) ring.publish(record_of(number));
      },
      [&] { read_twice(readers[0]); }, [&] { read_twice(readers[1]); });
  (void)is_done;  // what a reader saw is judged, whether or not the writer was stopped
  return readers[0].wrong + readers[1].wrong;
}

/// Fewer records than would bring the writer round: no read ever begins again, nor misses words that it was promised.
std::string first_records(Model& model) {
  Ring<4> ring;
  std::array<Reader<4>, 2> readers;
  const auto read_thrice = [&ring](Reader<4>& reader) {
    for (int i = 0; i < 3; ++i) reader.attempt(ring, false);
  };
  (void)model.run(
      [&] {
        for (std::uint64_t number = 1; number <= 4; ++number) ring.publish(record_of(number));
      },
      [&] { read_thrice(readers[0]); }, [&] { read_thrice(readers[1]); });
  return readers[0].wrong + readers[1].wrong;
}

/// A second thread goes on where the first writer stopped, told so by an ordered flag.
std::string writers_in_turn(Model& model) {
  Ring<2> ring;
  ModelAtomic<int> is_handed_over{0};
  Reader<2> reader;
  std::uint64_t published = 0;  // by whoever has the turn; completed calls
  const bool is_done = model.run(
      [&] {
        ring.publish(record_of(1));
        published = 1;
        is_handed_over.store(1, std::memory_order_release);
      },
      [&] {
        if (is_handed_over.load(std::memory_order_acquire) == 0) return;
        ring.publish(record_of(2));
        ring.publish(record_of(3));
        published = 3;
      },
      [&] {
        reader.read(ring);
        reader.read(ring);
      });
  if (!is_done || !reader.wrong.empty()) return reader.wrong;
  reader.read(ring);
  return reader.last >= published ? reader.wrong : "the last record is not there";
}

const Suite& suite() {
  static const Suite suite{.files = {"sync/snapshot_ring.hpp"},
                           .scenarios = {{"two slots, three records, two readers", overtaken_readers<2, 3>},
                                         {"two slots, five records, two readers", overtaken_readers<2, 5>},
                                         {"four slots, their first records", first_records},
                                         {"writers that take turns", writers_in_turn}},
                           .argued = {}};
  return suite;
}

}  // namespace

TEST_CASE("whatever the writer does meanwhile, a reader gets a whole record and never an older one") {
  for (const NamedScenario& named : suite().scenarios) expect_right(named, kSchedules / 2);
}

TEST_CASE("a writer stopped inside a snapshot ring stops no reader and tears nothing") {
  for (const NamedScenario& named : suite().scenarios) expect_unstoppable(named);
}

TEST_CASE("a reader stopped inside a snapshot ring stops neither the writer nor the other reader") {
  expect_unstoppable({"a reader stops", [](Model& model) {
                        Ring<2> ring;
                        Reader<2> stopped;
                        Reader<2> other;
                        const auto read_twice = [&ring](Reader<2>& reader) {
                          reader.read(ring);
                          reader.read(ring);
                        };
                        std::uint64_t published = 0;
                        (void)model.run([&] { read_twice(stopped); },
                                        [&] {
                                          while (published < 5) ring.publish(record_of(++published));
                                        },
                                        [&] { read_twice(other); });
                        if (published != 5) return std::string("the writer did not end");
                        other.read(ring);
                        return other.last == 5 ? stopped.wrong + other.wrong : std::string("the last is not there");
                      }});
}

TEST_CASE("every memory order of the snapshot ring is needed" * doctest::skip(kSanitized)) {
  expect_killed(suite(), 100'000, true);
}
