#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "zeta/sched/backlog.hpp"
#include "zeta/sched/fingerprint.hpp"
#include "zeta/sched/fleet.hpp"
#include "zeta/share/arriving_work.hpp"
#include "zeta/share/residency.hpp"

namespace zeta::sched {

/// Drop one model of a device and load another. Emitted when nothing of the first runs any more.
struct SwapCommand {
  DeviceId device{0};
  ModelId unload = kNoModel;  ///< kNoModel: nothing is loaded.
  ModelId load = kNoModel;
};

/// Groups requests by resident model on devices that hold one model at a time.
///
/// Per device: *serving* takes go to the resident model only (`Fleet::grant`); *draining* another was chosen
/// (share::next_resident), nothing is taken and what runs finishes; *loading* the command is out, and whoever carries
/// it out confirms with `loaded`. Where nobody does (the backend loads a model when its first request comes) the chosen
/// model is granted at once. A device is reviewed every kReview while a request waits that its resident model may not
/// serve, and in the same event when the last running request ends.
///
/// Inactive, and free of cost, without such a device and under `fifo`, where the device decides by itself. One owner;
/// allocates only at construction.
class Collation {
 public:
  static constexpr Duration kReview{100'000'000};
  static constexpr double kSlackRate = 0.02;
  static constexpr double kDrainMemory = 0.7;

  Collation(const SchedulerConfig& config, Slab& slab, Fleet& fleet, Backlog& backlog, Fingerprint& fingerprint)
      : config_{config}, slab_{slab}, fleet_{fleet}, backlog_{backlog}, fingerprint_{fingerprint} {
    if (!backlog.collates()) return;
    streams_.resize(fleet.model_count());
    for (std::size_t d = 0; d < fleet.device_count(); ++d) {
      const Device& device = fleet.device(d);
      if (!device.config.is_swapped) continue;
      Post post;
      post.device = DeviceId{static_cast<std::uint8_t>(d)};
      post.resident = first_served(device);
      double longest_s = 0.0;
      for (const ModelId id : device.models) {
        const ModelConfig& model = fleet[id].config;
        longest_s =
            std::max(longest_s, model.mean_output_tokens * model.service.step_s(model.service.reference_batch, 0));
      }
      post.drain_s = longest_s;
      posts_.push_back(post);
      grant(posts_.back());
    }
  }

  [[nodiscard]] bool is_active() const noexcept { return !posts_.empty(); }

  /// An arrival, priced.
  void note_arrival(const Slot& s, Instant now) noexcept {
    if (first_arrival_ == kNever) first_arrival_ = now;
    for_each_model(backlog_.collated(s), [&](ModelId id) {
      Stream& stream = streams_[index_of(id)];
      const double work_s = fleet_[id].config.service.work_s(s.request.prompt_tokens, s.expected_output);
      stream.arrivals.add(kOneRequest, now);
      stream.work.add(duration_from_seconds(work_s), now);
      const double slack_s = std::max(to_seconds(s.latest_start - s.arrival), 0.0);
      stream.slack_s = stream.slack_s < 0.0 ? slack_s : stream.slack_s + kSlackRate * (slack_s - stream.slack_s);
    });
  }

  /// Before placing: devices that have drained go on, others are looked at when it is time.
  void review(Instant now) noexcept {
    for (Post& post : posts_) {
      if (post.phase == Phase::serving && now >= post.next_review) choose(post, now);
      if (post.phase == Phase::draining && running_on(post) == 0) start_loading(post, now);
    }
  }

  /// After placing: whether somebody waits for a model that is not there.
  void note_waiting(Instant now) noexcept {
    next_timer_ = kNever;
    for (const Post& post : posts_) {
      if (post.phase == Phase::serving && holds_any(post))
        next_timer_ = std::min(next_timer_, std::max(post.next_review, now));
    }
  }

  [[nodiscard]] Instant next_timer() const noexcept { return next_timer_; }

  /// The next command, each once.
  [[nodiscard]] std::optional<SwapCommand> next_command() noexcept {
    for (Post& post : posts_) {
      if (!post.has_command) continue;
      post.has_command = false;
      return SwapCommand{post.device, post.unloads, post.target};
    }
    return std::nullopt;
  }

  /// A device now holds `resident` (kNoModel: nothing), as commanded or not.
  void loaded(DeviceId device, ModelId resident, Instant now) noexcept {
    for (Post& post : posts_) {
      if (post.device != device) continue;
      fingerprint_.add(Step::loaded, Ticket{}, now, (index_of(device) << 8U) | index_of(resident));
      post.phase = Phase::serving;
      post.next_review = resident == post.target ? now : now + kRetry;
      post.resident = resident;
      post.target = kNoModel;
      post.has_command = false;
      post.since = now;
      grant(post);
    }
  }

  /// A request that waits longer for a model that is not there than the rule allows; kNull if there is none. For
  /// checks.
  [[nodiscard]] SlotIndex find_overheld(Instant now) const noexcept {
    for (const Post& post : posts_) {
      if (post.phase != Phase::serving || post.resident == kNoModel) continue;
      const Duration grace = 2 * kReview + fleet_.device(index_of(post.device)).config.swap_cost;
      if (now - post.since <= grace) continue;
      for (SlotIndex slot = 0; slot < slab_.capacity(); ++slot) {
        const Slot& s = slab_[slot];
        if (s.phase != sched::Phase::waiting || now - s.arrival <= config_.collation.max_wait + grace) continue;
        if (s.set == WaitingRoom::kOverflow) continue;  // looked at by its oldest only
        if (is_held(s.waits_for) && !(s.waits_for & members(post) & fleet_.served()).empty()) return slot;
      }
    }
    return kNull;
  }

 private:
  static constexpr Duration kOneRequest{1'000'000'000};
  static constexpr Duration kRetry{5'000'000'000};   ///< After a command that failed.
  static constexpr Duration kSpan{300'000'000'000};  ///< Of ArrivingWork.

  enum class Phase : std::uint8_t { serving, draining, loading };

  struct Stream {
    share::ArrivingWork arrivals;
    share::ArrivingWork work;
    double slack_s = -1.0;
  };

  struct Post {
    DeviceId device{0};
    Phase phase = Phase::serving;
    bool has_command = false;
    ModelId resident = kNoModel;
    ModelId target = kNoModel;
    ModelId unloads = kNoModel;
    Instant since{};  ///< When the resident model became it; while draining, when that began.
    Instant next_review{};
    double drain_s = 0.0;  ///< The longest recent one, fading.
  };

  [[nodiscard]] ModelId first_served(const Device& device) const noexcept {
    for (const ModelId id : device.models) {
      if (fleet_.served().contains(id)) return id;
    }
    return kNoModel;
  }

  [[nodiscard]] ModelMask members(const Post& post) const noexcept {
    return fleet_.device(index_of(post.device)).shares.members();
  }

  void grant(const Post& post) noexcept {
    const bool is_there = post.phase == Phase::serving && post.resident != kNoModel;
    fleet_.grant(index_of(post.device), is_there ? ModelMask::of(post.resident) : ModelMask{});
  }

  [[nodiscard]] std::uint32_t running_on(const Post& post) const noexcept {
    std::uint32_t sum = 0;
    for (const ModelId id : fleet_.device(index_of(post.device)).models) sum += fleet_[id].running;
    return sum;
  }

  /// Whether no model of the set is there, on any device.
  [[nodiscard]] bool is_held(ModelMask set) const noexcept {
    return (set & fleet_.granted() & fleet_.served()).empty();
  }

  template <class Visit>
  void for_each_held(const Post& post, Visit&& visit) const noexcept {
    const WaitingRoom& room = backlog_.room();
    const ModelMask here = members(post) & fleet_.served();
    for (std::uint32_t left = room.filled_sets(); left != 0; left &= left - 1) {
      const auto set = static_cast<std::size_t>(__builtin_ctz(left));
      const SlotIndex oldest = room.oldest_of(set);
      const ModelMask mask = slab_[oldest].waits_for;  // in the overflow set, masks differ
      if (is_held(mask) && !(mask & here).empty()) visit(share::Held{mask & here, slab_[oldest].arrival});
    }
  }

  [[nodiscard]] bool holds_any(const Post& post) const noexcept {
    bool any = false;
    for_each_held(post, [&](const share::Held&) { any = true; });
    return any;
  }

  void choose(Post& post, Instant now) noexcept {
    post.next_review = now + kReview;
    std::array<share::Held, WaitingRoom::kSets> held;
    std::size_t held_count = 0;
    for_each_held(post, [&](const share::Held& set) { held[held_count++] = set; });
    if (held_count == 0) return;
    const double drain_s = running_on(post) == 0 ? 0.0 : post.drain_s;
    std::array<share::Candidate, kMaxModels> candidates;
    std::size_t count = 0;
    for_each_model(members(post) & fleet_.served(),
                   [&](ModelId id) { candidates[count++] = candidate(post, id, drain_s, now); });
    const share::Residence residence{post.resident, post.since, drain_s, post.drain_s};
    const auto change = share::next_resident(config_.collation, std::span{candidates}.first(count),
                                             std::span{held}.first(held_count), residence, now);
    if (!change || change->model == post.resident) return;
    fingerprint_.add(Step::swap, Ticket{}, now, (index_of(post.device) << 8U) | index_of(change->model));
    post.target = change->model;
    post.phase = Phase::draining;
    post.since = now;
    grant(post);
  }

  [[nodiscard]] share::Candidate candidate(const Post& post, ModelId id, double drain_s, Instant now) noexcept {
    Stream& stream = streams_[index_of(id)];
    const share::DueCounts& due = backlog_.due(id);
    share::Candidate c;
    c.model = id;
    c.load_s = to_seconds(fleet_.device(index_of(post.device)).config.swap_cost);
    const Instant there = id == post.resident ? now : now + duration_from_seconds(drain_s + c.load_s);
    c.in_time = static_cast<double>(due.in_time(there));
    c.late = static_cast<double>(due.size()) - c.in_time;
    // The first minutes count as if they had been idle before.
    const double part = std::clamp(to_seconds(now - first_arrival_) / to_seconds(kSpan), 0.05, 1.0);
    const double arrivals = stream.arrivals.utilisation(now);
    const double work = stream.work.utilisation(now);
    c.arrival_rps = arrivals / part;
    const Model& model = fleet_[id];
    c.service_rps = work > 0.0 ? arrivals / work : 1.0 / model.config.service.work_s(1024.0, model.mean_output_tokens);
    c.slack_s = std::max(stream.slack_s, 0.0);
    return c;
  }

  void start_loading(Post& post, Instant now) noexcept {
    const double took_s = to_seconds(now - post.since);
    post.drain_s = std::max(took_s, kDrainMemory * post.drain_s + (1.0 - kDrainMemory) * took_s);
    post.unloads = post.resident;
    post.resident = kNoModel;
    post.phase = Phase::loading;
    post.has_command = true;
    if (fleet_.device(index_of(post.device)).config.awaits_load) return;
    const ModelId target = post.target;
    loaded(post.device, target, now);
    post.target = target;  // still to be told
    post.has_command = true;
  }

  const SchedulerConfig& config_;
  Slab& slab_;
  Fleet& fleet_;
  Backlog& backlog_;
  Fingerprint& fingerprint_;
  std::vector<Post> posts_;
  std::vector<Stream> streams_;
  Instant first_arrival_ = kNever;
  Instant next_timer_ = kNever;
};

}  // namespace zeta::sched
