// Concurrent priority queues side by side, in one process and in turn.
//
//   queues [rounds=N] [seconds=S] [threads=1,2,4] TASK...
//   queues count ID WORKLOAD SIZE PAIRS push|pop
//
// A task is closed:WORKLOAD:SIZE (throughput, time per operation, fairness, for each number of threads),
// open:WORKLOAD:SIZE:THREADS:PER_SECOND (fixed-rate arrivals) or rank:WORKLOAD:SIZE:THREADS:PAIRS; WORKLOAD is llm,
// llm64, us or uniform (scene.hpp). Prints one JSON document; what it is doing goes to the standard error stream.
// `count` runs PAIRS operations of one queue for callgrind (--toggle-collect='*counted_push*'), on virtual time
// whatever the workload.

#include <cinttypes>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "queue/contenders.hpp"
#include "queue/loops.hpp"
#include "queue/measure.hpp"
#include "queue/rank_error.hpp"
#include "queue/scene.hpp"
#include "queue/team.hpp"

namespace zeta::bench {
namespace {

constexpr unsigned kMostThreads = 4;
constexpr std::size_t kRoom = 4'096;  // capacity beyond the entries, for what threads keep at hand

template <class Queue>
[[gnu::noinline]] bool counted_push(Queue& queue, Key key, Item item, Key now) {
  return queue.push(key, item, now);
}

template <class Queue>
[[gnu::noinline]] bool counted_pop(Queue& queue, Held& out, Key now) {
  return queue.pop(out, now);
}

/// A queue of any type, as the comparisons use it; one virtual call per turn.
class Contender {
 public:
  virtual ~Contender() = default;
  [[nodiscard]] virtual const char* name() const = 0;
  virtual void open(const Scene& scene, Threads& team) = 0;
  virtual Turn closed(Threads& team, unsigned threads, double seconds, bool is_timed) = 0;
  virtual OpenTurn arrivals(Threads& team, unsigned threads, double per_second, double seconds) = 0;
  virtual void check(Threads& team) = 0;
  virtual void close() = 0;
  virtual RankError rank(const Scene& scene, unsigned threads, std::size_t pairs) = 0;
};

template <class Queue>
class ContenderOf final : public Contender {
 public:
  [[nodiscard]] const char* name() const override { return Queue::kName; }
  void open(const Scene& scene, Threads& team) override {
    filled_ = std::make_unique<Filled<Queue>>(scene, kRoom);
    fill(*filled_, team);
  }
  Turn closed(Threads& team, unsigned threads, double seconds, bool is_timed) override {
    return closed_loop(*filled_, team, threads, seconds, is_timed);
  }
  OpenTurn arrivals(Threads& team, unsigned threads, double per_second, double seconds) override {
    return open_loop(*filled_, team, threads, per_second, seconds);
  }
  void check(Threads& team) override { drain(*filled_, team); }
  void close() override { filled_.reset(); }
  RankError rank(const Scene& scene, unsigned threads, std::size_t pairs) override {
    return rank_error<Queue>(scene, threads, pairs);
  }

 private:
  std::unique_ptr<Filled<Queue>> filled_;
};

/// Calls visit.template operator()<Queue>() for every queue that this program was built with, ours first.
template <class Visit>
void each_queue(Visit&& visit) {
#if ZETA_BENCH_DEADLINE_QUEUE
  visit.template operator()<ZetaDeadline>();
#endif
#if ZETA_BENCH_PRIORITY_QUEUE
  visit.template operator()<ZetaPriority>();
#endif
#if ZETA_BENCH_TBB
  visit.template operator()<Tbb>();
#endif
#if ZETA_BENCH_BOOST
  visit.template operator()<BoostSpin>();
#endif
#if ZETA_BENCH_CDS
  visit.template operator()<CdsSpinning>();
  visit.template operator()<CdsDefault>();
#endif
  visit.template operator()<StdMutex>();
  visit.template operator()<StdSpin>();
}

using Contenders = std::vector<std::unique_ptr<Contender>>;

Contenders contenders() {
  Contenders all;
  each_queue([&]<class Queue>() { all.push_back(std::make_unique<ContenderOf<Queue>>()); });
  return all;
}

// --- JSON ------------------------------------------------------------------------------------------------------------

[[gnu::format(printf, 2, 3)]] void append(std::string& out, const char* format, ...) {
  char text[512];
  std::va_list values;
  va_start(values, format);
  std::vsnprintf(text, sizeof text, format, values);
  va_end(values);
  out += text;
}

std::string list(const std::vector<double>& values) {
  std::string out = "[";
  for (const double value : values) append(out, "%s%.6g", out.size() > 1 ? ", " : "", value);
  return out + "]";
}

/// Percentiles of one operation, a value for each round.
class Percentiles {
 public:
  void add(const Histogram& taken) {
    const TickScale& scale = TickScale::get();
    p50_.push_back(scale.to_ns(taken.quantile(0.5)));
    p99_.push_back(scale.to_ns(taken.quantile(0.99)));
    p999_.push_back(scale.to_ns(taken.quantile(0.999)));
    most_.push_back(scale.to_ns(taken.largest()));
  }
  [[nodiscard]] std::string json() const {
    return "{\"p50\": " + list(p50_) + ", \"p99\": " + list(p99_) + ", \"p999\": " + list(p999_) +
           ", \"most\": " + list(most_) + "}";
  }

 private:
  std::vector<double> p50_, p99_, p999_, most_;
};

// --- tasks -----------------------------------------------------------------------------------------------------------

struct Plan {
  unsigned rounds = 5;
  double seconds = 0.03;
  std::vector<unsigned> threads{1, 2, 4};
};

std::vector<std::string> split(const std::string& text, char at) {
  std::vector<std::string> parts{""};
  for (const char c : text) {
    if (c == at) {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  return parts;
}

std::string head(const char* task, const Scene& scene, unsigned threads) {
  std::string out;
  append(out, "{\"task\": \"%s\", \"workload\": \"%s\", \"size\": %zu, \"threads\": %u, \"quantum_ns\": %" PRIu64, task,
         scene.workload.c_str(), scene.size, threads, scene.quantum_ns);
  return out;
}

/// Calls turn(contender) `rounds` times for each, every round beginning with another one.
template <class Take>
void in_turn(std::size_t count, unsigned rounds, Take&& turn) {
  for (unsigned round = 0; round < rounds; ++round) {
    for (std::size_t step = 0; step < count; ++step) turn((step + round) % count);
  }
}

/// Other programs on the machine take cores away. A turn that had less than 97 % of its cores is repeated, up to twice
/// and while there are spare turns left; the one that had most counts. (Queues whose threads sleep look the same, and
/// use up spare turns for nothing.)
template <class Take>
Turn calmest(unsigned& spare, Take&& take) {
  Turn best = take();
  for (int again = 0; again < 2 && best.cpu < 0.97 && spare > 0; ++again, --spare) {
    Turn next = take();
    if (next.cpu > best.cpu) best = std::move(next);
  }
  return best;
}

/// Filled queues and their threads. The threads end first: libcds keeps records of them in the queue.
class Comparison {
 public:
  explicit Comparison(const Scene& scene) : all_{contenders()} {
    for (auto& each : all_) each->open(scene, *team_);
  }
  ~Comparison() {
    team_.reset();
    for (auto& each : all_) each->close();
  }
  Comparison(const Comparison&) = delete;
  Comparison& operator=(const Comparison&) = delete;

  void check() {
    for (auto& each : all_) each->check(*team_);
  }
  [[nodiscard]] Threads& team() noexcept { return *team_; }
  [[nodiscard]] Contender& operator[](std::size_t i) noexcept { return *all_[i]; }
  [[nodiscard]] std::size_t size() const noexcept { return all_.size(); }

 private:
  std::unique_ptr<Threads> team_ = std::make_unique<Threads>(kMostThreads);
  Contenders all_;
};

void closed_task(const Plan& plan, const Scene& scene, std::vector<std::string>& rows) {
  Comparison all{scene};
  for (const unsigned threads : plan.threads) {
    struct Seen {
      std::vector<double> mops, share, cpu;
      Percentiles push, pop;
      std::uint64_t misses = 0;
    };
    std::vector<Seen> seen(all.size());
    unsigned spare = static_cast<unsigned>(all.size()) * plan.rounds / 2;
    in_turn(all.size(), plan.rounds, [&](std::size_t i) {
      const auto turn = [&](double seconds, bool is_timed) {
        return calmest(spare, [&] { return all[i].closed(all.team(), threads, seconds, is_timed); });
      };
      const Turn fast = turn(plan.seconds, false);
      const Turn timed = turn(plan.seconds / 2, true);
      seen[i].cpu.push_back(fast.cpu);
      seen[i].mops.push_back(fast.mops);
      seen[i].share.push_back(fast.share);
      seen[i].push.add(timed.push);
      seen[i].pop.add(timed.pop);
      seen[i].misses += fast.misses + timed.misses;
    });
    for (std::size_t i = 0; i < all.size(); ++i) {
      std::string row = head("closed", scene, threads);
      append(row, ", \"queue\": \"%s\", \"misses\": %" PRIu64, all[i].name(), seen[i].misses);
      row += ", \"mops\": " + list(seen[i].mops) + ", \"share\": " + list(seen[i].share);
      row += ", \"cpu\": " + list(seen[i].cpu);
      row += ", \"push_ns\": " + seen[i].push.json() + ", \"pop_ns\": " + seen[i].pop.json() + "}";
      rows.push_back(std::move(row));
    }
  }
  all.check();
}

void open_task(const Plan& plan, const Scene& scene, unsigned threads, double per_second,
               std::vector<std::string>& rows) {
  Comparison all{scene};
  struct Seen {
    std::vector<double> served;
    Percentiles push, pop;
  };
  std::vector<Seen> seen(all.size());
  in_turn(all.size(), plan.rounds, [&](std::size_t i) {
    const OpenTurn turn = all[i].arrivals(all.team(), threads, per_second, plan.seconds);
    seen[i].served.push_back(turn.served);
    seen[i].push.add(turn.push);
    seen[i].pop.add(turn.pop);
  });
  for (std::size_t i = 0; i < all.size(); ++i) {
    std::string row = head("open", scene, threads);
    append(row, ", \"queue\": \"%s\", \"arrivals_per_second\": %.0f", all[i].name(), per_second);
    row += ", \"served\": " + list(seen[i].served);
    row += ", \"push_ns\": " + seen[i].push.json() + ", \"pop_ns\": " + seen[i].pop.json() + "}";
    rows.push_back(std::move(row));
  }
  all.check();
}

void rank_task(const Scene& scene, unsigned threads, std::size_t pairs, std::vector<std::string>& rows) {
  Contenders all = contenders();
  all.push_back(std::make_unique<ContenderOf<TwoHeaps>>());
  for (auto& each : all) {
    const RankError error = each->rank(scene, threads, pairs);
    std::string row = head("rank", scene, threads);
    append(row, ", \"queue\": \"%s\", \"takes\": %" PRIu64, each->name(), error.takes);
    append(row, ", \"rank_mean\": %.3f, \"rank_p99\": %" PRIu64 ", \"rank_most\": %" PRIu64, error.rank_mean,
           error.rank_p99, error.rank_most);
    append(row,
           ", \"quanta_mean\": %.4f, \"quanta_p999\": %" PRIu64 ", \"quanta_most\": %" PRIu64
           ", \"beyond_one_quantum\": %.3g}",
           error.quanta_mean, error.quanta_p999, error.quanta_most, error.beyond_one);
    rows.push_back(std::move(row));
  }
}

void run(const Plan& plan, const std::string& task, std::vector<std::string>& rows) {
  const std::vector<std::string> words = split(task, ':');
  if (words.size() < 3) throw std::invalid_argument{"task '" + task + "'; expected closed:WORKLOAD:SIZE and the like"};
  const Scene scene = Scene::make(words[1], std::stoull(words[2]));
  const auto number = [&](std::size_t i) { return std::stoull(words.at(i)); };
  std::fprintf(stderr, "%s\n", task.c_str());
  if (words[0] == "closed") {
    closed_task(plan, scene, rows);
  } else if (words[0] == "open") {
    open_task(plan, scene, static_cast<unsigned>(number(3)), static_cast<double>(number(4)), rows);
  } else if (words[0] == "rank") {
    rank_task(scene, static_cast<unsigned>(number(3)), number(4), rows);
  } else {
    throw std::invalid_argument{"task '" + task + "'; expected closed, open or rank"};
  }
}

// --- counting --------------------------------------------------------------------------------------------------------

template <class Queue>
void count(const Scene& scene, std::size_t pairs, bool is_push) {
  Threads team{1};
  Filled<Queue> filled{scene, kRoom};
  fill(filled, team);
  team.run(1, [&](unsigned) {
    Slacks slacks{scene, 1};
    TakenClock clock{filled.now};
    // Warm-up first: a queue may put off work for each fresh entry until the first pop.
    for (std::size_t n = 0; n < 256 + pairs; ++n) {
      const bool is_counted = n >= 256;
      Held entry{};
      if (is_counted && !is_push) {
        counted_pop(filled.queue, entry, clock.read());
      } else {
        filled.queue.pop(entry, clock.read());
      }
      clock.taken(entry.key);
      const Key now = clock.read();
      const Key key = now + slacks.next();
      if (is_counted && is_push) {
        counted_push(filled.queue, key, entry.item, now);
      } else {
        filled.queue.push(key, entry.item, now);
      }
    }
  });
  drain(filled, team);
}

bool count(std::string_view id, const Scene& scene, std::size_t pairs, bool is_push) {
  bool is_known = false;
  const auto try_one = [&]<class Queue>() {
    if (id != Queue::kId) return;
    is_known = true;
    count<Queue>(scene, pairs, is_push);
  };
  each_queue(try_one);
  try_one.template operator()<Burning>();
  return is_known;
}

std::string absent_peers() {
  std::string out = "{";
#if !ZETA_BENCH_TBB
  out += "\"oneTBB concurrent_priority_queue\": \"apt-get install libtbb-dev\"";
#endif
#if !ZETA_BENCH_BOOST
  out += out.size() > 1 ? ", " : "";
  out += "\"boost::heap::d_ary_heap\": \"apt-get install libboost-dev\"";
#endif
#if !ZETA_BENCH_CDS
  out += out.size() > 1 ? ", " : "";
  out += "\"libcds FCPriorityQueue\": \"apt-get install libcds-dev libboost-thread-dev\"";
#endif
  return out + "}";
}

int main_of(const std::vector<std::string>& words) {
  if (words.size() == 6 && words[0] == "count") {
    const Scene scene = Scene::make(words[2], std::stoull(words[3]));
    if (count(words[1], scene, std::stoull(words[4]), words[5] == "push")) return 0;
    std::fprintf(stderr, "queue '%s' is not in this program\n", words[1].c_str());
    return 2;
  }
  Plan plan;
  std::vector<std::string> tasks;
  for (const std::string& word : words) {
    const std::vector<std::string> sides = split(word, '=');
    if (sides.size() == 1) {
      tasks.push_back(word);
    } else if (sides[0] == "rounds") {
      plan.rounds = static_cast<unsigned>(std::stoul(sides[1]));
    } else if (sides[0] == "seconds") {
      plan.seconds = std::stod(sides[1]);
    } else if (sides[0] == "threads") {
      plan.threads.clear();
      for (const std::string& each : split(sides[1], ','))
        plan.threads.push_back(static_cast<unsigned>(std::stoul(each)));
    } else {
      throw std::invalid_argument{"'" + word + "'; expected rounds=, seconds= or threads="};
    }
  }
  if (tasks.empty()) {
    std::fprintf(stderr, "usage: queues [rounds=N] [seconds=S] [threads=1,2,4] TASK...; see the head of queues.cpp\n");
    return 2;
  }
  std::vector<std::string> rows;
  for (const std::string& task : tasks) run(plan, task, rows);
  std::printf(
      "{\"cores\": %zu, \"tick_source\": \"%s\", \"tick_overhead_ns\": %.1f, \"rounds\": %u, \"seconds\": %g,\n",
      cores().size(), tick_source(), TickScale::get().to_ns(TickScale::get().overhead), plan.rounds, plan.seconds);
  std::printf("\"absent\": %s,\n\"rows\": [\n", absent_peers().c_str());
  for (std::size_t i = 0; i < rows.size(); ++i) std::printf("%s%s\n", rows[i].c_str(), i + 1 < rows.size() ? "," : "");
  std::printf("]}\n");
  return 0;
}

}  // namespace
}  // namespace zeta::bench

int main(int arguments, char** values) {
#if ZETA_BENCH_CDS
  cds::Initialize();
#endif
  int code = 1;
  try {
    code = zeta::bench::main_of({values + 1, values + arguments});
  } catch (const zeta::bench::WrongAnswer& wrong) {
    std::fprintf(stderr, "wrong answer: %s\n", wrong.what());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
  }
#if ZETA_BENCH_CDS
  cds::Terminate();
#endif
  return code;
}
