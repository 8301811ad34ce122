#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "zeta/sched/outlook.hpp"

namespace zeta::sched {

/// Whether a source has lately forecast well enough to act on.
///
/// Each second it is held to what it said a delay ago: the work within that delay, model by model, against what then
/// came, beside what a 30 s mean had said at the same time. Absolute errors, faded with a half-life of
/// 120 s. A source is believed once kFirst seconds have been judged and its error is at most kTrusted times the mean's
/// plus kNear of what came (a load without noise leaves the mean no error at all), and then until it exceeds kLost
/// times and kNear. Silence is judged as "nothing will come". One owner; allocates at construction only.
class OutlookTrust {
 public:
  static constexpr std::size_t kLongestS = 1'024;  ///< No source is believed about a delay as long as this.
  static constexpr std::uint32_t kFirst = 30;
  static constexpr double kTrusted = 1.1;
  static constexpr double kLost = 1.25;
  static constexpr double kNear = 0.05;

  OutlookTrust(std::size_t models, bool is_used)
      : models_{models}, mean_{models}, came_s_(models), said_(is_used ? kLongestS * models : 0) {}

  /// A second has passed, and `expected` is what the source says about the next `delay_s` seconds; empty: nothing.
  void note(std::span<const ArrivedBin> arrived, std::span<const share::ExpectedWork> expected,
            std::size_t delay_s) noexcept {
    mean_.note(arrived, {});
    for (std::size_t i = 0; i < models_; ++i) came_s_[i] += arrived[i].work_s;
    ++seconds_;
    if (delay_s != delay_s_) start_anew(delay_s);
    if (delay_s == 0 || delay_s >= kLongestS || said_.empty()) return;
    if (seconds_ - since_ > delay_s) judge();
    for (std::size_t i = 0; i < models_; ++i) {
      said_at(seconds_, i) = {.came_s = came_s_[i],
                              .mean_s = mean_.pace(i) * static_cast<double>(delay_s),
                              .source_s = expected.empty() ? 0.0 : expected[i].within(static_cast<double>(delay_s))};
    }
  }

  [[nodiscard]] bool is_trusted() const noexcept { return is_trusted_; }
  /// Error of the source ÷ that of the 30 s mean; 1 before anything was judged.
  [[nodiscard]] double error_ratio() const noexcept { return mean_error_ > 0.0 ? source_error_ / mean_error_ : 1.0; }

 private:
  struct Said {
    double came_s = 0.0;  ///< All work up to then.
    double mean_s = 0.0;
    double source_s = 0.0;
  };

  static double distance(double a, double b) noexcept { return a > b ? a - b : b - a; }
  [[nodiscard]] Said& said_at(std::uint64_t second, std::size_t model) noexcept {
    return said_[static_cast<std::size_t>(second % kLongestS) * models_ + model];
  }

  void start_anew(std::size_t delay_s) noexcept {
    delay_s_ = delay_s;
    since_ = seconds_;
    judged_ = 0;
    source_error_ = mean_error_ = came_faded_ = 0.0;
    is_trusted_ = false;
  }

  void judge() noexcept {
    constexpr double kKept = 0.99424;  // of an error after a second: half of it after 120
    source_error_ *= kKept;
    mean_error_ *= kKept;
    came_faded_ *= kKept;
    for (std::size_t i = 0; i < models_; ++i) {
      const Said& said = said_at(seconds_ - delay_s_, i);
      const double came_s = came_s_[i] - said.came_s;
      source_error_ += distance(said.source_s, came_s);
      mean_error_ += distance(said.mean_s, came_s);
      came_faded_ += came_s;
    }
    if (judged_ < kFirst) ++judged_;
    const double most = (is_trusted_ ? kLost : kTrusted) * mean_error_ + kNear * came_faded_;
    is_trusted_ = judged_ == kFirst && source_error_ <= most;
  }

  std::size_t models_;
  EwmaOutlook mean_;
  std::vector<double> came_s_;
  std::vector<Said> said_;  ///< Ring by second, the models side by side.
  std::uint64_t seconds_ = 0;
  std::uint64_t since_ = 0;  ///< What was said up to then does not count.
  std::size_t delay_s_ = 0;
  std::uint32_t judged_ = 0;
  double source_error_ = 0.0;
  double mean_error_ = 0.0;
  double came_faded_ = 0.0;  ///< What came, faded like the errors.
  bool is_trusted_ = false;
};

}  // namespace zeta::sched
