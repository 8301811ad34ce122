#pragma once
// How a share acts: whose turn it is to take when the device has room.

#include <algorithm>
#include <array>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>

#include "zeta/core/time.hpp"
#include "zeta/core/types.hpp"

namespace zeta::share {

/// Divides one device's takes among its models in proportion to their shares, by predicted GPU work. Start-time fair
/// queueing (Goyal, Vin and Cheng, SIGCOMM 1996): each model has a tag, the work it has taken divided by its share;
/// the smallest tag (the largest deficit) among those with eligible work takes next.
///
/// - While several models always have work, each one's part of the work taken is its share, up to one request's work.
/// - Work-conserving: `pick` names a model whenever the mask holds one of the device's.
/// - A model without work banks nothing: its tag follows the device's, at most `credit` of device time behind. The
///   credit lets one that was briefly kept from taking (a full window, say) make up for it.
/// - A new share acts at the next pick: what a model is ahead or behind is kept as work and re-priced.
///
/// Integer arithmetic only, so a run is the same on every machine. One owner at a time. Allocates nothing.
class DeviceShares {
 public:
  static constexpr Duration kDefaultCredit{100'000'000};

  /// Even shares for `members`. Throws std::invalid_argument when there are none or `credit` is negative.
  explicit DeviceShares(ModelMask members, Duration credit = kDefaultCredit)
      : members_{members}, credit_ns_{credit.count()} {
    if (members.empty()) throw std::invalid_argument("a device needs at least one model; the mask is empty");
    if (credit.count() < 0) throw std::invalid_argument("credit must not be negative");
    const auto count = static_cast<std::uint64_t>(__builtin_popcount(members.bits()));
    share_.fill(kOne / count);
  }

  /// One share per member, in ascending order of ModelId: a Plan's. Shares below 1e-6 count as 1e-6.
  void set_shares(std::span<const double> shares) noexcept {
    assert(shares.size() == static_cast<std::size_t>(__builtin_popcount(members_.bits())));
    std::size_t i = 0;
    for_each_model(members_, [&](ModelId model) {
      if (i >= shares.size()) return;
      const double asked = shares[i++];
      const double share = asked > kLeast ? std::min(asked, 1.0) : kLeast;
      const auto fixed = static_cast<std::uint64_t>(share * static_cast<double>(kOne) + 0.5);
      std::uint64_t& old = share_[index_of(model)];
      if (fixed == old) return;
      std::int64_t& tag = tag_ns_[index_of(model)];
      tag = device_ns_ + scaled(tag - device_ns_, old, fixed);
      old = fixed;
    });
  }

  /// The member with the largest deficit among `with_eligible_work` (the lowest id of equals); kNoModel when none is.
  [[nodiscard]] ModelId pick(ModelMask with_eligible_work) const noexcept {
    ModelId best = kNoModel;
    std::int64_t least = 0;
    for_each_model(with_eligible_work & members_, [&](ModelId model) {
      const std::int64_t start = start_tag(model);
      if (best != kNoModel && start >= least) return;
      best = model;
      least = start;
    });
    return best;
  }

  /// The picked model took a request of this predicted work. The device's tag moves up to where the model's was.
  void charge(ModelId model, Duration work) noexcept {
    assert(members_.contains(model) && work.count() >= 0);
    const std::int64_t start = start_tag(model);
    device_ns_ = std::max(device_ns_, start);
    tag_ns_[index_of(model)] = start + scaled(work.count(), kOne, share_[index_of(model)]);
  }

  /// Puts work on (or, negative, back from) a model's account without its having been picked: a take out of turn (a
  /// hard promise), a prediction put right, a cancelled run. The others' accounts stay as they are.
  void adjust(ModelId model, Duration work) noexcept {
    assert(members_.contains(model));
    tag_ns_[index_of(model)] = start_tag(model) + scaled(work.count(), kOne, share_[index_of(model)]);
  }

  [[nodiscard]] ModelMask members() const noexcept { return members_; }

  /// The share in force.
  [[nodiscard]] double share(ModelId model) const noexcept {
    return static_cast<double>(share_[index_of(model)]) / static_cast<double>(kOne);
  }

  /// Device time by which `model` is behind its share (negative: ahead), as explain() shows it.
  [[nodiscard]] Duration deficit(ModelId model) const noexcept { return Duration{device_ns_ - start_tag(model)}; }

 private:
  static constexpr std::uint64_t kOne = std::uint64_t{1} << 32;  // shares are 32.32 fixed point
  static constexpr double kLeast = 1e-6;
  using Wide = __int128;

  static constexpr std::int64_t scaled(std::int64_t value, std::uint64_t by, std::uint64_t over) noexcept {
    return static_cast<std::int64_t>(static_cast<Wide>(value) * static_cast<Wide>(by) / static_cast<Wide>(over));
  }

  [[nodiscard]] std::int64_t start_tag(ModelId model) const noexcept {
    return std::max(tag_ns_[index_of(model)], device_ns_ - credit_ns_);
  }

  ModelMask members_;
  std::int64_t credit_ns_;
  std::int64_t device_ns_ = 0;  ///< Virtual time: the largest start tag that was charged.
  std::array<std::int64_t, kMaxModels> tag_ns_{};
  std::array<std::uint64_t, kMaxModels> share_{};
};

}  // namespace zeta::share
