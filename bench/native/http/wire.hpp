#pragma once
// Sockets, and as much of HTTP/1.1 as both ends of a benchmark need.

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <string>
#include <string_view>

#include "loop.hpp"

namespace zeta::bench::http {

/// A non-blocking TCP connection with what it could not send yet.
class Socket {
 public:
  enum class Read { some, nothing, ended };

  void open(Loop& loop, int fd, Handler& handler) {
    fd_ = fd;
    is_writing_ = false;
    out_.clear();
    sent_ = 0;
    const int yes = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    loop.watch(fd, EPOLLIN | EPOLLRDHUP, handler);
  }

  [[nodiscard]] bool is_open() const noexcept { return fd_ >= 0; }

  void end() noexcept {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }

  /// Sends now what the kernel takes and keeps the rest for `flush`; false when the connection is gone.
  [[nodiscard]] bool send(Loop& loop, Handler& handler, std::string_view bytes) {
    if (sent_ < out_.size()) {
      out_.append(bytes);
      return true;
    }
    const ssize_t taken = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (taken == static_cast<ssize_t>(bytes.size())) return true;
    if (taken < 0 && errno != EAGAIN) return false;
    out_.assign(bytes.substr(taken < 0 ? 0 : static_cast<std::size_t>(taken)));
    sent_ = 0;
    want_to_write(loop, handler, true);
    return true;
  }

  [[nodiscard]] bool flush(Loop& loop, Handler& handler) {
    while (sent_ < out_.size()) {
      const ssize_t taken = ::send(fd_, out_.data() + sent_, out_.size() - sent_, MSG_NOSIGNAL);
      if (taken < 0) return errno == EAGAIN;
      sent_ += static_cast<std::size_t>(taken);
    }
    want_to_write(loop, handler, false);
    return true;
  }

  [[nodiscard]] Read receive(std::string_view& bytes) {
    static std::array<char, 1 << 18> room;  // one thread
    const ssize_t count = ::recv(fd_, room.data(), room.size(), 0);
    if (count > 0) {
      bytes = {room.data(), static_cast<std::size_t>(count)};
      return Read::some;
    }
    return count < 0 && errno == EAGAIN ? Read::nothing : Read::ended;
  }

 private:
  void want_to_write(Loop& loop, Handler& handler, bool wants) {
    if (wants == is_writing_) return;
    is_writing_ = wants;
    loop.change(fd_, EPOLLIN | EPOLLRDHUP | (wants ? static_cast<std::uint32_t>(EPOLLOUT) : 0U), handler);
  }

  int fd_ = -1;
  bool is_writing_ = false;
  std::string out_;
  std::size_t sent_ = 0;
};

inline sockaddr_in loopback(std::uint16_t port) noexcept {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

/// A connected non-blocking socket, or -1.
inline int connect_to(std::uint16_t port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) fail("socket");
  const sockaddr_in address = loopback(port);
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    close(fd);
    return -1;
  }
  int yes = 1;
  if (ioctl(fd, FIONBIO, &yes) != 0) fail("ioctl");
  return fd;
}

inline bool same_word(std::string_view a, std::string_view b) noexcept {
  return a.size() == b.size() &&
         std::equal(a.begin(), a.end(), b.begin(), [](char x, char y) { return (x | 0x20) == (y | 0x20); });
}

/// A number at the start of the text; 0 where there is none.
inline std::uint64_t number_at(std::string_view text, int base = 10) noexcept {
  std::uint64_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value, base);
  return value;
}

/// What of a message's head says where the message ends, and its status where it is an answer.
struct Head {
  std::uint64_t status = 0;
  std::uint64_t length = 0;
  bool has_length = false;
  bool is_chunked = false;
  bool is_last = false;   // "Connection: close"
  std::string_view text;  // all of it; gone after `on_head`
};

/// Takes one message apart as its bytes come in. A sink has on_head(const Head&), on_body(string_view) and on_end().
class Parser {
 public:
  explicit Parser(bool is_answer) : is_answer_(is_answer) {}

  void reset() noexcept {
    state_ = State::head;
    text_.clear();
  }
  /// Whether a message has begun that did not end yet.
  [[nodiscard]] bool is_within() const noexcept { return state_ != State::head || !text_.empty(); }
  [[nodiscard]] bool is_until_close() const noexcept { return state_ == State::rest; }
  [[nodiscard]] bool is_broken() const noexcept { return state_ == State::broken; }

  /// Up to the end of one message; what it did not need is returned.
  template <class Sink>
  std::string_view feed(std::string_view in, Sink& sink) {
    while (!in.empty() && state_ != State::broken) {
      switch (state_) {
        case State::head:
          if (!take_head(in)) return {};
          sink.on_head(head_);
          text_.clear();
          begin_body();
          if (state_ == State::length && left_ == 0) {
            state_ = State::head;
            sink.on_end();
            return in;
          }
          break;
        case State::length:
        case State::chunk:
        case State::rest: {
          const std::string_view part = state_ == State::rest ? in : in.substr(0, left_);
          in.remove_prefix(part.size());
          left_ -= state_ == State::rest ? 0 : part.size();
          sink.on_body(part);
          if (left_ == 0 && state_ == State::length) {
            state_ = State::head;
            sink.on_end();
            return in;
          }
          if (left_ == 0 && state_ == State::chunk) state_ = State::chunk_end;
          break;
        }
        case State::chunk_end:
        case State::chunk_size:
        case State::trailer: {
          if (!take_line(in)) return {};
          const bool is_empty = text_.empty();
          const std::uint64_t size = number_at(text_, 16);
          text_.clear();
          if (state_ == State::chunk_end) {
            state_ = is_empty ? State::chunk_size : State::broken;
          } else if (state_ == State::chunk_size) {
            if (is_empty) {
              state_ = State::broken;
            } else {
              left_ = size;
              state_ = size > 0 ? State::chunk : State::trailer;
            }
          } else if (is_empty) {
            state_ = State::head;
            sink.on_end();
            return in;
          }
          break;
        }
        case State::broken:
          break;
      }
    }
    return in;
  }

 private:
  enum class State { head, length, chunk_size, chunk, chunk_end, trailer, rest, broken };

  bool take_head(std::string_view& in) {
    const std::size_t before = text_.size();
    text_.append(in);
    const std::size_t end = text_.find("\r\n\r\n", before < 3 ? 0 : before - 3);
    if (end == std::string::npos) {
      if (text_.size() > 65'536) state_ = State::broken;
      return false;
    }
    text_.resize(end + 4);
    in.remove_prefix(end + 4 - before);
    head_ = Head{};
    head_.text = text_;
    std::string_view lines = text_;
    const std::size_t first = lines.find("\r\n");
    if (is_answer_ && first > 12) head_.status = number_at(lines.substr(9));
    lines.remove_prefix(first + 2);
    while (lines.size() > 2) {
      const std::size_t stop = lines.find("\r\n");
      const std::string_view line = lines.substr(0, stop);
      lines.remove_prefix(stop + 2);
      const std::size_t colon = line.find(':');
      if (colon == std::string_view::npos) continue;
      const std::string_view name = line.substr(0, colon);
      std::string_view value = line.substr(colon + 1);
      while (!value.empty() && value.front() == ' ') value.remove_prefix(1);
      if (same_word(name, "content-length")) {
        head_.length = number_at(value);
        head_.has_length = true;
      } else if (same_word(name, "transfer-encoding")) {
        head_.is_chunked = same_word(value, "chunked");
      } else if (same_word(name, "connection")) {
        head_.is_last = same_word(value, "close");
      }
    }
    return true;
  }

  void begin_body() noexcept {
    if (head_.is_chunked) {
      state_ = State::chunk_size;
    } else if (head_.has_length || !is_answer_) {
      state_ = State::length;
      left_ = head_.length;
    } else {
      state_ = State::rest;
    }
  }

  /// Collects a line, without its end, in text_.
  bool take_line(std::string_view& in) {
    const std::size_t stop = in.find('\n');
    text_.append(in.substr(0, stop));
    in.remove_prefix(stop == std::string_view::npos ? in.size() : stop + 1);
    if (stop == std::string_view::npos) return false;
    if (!text_.empty() && text_.back() == '\r') text_.pop_back();
    return true;
  }

  bool is_answer_;
  State state_ = State::head;
  std::string text_;
  Head head_;
  std::uint64_t left_ = 0;
};

/// What follows `"key":` in JSON text whose strings do not contain the key; empty where it is not there.
inline std::string_view json_value(std::string_view json, std::string_view quoted_key) noexcept {
  std::size_t at = json.find(quoted_key);
  if (at == std::string_view::npos) return {};
  at += quoted_key.size();
  while (at < json.size() && (json[at] == ' ' || json[at] == ':')) ++at;
  return json.substr(at);
}

}  // namespace zeta::bench::http
