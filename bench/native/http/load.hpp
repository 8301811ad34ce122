#pragma once
// The load generator: connections that ask, check every answer, and count.

#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "loop.hpp"
#include "text.hpp"
#include "wire.hpp"

namespace zeta::bench::http {

/// One command: what to ask for, of whom, how often and how long.
struct Plan {
  Shape shape;
  std::vector<std::uint16_t> ports;  // taken in turn by the connections
  std::size_t connections = 1;
  double rate = 0;    // arrivals per second, each at its own time; 0: a connection asks again when it was answered
  Nanos warm = 0;     // before anything counts
  Nanos window = 0;   // what counts
  Nanos stagger = 0;  // the connections begin spread over so long
  Nanos limit = 0;    // an answer that takes longer is an error
  bool is_spinning = false;
};

/// What came of a command. Times in nanoseconds, of what ended within the window.
struct Outcome {
  std::vector<Nanos> latency;      // from sending (with a rate: from the intended arrival) to the end of the answer
  std::vector<Nanos> ttft;         // the same, to the first chunk
  std::vector<Nanos> chunk_delay;  // from a chunk's sending by the engine to its arrival
  std::uint64_t requests = 0;      // sent, warm-up included
  std::uint64_t answered = 0;      // whole and right, warm-up included
  std::uint64_t chunks = 0;        // arrived, warm-up included
  std::uint64_t reconnects = 0;
  std::uint64_t usage_unasked = 0;
  std::uint64_t unfinished = 0;
  std::map<std::string, std::uint64_t> errors;
  std::string first_error;
  double cpu_s = 0;  // of this program, within the window

  [[nodiscard]] std::uint64_t error_count() const {
    std::uint64_t sum = 0;
    for (const auto& [name, count] : errors) sum += count;
    return sum;
  }
};

class Load;

class Client final : public Handler {
 public:
  Client(Load& load, std::uint16_t port) : load_(load), port_(port), parser_(true) {}
  ~Client() override { socket_.end(); }

  [[nodiscard]] bool is_idle() const noexcept { return !is_asking_; }
  void ask(Nanos since);
  void give_up_if_late(Nanos present, Nanos limit) {
    if (is_asking_ && present - sent_ > limit) failed("timeout", {});
  }
  void abandon() { socket_.end(); }

  void on_ready(std::uint32_t events) override;
  void on_time(Nanos due, std::uint64_t ticket) override;

  // What the parser says of an answer.
  void on_head(const Head& head);
  void on_body(std::string_view part);
  void on_end();

 private:
  void on_line(std::string_view line);
  void failed(const std::string& what, std::string_view sample);
  void done();

  Load& load_;
  std::uint16_t port_;
  Socket socket_;
  Parser parser_;
  bool is_asking_ = false, is_last_ = false, is_events_ = false, saw_done_ = false, saw_usage_ = false;
  Nanos sent_ = 0, since_ = 0;
  std::uint64_t number_ = 0, status_ = 0, next_chunk_ = 0;
  std::string body_;  // of an answer in one piece, or the line that is not whole yet
  std::string wrong_;
};

/// Runs one plan to its end, the engines on the same loop beside it.
class Load final : public Handler {
 public:
  Load(Loop& the_loop, const Plan& the_plan) : loop(the_loop), plan(the_plan) {
    for (const std::uint16_t port : plan.ports) requests_[port] = Stencil(request_of(plan.shape, port));
    reply_size = Stencil(reply_of(plan.shape)).marked_size();
    event_size = Stencil(event_of(plan.shape, false)).marked_size();
    first_event_size = Stencil(event_of(plan.shape, true)).marked_size();
    for (std::size_t i = 0; i < plan.connections; ++i) {
      clients_.push_back(std::make_unique<Client>(*this, plan.ports[i % plan.ports.size()]));
    }
  }

  Outcome run() {
    const Nanos start = now();
    window_begin_ = start + plan.warm;
    window_end_ = window_begin_ + plan.window;
    if (plan.rate > 0) {
      for (auto& client : clients_) idle_.push_back(client.get());
      next_arrival_ = start;
      loop.at(next_arrival_, *this, kArrival);
    } else {
      for (std::size_t i = 0; i < clients_.size(); ++i) {
        loop.at(start + plan.stagger * static_cast<Nanos>(i) / static_cast<Nanos>(clients_.size()), *clients_[i], 0);
      }
    }
    loop.at(start + kLookEvery, *this, kLook);
    run_until(window_begin_);
    const double cpu_before = cpu_s();
    run_until(window_end_);
    out.cpu_s = cpu_s() - cpu_before;
    is_over_ = true;
    const Nanos patience = now() + std::min<Nanos>(plan.limit, kPatience);
    while (now() < patience && std::any_of(clients_.begin(), clients_.end(), [](auto& c) { return !c->is_idle(); })) {
      loop.turn(now() + 10'000'000);
    }
    for (auto& client : clients_) {
      if (!client->is_idle()) ++out.unfinished;
      client->abandon();
    }
    out.unfinished += late_.size();
    return std::move(out);
  }

  [[nodiscard]] bool is_over() const noexcept { return is_over_; }
  [[nodiscard]] bool counts(Nanos at) const noexcept { return at >= window_begin_ && at < window_end_; }
  [[nodiscard]] Stencil& request(std::uint16_t port) { return requests_.at(port); }
  [[nodiscard]] std::uint64_t next_number() noexcept { return ++number_; }

  /// A client has its answer; what it does next.
  void next(Client& client) {
    if (is_over_) return;
    if (plan.rate == 0) return client.ask(now());
    if (late_.empty()) {
      idle_.push_back(&client);
      return;
    }
    const Nanos since = late_.front();
    late_.pop_front();
    client.ask(since);
  }

  void on_ready(std::uint32_t) override {}
  void on_time(Nanos due, std::uint64_t ticket) override {
    if (is_over_) return;
    if (ticket == kLook) {
      for (auto& client : clients_) client->give_up_if_late(now(), plan.limit);
      loop.at(due + kLookEvery, *this, kLook);
      return;
    }
    if (idle_.empty()) {
      late_.push_back(due);
    } else {
      Client* client = idle_.back();
      idle_.pop_back();
      client->ask(due);
    }
    next_arrival_ += static_cast<Nanos>(-std::log(1.0 - uniform()) / plan.rate * 1e9);
    loop.at(next_arrival_, *this, kArrival);
  }

  Loop& loop;
  const Plan plan;
  Outcome out;
  std::size_t reply_size = 0, event_size = 0, first_event_size = 0;

 private:
  static constexpr std::uint64_t kArrival = 1, kLook = 2;
  static constexpr Nanos kLookEvery = 250'000'000, kPatience = 5'000'000'000;

  void run_until(Nanos end) {
    while (now() < end) loop.turn(end, plan.is_spinning);
  }

  static double cpu_s() {
    rusage used{};
    getrusage(RUSAGE_SELF, &used);
    const auto seconds = [](const timeval& t) {
      return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
    };
    return seconds(used.ru_utime) + seconds(used.ru_stime);
  }

  /// splitmix64: the same arrivals in every run.
  double uniform() noexcept {
    std::uint64_t z = (random_ += 0x9e3779b97f4a7c15ULL);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1p-53;
  }

  std::map<std::uint16_t, Stencil> requests_;
  std::vector<std::unique_ptr<Client>> clients_;
  std::vector<Client*> idle_;
  std::deque<Nanos> late_;  // arrivals that no connection was free for
  Nanos window_begin_ = 0, window_end_ = 0, next_arrival_ = 0;
  std::uint64_t number_ = 0, random_ = 1;
  bool is_over_ = false;
};

inline void Client::ask(Nanos since) {
  if (!socket_.is_open()) {
    const int fd = connect_to(port_);
    if (fd < 0) {
      ++load_.out.errors["no connection"];
      return load_.loop.at(now() + 10'000'000, *this, 0);
    }
    parser_.reset();
    socket_.open(load_.loop, fd, *this);
  }
  is_asking_ = true;
  is_last_ = is_events_ = saw_done_ = saw_usage_ = false;
  status_ = next_chunk_ = 0;
  number_ = load_.next_number();
  body_.clear();
  wrong_.clear();
  since_ = since;
  sent_ = now();
  ++load_.out.requests;
  if (!socket_.send(load_.loop, *this, load_.request(port_).with(number_))) failed("closed", {});
}

inline void Client::on_time(Nanos, std::uint64_t) {
  if (!is_asking_ && !load_.is_over()) load_.next(*this);
}

inline void Client::on_ready(std::uint32_t events) {
  if (!socket_.is_open()) return;
  if ((events & EPOLLOUT) != 0 && !socket_.flush(load_.loop, *this)) return failed("closed", {});
  if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR | EPOLLRDHUP)) == 0) return;
  std::string_view bytes;
  const Socket::Read read = socket_.receive(bytes);
  if (read == Socket::Read::nothing) return;
  if (read == Socket::Read::ended) {
    if (is_asking_ && parser_.is_until_close()) {
      is_last_ = true;
      return on_end();
    }
    if (is_asking_) return failed("closed", {});
    return socket_.end();
  }
  if (!is_asking_) return failed("bytes nobody asked for", bytes);
  bytes = parser_.feed(bytes, *this);
  if (parser_.is_broken()) return failed("not HTTP", bytes);
  if (!bytes.empty()) failed("bytes after the end", bytes);
}

inline void Client::on_head(const Head& head) {
  status_ = head.status;
  is_last_ = head.is_last;
  is_events_ = head.text.find("text/event-stream") != std::string_view::npos;
}

inline void Client::on_body(std::string_view part) {
  if (!is_events_ || status_ != 200) {
    body_.append(part);
    return;
  }
  while (!part.empty()) {
    const std::size_t stop = part.find('\n');
    if (stop == std::string_view::npos) {
      body_.append(part);
      return;
    }
    if (body_.empty()) {
      on_line(part.substr(0, stop));
    } else {
      body_.append(part.substr(0, stop));
      on_line(body_);
      body_.clear();
    }
    part.remove_prefix(stop + 1);
  }
}

inline void Client::on_line(std::string_view line) {
  if (!line.starts_with("data:") || !wrong_.empty()) return;  // between events, a comment, or wrong already
  if (line.find("[DONE]") != std::string_view::npos) {
    saw_done_ = true;
    return;
  }
  const std::size_t mark = line.find("n=");
  if (mark == std::string_view::npos) {
    if (json_value(line, "\"usage\"").starts_with("{")) {
      saw_usage_ = true;
      if (number_at(json_value(line, "\"completion_tokens\"")) != next_chunk_) wrong_ = "wrong usage";
    } else if (line.find("\"error\"") != std::string_view::npos) {
      wrong_ = "error event";
    }
    return;
  }
  const std::string_view text = line.substr(mark);
  const std::size_t c = text.find(" c="), t = text.find(" t=");
  const std::size_t size = next_chunk_ == 0 ? load_.first_event_size : load_.event_size;
  if (c == std::string_view::npos || t == std::string_view::npos || number_at(text.substr(2)) != number_) {
    wrong_ = "another request's chunk";
  } else if (number_at(text.substr(c + 3)) != next_chunk_ || saw_done_) {
    wrong_ = "chunks out of order";
  } else if (text.find(kEnd) != size) {
    wrong_ = "wrong length";
  }
  if (!wrong_.empty()) return;
  const Nanos present = now();
  if (next_chunk_ == 0 && load_.counts(present)) load_.out.ttft.push_back(present - since_);
  if (load_.counts(present)) {
    load_.out.chunk_delay.push_back(present - static_cast<Nanos>(number_at(text.substr(t + 3))));
  }
  ++next_chunk_;
  ++load_.out.chunks;
}

inline void Client::on_end() {
  const Shape& shape = load_.plan.shape;
  if (status_ != 200) {
    wrong_ = "status " + std::to_string(status_);
  } else if (shape.is_stream) {
    if (wrong_.empty() && !is_events_) wrong_ = "not a stream";
    if (wrong_.empty() && next_chunk_ != shape.chunks) wrong_ = "chunks missing";
    if (wrong_.empty() && !saw_done_) wrong_ = "no [DONE]";
    if (wrong_.empty() && shape.wants_usage && !saw_usage_) wrong_ = "no usage";
    if (saw_usage_ && !shape.wants_usage) ++load_.out.usage_unasked;
  } else {
    const std::size_t mark = body_.find("n=");
    const std::string_view text = mark == std::string::npos ? std::string_view() : std::string_view(body_).substr(mark);
    if (text.empty() || number_at(text.substr(2)) != number_) {
      wrong_ = "another request's answer";
    } else if (text.find(kEnd) != load_.reply_size) {
      wrong_ = "wrong length";
    }
  }
  if (!wrong_.empty()) return failed(std::string(wrong_), body_);
  done();
}

inline void Client::done() {
  const Nanos present = now();
  ++load_.out.answered;
  if (load_.counts(present)) load_.out.latency.push_back(present - since_);
  is_asking_ = false;
  if (is_last_) {
    socket_.end();
    if (!load_.is_over()) ++load_.out.reconnects;
  }
  load_.next(*this);
}

/// Counts the error and starts afresh a little later: a gateway that refuses everything is not asked in a tight loop.
inline void Client::failed(const std::string& what, std::string_view sample) {
  Outcome& out = load_.out;
  if (load_.is_over() && what == "closed") ++out.unfinished;
  ++out.errors[what];
  if (out.first_error.empty()) {
    out.first_error = what + ": ";
    for (const char c : sample.substr(0, 300)) out.first_error += c >= ' ' && c != '"' && c != '\\' ? c : '.';
  }
  const bool was_asking = std::exchange(is_asking_, false);
  socket_.end();
  if (was_asking) load_.loop.at(now() + 1'000'000, *this, 0);
}

}  // namespace zeta::bench::http
