#pragma once
// What requests and answers say. Every text carries the request's number, and every chunk its own and when it was sent,
// so that the load generator can tell a right answer from a fast one, whoever wrote the JSON around it anew.

#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "loop.hpp"

namespace zeta::bench::http {

/// How the fake backend answers, and how large everything is; set by each command.
struct Shape {
  std::string path = "/v1/chat/completions";
  std::string model = "bench";
  std::string key = "none";
  std::uint64_t request_bytes = 1'024;  // of the body
  std::uint64_t reply_bytes = 2'048;    // of the body, where it is not a stream
  std::uint64_t chunk_bytes = 240;      // of an event
  std::uint64_t chunks = 100;
  Nanos first = 0;  // from the request to the answer, or to the first chunk
  Nanos pace = 0;   // from chunk to chunk; 0: all at once
  bool is_stream = false;
  bool wants_usage = false;
};

inline constexpr std::string_view kEnd = "|end";

inline std::string digits(std::uint64_t value, int width) {
  char room[32];
  const int count = std::snprintf(room, sizeof room, "%0*llu", width, static_cast<unsigned long long>(value));
  return {room, static_cast<std::size_t>(count)};
}

/// `n=0000000000 xxxx|end`, so long that the whole of what surrounds it has the size asked for.
inline std::string filled(std::string_view begin, std::string_view marks, std::string_view end, std::uint64_t bytes) {
  const std::size_t without = begin.size() + marks.size() + kEnd.size() + end.size();
  std::string text;
  text.reserve(bytes);
  text.append(begin).append(marks);
  text.append(bytes > without ? bytes - without : 1, 'x');
  return text.append(kEnd).append(end);
}

/// A text whose marks are still zeros; made once per command, so that an answer costs a copy and some digits.
class Stencil {
 public:
  Stencil() = default;
  explicit Stencil(std::string text) : text_(std::move(text)) {
    for (const std::string_view mark : {std::string_view("n=0000000000"), std::string_view("chatcmpl-0000000000")}) {
      const std::size_t at = text_.find(mark);
      if (at != std::string::npos) numbers_.push_back(at + mark.size() - 10);
    }
    chunk_ = text_.find(" c=000000 ");
    sent_ = text_.find(" t=000000000000000000 ");
  }

  [[nodiscard]] const std::string& with(std::uint64_t number) {
    for (const std::size_t at : numbers_) put(at, 10, number);
    return text_;
  }
  [[nodiscard]] const std::string& with(std::uint64_t number, std::uint64_t chunk, Nanos sent) {
    if (chunk_ != std::string::npos) put(chunk_ + 3, 6, chunk);
    if (sent_ != std::string::npos) put(sent_ + 3, 18, static_cast<std::uint64_t>(sent));
    return with(number);
  }
  /// From the number's mark to the end's: what an answer must hold, whoever wrote its JSON.
  [[nodiscard]] std::size_t marked_size() const { return text_.find(kEnd) - text_.find("n="); }

 private:
  void put(std::size_t at, std::size_t width, std::uint64_t value) {
    for (std::size_t i = width; i-- > 0; value /= 10) text_[at + i] = static_cast<char>('0' + value % 10);
  }

  std::string text_;
  std::vector<std::size_t> numbers_;
  std::size_t chunk_ = std::string::npos;
  std::size_t sent_ = std::string::npos;
};

inline std::string request_of(const Shape& shape, std::uint16_t port) {
  std::string end = "\"}],\"max_tokens\":" + std::to_string(shape.chunks);
  if (shape.is_stream) end += ",\"stream\":true";
  if (shape.is_stream && shape.wants_usage) end += ",\"stream_options\":{\"include_usage\":true}";
  end += "}";
  const std::string body = filled("{\"model\":\"" + shape.model + "\",\"messages\":[{\"role\":\"user\",\"content\":\"",
                                  "n=0000000000 ", end, shape.request_bytes);
  return "POST " + shape.path + " HTTP/1.1\r\nHost: 127.0.0.1:" + std::to_string(port) + "\r\nAuthorization: Bearer " +
         shape.key + "\r\nAccept: */*\r\nUser-Agent: http_load\r\nContent-Type: application/json\r\nContent-Length: " +
         std::to_string(body.size()) + "\r\n\r\n" + body;
}

inline std::string usage_of(std::uint64_t output_tokens) {
  return R"("usage":{"prompt_tokens":256,"completion_tokens":)" + std::to_string(output_tokens) +
         R"(,"total_tokens":)" + std::to_string(256 + output_tokens) + "}";
}

inline std::string answer_of(std::string_view content_type, std::string_view body) {
  return "HTTP/1.1 200 OK\r\ncontent-type: " + std::string(content_type) +
         "\r\ncontent-length: " + std::to_string(body.size()) + "\r\n\r\n" + std::string(body);
}

inline std::string reply_of(const Shape& shape) {
  return answer_of("application/json",
                   filled(R"({"id":"chatcmpl-0000000000","object":"chat.completion","created":1700000000,"model":")" +
                              shape.model + R"(","choices":[{"index":0,"message":{"role":"assistant","content":")",
                          "n=0000000000 ", R"("},"finish_reason":"stop"}],)" + usage_of(16) + "}", shape.reply_bytes));
}

/// One chunk of an answer in chunks.
inline std::string frame_of(std::string_view event) {
  char size[24];
  const int count = std::snprintf(size, sizeof size, "%zx\r\n", event.size());
  return std::string(size, static_cast<std::size_t>(count)).append(event).append("\r\n");
}

inline std::string event_begin(const Shape& shape) {
  return R"(data: {"id":"chatcmpl-0000000000","object":"chat.completion.chunk","created":1700000000,"model":")" +
         shape.model + R"(","choices":[)";
}

inline std::string event_of(const Shape& shape, bool is_first) {
  const std::string_view delta =
      is_first ? R"({"index":0,"delta":{"role":"assistant","content":")" : R"({"index":0,"delta":{"content":")";
  return frame_of(filled(event_begin(shape) + std::string(delta), "n=0000000000 c=000000 t=000000000000000000 ",
                         "\"},\"finish_reason\":null}]}\n\n", shape.chunk_bytes));
}

/// What follows the last chunk: why it ended, usage where it was asked for, the mark of the end.
inline std::string stream_end(const Shape& shape, std::uint64_t chunks, bool wants_usage) {
  std::string out = frame_of(event_begin(shape) + "{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n");
  if (wants_usage) out += frame_of(event_begin(shape) + "]," + usage_of(chunks) + "}\n\n");
  return out + frame_of("data: [DONE]\n\n") + "0\r\n\r\n";
}

}  // namespace zeta::bench::http
