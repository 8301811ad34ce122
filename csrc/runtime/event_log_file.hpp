#pragma once
// Writes a scheduler's inputs to a file, and does a recorded run again.

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <system_error>
#include <vector>

#include "zeta/sched/apply.hpp"
#include "zeta/sched/shared_scheduler.hpp"

namespace zeta::runtime {

/// One record of the file: the input, and the fingerprint of all decisions up to and including it.
struct LoggedEvent {
  sched::EventRecord event;
  std::uint64_t hash_after = 0;
};
static_assert(std::is_trivially_copyable_v<LoggedEvent>, "written as bytes");

inline constexpr char kLogMagic[16] = "zeta-events-1\n";

/// Layout: magic (16 bytes), bytes of a LoggedEvent (u32), length of a free-form header (u32), the header, then
/// LoggedEvents in the byte order of the machine. Written in blocks of 256 by whoever owns the scheduler.
class EventLogWriter final : public sched::EventRecorder {
 public:
  /// Throws std::system_error when the file cannot be written.
  EventLogWriter(const std::string& path, const std::string& header) : file_{std::fopen(path.c_str(), "wb")} {
    if (file_ == nullptr) throw std::system_error(errno, std::generic_category(), "decision log " + path);
    std::setvbuf(file_, nullptr, _IONBF, 0);  // block_ is the buffer; a forked child must find none to flush
    block_.reserve(kBlock);
    const std::uint32_t sizes[2] = {sizeof(LoggedEvent), static_cast<std::uint32_t>(header.size())};
    put(kLogMagic, sizeof kLogMagic);
    put(sizes, sizeof sizes);
    put(header.data(), header.size());
  }
  ~EventLogWriter() override {
    flush();
    std::fclose(file_);
  }
  EventLogWriter(const EventLogWriter&) = delete;
  EventLogWriter& operator=(const EventLogWriter&) = delete;

  void record(const sched::EventRecord& event, std::uint64_t hash_after) noexcept override {
    LoggedEvent& logged = block_.emplace_back();  // within the reserved block
    std::memset(static_cast<void*>(&logged), 0, sizeof logged);
    logged.event = event;
    logged.hash_after = hash_after;
    if (block_.size() == kBlock) flush();
  }

  void flush() noexcept {
    put(block_.data(), block_.size() * sizeof(LoggedEvent));
    block_.clear();
  }

  /// Bytes that the disk refused; 0 as long as the log is whole.
  [[nodiscard]] std::uint64_t lost_bytes() const noexcept { return lost_bytes_; }

 private:
  static constexpr std::size_t kBlock = 256;

  void put(const void* bytes, std::size_t size) noexcept { lost_bytes_ += size - std::fwrite(bytes, 1, size, file_); }

  std::FILE* file_;
  std::vector<LoggedEvent> block_;
  std::uint64_t lost_bytes_ = 0;
};

/// What doing a recorded run again showed.
struct LogReplay {
  std::uint64_t events = 0;
  std::uint64_t hash = 0;
  std::int64_t first_difference = -1;  ///< Number of the first event after which the fingerprints differ; -1: none.
};

/// Applies recorded events to a fresh scheduler of the same configuration and compares every fingerprint.
inline LogReplay replay_events(const sched::SchedulerConfig& config, const LoggedEvent* events, std::size_t count) {
  sched::Scheduler scheduler{config};
  scheduler.stop_recycling_tickets();
  LogReplay replay;
  for (std::size_t i = 0; i < count; ++i) {
    sched::EventRecord event = events[i].event;
    (void)sched::apply_event(scheduler, event);
    ++replay.events;
    replay.hash = scheduler.hash().value();
    if (replay.hash != events[i].hash_after) {
      replay.first_difference = static_cast<std::int64_t>(i);
      break;
    }
  }
  return replay;
}

}  // namespace zeta::runtime
