#pragma once
// The fake engine: an OpenAI-compatible server that answers at once or at a pace.

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "loop.hpp"
#include "text.hpp"
#include "wire.hpp"

namespace zeta::bench::http {

/// What the backends count while a command runs.
struct Served {
  std::uint64_t requests = 0;
  std::uint64_t cut_off = 0;  // connections that ended while an answer was under way
  std::vector<std::uint64_t> by_port;
  std::vector<Nanos> late;  // how late a chunk was sent: the rig's own doing
};

/// The answers' patterns and the counts, shared by all ports.
class Engine {
 public:
  explicit Engine(Loop& the_loop) : loop(the_loop) { apply(Shape{}); }

  void apply(const Shape& wanted) {
    shape = wanted;
    reply = Stencil(reply_of(shape));
    first_event = Stencil(event_of(shape, true));
    event = Stencil(event_of(shape, false));
    std::vector<std::uint64_t> ports(served.by_port.size());
    served = Served{};
    served.by_port = std::move(ports);
  }

  Loop& loop;
  Shape shape;
  Stencil reply, first_event, event;
  Served served;
};

/// One connection from a gateway (or straight from the load generator).
class EngineConnection final : public Handler {
 public:
  explicit EngineConnection(Engine& engine) : engine_(engine), parser_(false) {}

  [[nodiscard]] bool is_open() const noexcept { return socket_.is_open(); }

  void open(int fd, std::size_t port) {
    port_ = port;
    parser_.reset();
    is_answering_ = false;
    waiting_.clear();
    socket_.open(engine_.loop, fd, *this);
  }

  void on_ready(std::uint32_t events) override {
    if (!socket_.is_open()) return;
    if ((events & EPOLLOUT) != 0 && !socket_.flush(engine_.loop, *this)) return end();
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR | EPOLLRDHUP)) == 0) return;
    std::string_view bytes;
    switch (socket_.receive(bytes)) {
      case Socket::Read::some:
        if (is_answering_) {
          waiting_.append(bytes);  // pipelined
        } else {
          take(bytes);
        }
        break;
      case Socket::Read::ended:
        if (is_answering_) ++engine_.served.cut_off;
        end();
        break;
      case Socket::Read::nothing:
        break;
    }
  }

  void on_time(Nanos due, std::uint64_t ticket) override {
    if (!socket_.is_open() || ticket != ticket_) return;
    if (!is_stream_) return send_reply();
    const Nanos present = now();
    engine_.served.late.push_back(present - due);
    Stencil& event = chunk_ == 0 ? engine_.first_event : engine_.event;
    const std::string& text = event.with(number_, chunk_, present);
    if (++chunk_ < chunks_) {
      engine_.loop.at(due + engine_.shape.pace, *this, ticket_);
      if (!socket_.send(engine_.loop, *this, text)) end();
    } else {
      finish(text + stream_end(engine_.shape, chunks_, wants_usage_));
    }
  }

  // What the parser says of a request.
  void on_head(const Head& head) {
    is_post_ = head.text.starts_with("POST ");
    const std::size_t from = head.text.find(' ') + 1;
    path_ = head.text.substr(from, head.text.find_first_of(" ?\r", from) - from);
    body_.clear();
  }
  void on_body(std::string_view part) { body_.append(part); }
  void on_end() {
    is_answering_ = true;
    ++ticket_;
    if (!is_post_) return finish(answer_to_get());
    const std::size_t mark = body_.find("n=");
    number_ = mark == std::string::npos ? 0 : number_at(std::string_view(body_).substr(mark + 2));
    ++engine_.served.requests;
    ++engine_.served.by_port[port_];
    is_stream_ = json_value(body_, "\"stream\"").starts_with("true");
    if (!is_stream_) {
      if (engine_.shape.first > 0) return engine_.loop.at(now() + engine_.shape.first, *this, ticket_);
      return send_reply();
    }
    wants_usage_ = json_value(body_, "\"include_usage\"").starts_with("true");
    std::string_view chunks = json_value(body_, "\"max_tokens\"");
    if (number_at(chunks) == 0) chunks = json_value(body_, "\"max_completion_tokens\"");  // some gateways rename it
    chunks_ = std::max<std::uint64_t>(1, number_at(chunks));
    chunk_ = 0;
    constexpr std::string_view kHead =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
        "transfer-encoding: chunked\r\n\r\n";
    if (!socket_.send(engine_.loop, *this, kHead)) return end();
    if (engine_.shape.pace > 0) return engine_.loop.at(now() + engine_.shape.first, *this, ticket_);
    send_all_chunks();
  }

 private:
  /// One system call per chunk, as an engine that yields its tokens does.
  void send_all_chunks() {
    for (; chunk_ < chunks_; ++chunk_) {
      Stencil& event = chunk_ == 0 ? engine_.first_event : engine_.event;
      if (!socket_.send(engine_.loop, *this, event.with(number_, chunk_, now()))) return end();
    }
    finish(stream_end(engine_.shape, chunks_, wants_usage_));
  }

  void send_reply() { finish(engine_.reply.with(number_)); }

  void finish(std::string_view text) {
    is_answering_ = false;
    if (!socket_.send(engine_.loop, *this, text)) return end();
    if (waiting_.empty()) return;
    const std::string next = std::exchange(waiting_, {});
    take(next);
  }

  void take(std::string_view bytes) {
    while (!bytes.empty() && socket_.is_open()) {
      bytes = parser_.feed(bytes, *this);
      if (parser_.is_broken()) return end();
      if (is_answering_) {
        waiting_.append(bytes);
        return;
      }
    }
  }

  /// What gateways ask before they trust an engine.
  [[nodiscard]] std::string answer_to_get() const {
    const std::string& model = engine_.shape.model;
    if (path_ == "/v1/models") {
      return answer_of("application/json", R"({"object":"list","data":[{"id":")" + model +
                                               R"(","object":"model","created":1700000000,"owned_by":"bench"}]})");
    }
    if (path_ == "/metrics") return answer_of("text/plain; version=0.0.4", "vllm:num_requests_running 0\n");
    if (path_ == "/version") return answer_of("application/json", R"({"version":"0.11.0"})");
    if (path_ == "/get_server_info" || path_ == "/server_info" || path_ == "/get_model_info" ||
        path_ == "/model_info") {
      return answer_of("application/json", R"({"model_path":")" + model + R"(","served_model_name":")" + model +
                                               R"(","is_generation":true,"dp_size":1,"version":"0.5.0"})");
    }
    return answer_of("application/json", "{}");
  }

  void end() {
    is_answering_ = false;
    ++ticket_;
    socket_.end();
  }

  Engine& engine_;
  Socket socket_;
  Parser parser_;
  std::string body_, path_, waiting_;
  std::size_t port_ = 0;
  std::uint64_t ticket_ = 0;
  std::uint64_t number_ = 0, chunk_ = 0, chunks_ = 0;
  bool is_post_ = false, is_stream_ = false, wants_usage_ = false, is_answering_ = false;
};

/// A port of the kernel's choice on the loopback interface.
class EnginePort final : public Handler {
 public:
  explicit EnginePort(Engine& engine) : engine_(engine), index_(engine.served.by_port.size()) {
    engine.served.by_port.push_back(0);
    fd_ = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    sockaddr_in address = loopback(0);
    socklen_t size = sizeof address;
    if (fd_ < 0 || bind(fd_, reinterpret_cast<const sockaddr*>(&address), size) != 0 || listen(fd_, 4'096) != 0 ||
        getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
      fail("listen");
    }
    port_ = ntohs(address.sin_port);
    engine.loop.watch(fd_, EPOLLIN, *this);
  }
  ~EnginePort() override { close(fd_); }

  [[nodiscard]] std::uint16_t port() const noexcept { return port_; }

  void on_ready(std::uint32_t) override {
    while (true) {
      const int fd = accept4(fd_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (fd < 0) return;
      free_connection().open(fd, index_);
    }
  }

 private:
  EngineConnection& free_connection() {
    for (const auto& each : connections_) {
      if (!each->is_open()) return *each;
    }
    return *connections_.emplace_back(std::make_unique<EngineConnection>(engine_));
  }

  Engine& engine_;
  std::size_t index_;
  int fd_ = -1;
  std::uint16_t port_ = 0;
  std::vector<std::unique_ptr<EngineConnection>> connections_;
};

}  // namespace zeta::bench::http
