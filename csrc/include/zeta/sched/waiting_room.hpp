#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <vector>

#include "zeta/queue/calendar_forest.hpp"
#include "zeta/sched/config.hpp"
#include "zeta/sched/slab.hpp"

namespace zeta::sched {

/// Why a request was the one to be taken.
enum class Reason : std::uint8_t {
  earliest_deadline,  ///< The least latest start among those that can still make it.
  promise,            ///< Waited longer than the hard promise.
  late,               ///< Nothing feasible waited.
  lower_band,         ///< The guaranteed share of a lower priority band was due.
  arrival_order,      ///< fifo.
  passed_ahead,       ///< Fits where the first in order does not yet.
};

/// The best waiting request of one set.
struct Offer {
  SlotIndex slot = kNull;
  Reason reason = Reason::earliest_deadline;
  std::uint8_t band = 0;
};

/// Requests that wait, by the set of models that may serve them.
///
/// set → priority band → tenant → two queues by latest start: *feasible*, and *late* for those whose latest start has
/// passed. Beside them one arrival-ordered list per set and band serves the hard promise. A request is in exactly one
/// queue and one list. Bands compare when a request is taken, never as an offset in the key. Tenants of a band share by
/// deficit round robin over predicted GPU time (Shreedhar and Varghese, 1995). Up to 16 distinct sets have queues of
/// their own; further ones share the last, whose requests are checked one by one in a bounded scan.
///
/// One owner; nothing allocates after construction; every operation is O(log n), a deficit round O(active tenants).
class WaitingRoom {
 public:
  static constexpr std::size_t kSets = 17;
  static constexpr std::uint8_t kOverflow = 16;
  static constexpr std::size_t kPassed = 32;   ///< Looked at behind a request whose tokens do not fit.
  static constexpr std::size_t kScanned = 64;  ///< Of the overflow set, per offer and tenant.

  /// Requests that wait for `collated` models only are promised half of the longest wait of collation, if that is more.
  WaitingRoom(const SchedulerConfig& config, Slab& slab, ModelMask collated = ModelMask{})
      : slab_{slab},
        forest_{slab.capacity()},
        is_fifo_{config.order == Order::fifo},
        bands_{std::clamp<std::uint32_t>(config.bands, 1, kMaxBands)},
        tenants_{std::max<std::uint32_t>(config.max_tenants, 1)},
        collated_{collated},
        promise_{config.promise},
        collated_promise_{std::max(config.promise, config.collation.max_wait / 2)},
        promise_credit_per_take_{config.promise_take_cap},
        lower_band_credit_per_take_{config.lower_band_share},
        quantum_(tenants_),
        tenant_sizes_(tenants_),
        queues_(kSets * bands_ * tenants_) {
    for (std::uint32_t t = 0; t < tenants_; ++t) {
      const double weight = t < config.tenant_weights.size() ? config.tenant_weights[t] : 1.0;
      quantum_[t] = duration_from_seconds(to_seconds(config.tenant_quantum) * weight).count();
    }
  }

  [[nodiscard]] std::uint32_t size() const noexcept { return size_; }
  [[nodiscard]] std::uint32_t bands() const noexcept { return bands_; }
  [[nodiscard]] std::uint32_t tenants() const noexcept { return tenants_; }
  [[nodiscard]] std::uint32_t size_of(std::size_t set) const noexcept { return set_sizes_[set]; }
  /// Bit i: set i is not empty.
  [[nodiscard]] std::uint32_t filled_sets() const noexcept { return filled_sets_; }
  [[nodiscard]] std::uint32_t size_of(TenantId tenant) const noexcept { return tenant_sizes_[index_of(tenant)]; }
  /// The models that serve a set; for the overflow set the union over its requests.
  [[nodiscard]] ModelMask set_mask(std::size_t set) const noexcept { return set_masks_[set]; }

  /// The request of a set that is not empty which has waited longest.
  [[nodiscard]] SlotIndex oldest_of(std::size_t set) const noexcept {
    SlotIndex oldest = kNull;
    for (std::uint8_t b = 0; b < bands_; ++b) {
      SlotIndex slot = sets_[set].bands[b].oldest;
      for (int looks = 0; slot != kNull && looks < kRequeuedInFront; ++looks) {
        if (oldest == kNull || slab_[slot].arrival < slab_[oldest].arrival) oldest = slot;
        if (slab_[slot].requeues == 0) break;  // whoever stands behind it came later
        slot = slab_[slot].next;
      }
    }
    return oldest;
  }

  /// Adds a request under its `waits_for`, `latest_start` and arrival. It joins the promise list in arrival order when
  /// `arrives_now`, else (requeued, or widened after a hold) at the front, since it has waited longest of all.
  void add(SlotIndex slot, Instant now, bool arrives_now) noexcept {
    Slot& s = slab_[slot];
    s.phase = Phase::waiting;
    s.set = set_for(s.waits_for);
    Band& band = sets_[s.set].bands[s.request.priority];
    ++set_sizes_[s.set];
    filled_sets_ |= 1U << s.set;
    ++band.size;
    ++tenant_sizes_[index_of(s.request.tenant)];
    ++size_;
    TenantQueue& queue = queue_of(s);
    if (queue.feasible.is_empty() && queue.late.is_empty()) link_tenant(s.set, s.request.priority, s.request.tenant);
    s.is_late = !is_fifo_ && s.latest_start < now;
    insert(queue, slot, now);
    link_arrival(band, slot, arrives_now);
  }

  void remove(SlotIndex slot) noexcept {
    Slot& s = slab_[slot];
    Band& band = sets_[s.set].bands[s.request.priority];
    TenantQueue& queue = queue_of(s);
    forest_.erase(s.is_late ? queue.late : queue.feasible, slot);
    slab_.prefetch((s.is_late ? queue.late : queue.feasible).first());  // offered next
    if (queue.feasible.is_empty() && queue.late.is_empty()) unlink_tenant(s.set, s.request.priority, s.request.tenant);
    unlink_arrival(band, slot);
    if (--set_sizes_[s.set] == 0) filled_sets_ &= ~(1U << s.set);
    --band.size;
    --tenant_sizes_[index_of(s.request.tenant)];
    --size_;
  }

  /// Moves a waiting request to another place in its heap.
  void rekey(SlotIndex slot, Instant latest_start, Instant now) noexcept {
    Slot& s = slab_[slot];
    TenantQueue& queue = queue_of(s);
    forest_.erase(s.is_late ? queue.late : queue.feasible, slot);
    s.latest_start = latest_start;
    s.is_late = !is_fifo_ && latest_start < now;
    insert(queue, slot, now);
  }

  /// The request of a set that would be taken next by one of the `open` models; kNull where none may.
  [[nodiscard]] Offer offer(std::size_t set_index, ModelMask open, Instant now) noexcept {
    if (set_sizes_[set_index] == 0 || (set_masks_[set_index] & open).empty()) return {};
    const Set& set = sets_[set_index];
    if (const std::uint8_t owed = owed_band(set); owed < bands_) {
      Offer offer = best_of_band(set_index, owed, open, now);
      if (offer.slot != kNull) {
        offer.reason = Reason::lower_band;
        return offer;
      }
    }
    for (std::uint8_t b = 0; b < bands_; ++b) {
      if (set.bands[b].size == 0) continue;
      const Offer offer = best_of_band(set_index, b, open, now);
      if (offer.slot != kNull) return offer;
    }
    return {};
  }

  /// Fetches a request's place in its queue.
  [[gnu::always_inline]] void expect_place(SlotIndex slot) const noexcept { forest_.prefetch(slot); }

  /// Fetches a request's neighbours in order of arrival.
  [[gnu::always_inline]] void expect_neighbours(SlotIndex slot) const noexcept {
    const Slot& s = slab_[slot];
    slab_.prefetch_links(s.next);
    slab_.prefetch_links(s.previous);
  }

  /// Removes an offered request and settles who has had what.
  void take(const Offer& offer, Instant now) noexcept {
    Slot& s = slab_[offer.slot];
    Set& set = sets_[s.set];
    if (Band& band = set.bands[offer.band]; !is_fifo_) {
      band.promise_credit = std::min(band.promise_credit + promise_credit_per_take(band, now), kMostCredit);
      // With nothing feasible to go ahead of, the promise takes for free: the account never falls below nothing.
      if (offer.reason == Reason::promise) band.promise_credit = std::max(band.promise_credit - 1.0, 0.0);
      for (std::uint8_t b = 0; b < bands_; ++b) {
        Band& lower = set.bands[b];
        if (b == offer.band) {
          lower.takes_owed = std::max(lower.takes_owed - 1.0, 0.0);
        } else if (b > offer.band && lower.size > 0) {
          lower.takes_owed = std::min(lower.takes_owed + lower_band_credit_per_take_, kMostCredit);
        }
      }
    }
    TenantQueue& queue = queue_of(s);
    const bool is_alone = queue.next == index_of(s.request.tenant);  // alone, a tenant neither pays nor saves
    queue.deficit_ns = is_alone ? 0 : queue.deficit_ns - s.work.count();
    remove(offer.slot);
  }

  /// While less work arrives than can be done, nobody waits long past one and a half promises: the cap on takes for the
  /// promise protects feasible work in a long overload, and there is none.
  void lift_promise_cap(bool lifts) noexcept { lifts_cap_ = lifts; }

  /// Whether a request has waited longer than the promise.
  [[nodiscard]] bool is_overdue(const Slot& s, Instant now) const noexcept {
    return !is_fifo_ && s.arrival + promise_of(s) <= now;
  }

  /// Of the requests near the fronts of a set's queues, one that `fits(slot)` where the first in order does not: by
  /// band, then by tenant from the one in turn, feasible ones first. kNull where none of those looked at does.
  template <class Fits>
  [[nodiscard]] Offer passing(std::size_t set_index, Fits&& fits) noexcept {
    const Set& set = sets_[set_index];
    SlotIndex found = kNull;
    std::size_t left = kPassed;
    const auto looks_on = [&](SlotIndex slot) {
      --left;
      if (fits(slot)) found = slot;
      return found == kNull && left > 0;
    };
    for (std::uint8_t b = 0; b < bands_ && !is_fifo_; ++b) {
      if (set.bands[b].size == 0) continue;
      for (std::uint32_t tenant = set.bands[b].turn;;) {
        const TenantQueue& queue = queue_at(set_index, b, tenant);
        forest_.visit_first(queue.feasible, left, looks_on);
        if (found == kNull) forest_.visit_first(queue.late, left, looks_on);
        if (found != kNull) return {found, Reason::passed_ahead, b};
        if (left == 0) return {};
        if ((tenant = queue.next) == set.bands[b].turn) break;
      }
    }
    return {};
  }

  /// True where `a` is to be taken before `b`, both offered at the same instant by different sets.
  [[nodiscard]] bool goes_before(const Offer& a, const Offer& b) const noexcept {
    const int rank_a = rank(a);
    const int rank_b = rank(b);
    if (rank_a != rank_b) return rank_a < rank_b;
    if (a.band != b.band) return a.band < b.band;
    const Slot& x = slab_[a.slot];
    const Slot& y = slab_[b.slot];
    if (a.reason != Reason::promise && key_of(x) != key_of(y)) return key_of(x) < key_of(y);
    return x.ticket.sequence() < y.ticket.sequence();
  }

 private:
  static constexpr double kMostCredit = 4.0;
  static constexpr int kRequeuedInFront = 64;
  static constexpr int kMovesPerOffer = 32;  ///< Bounds the time of one offer after a long idle.
  static constexpr std::uint32_t kNoTenant = 0xFFFFFFFFU;

  struct TenantQueue {
    queue::CalendarForest::Queue feasible;
    queue::CalendarForest::Queue late;
    std::int64_t deficit_ns = 0;
    std::uint32_t next = kNoTenant;  ///< Ring of the band's tenants that have waiting work.
    std::uint32_t previous = kNoTenant;
  };

  struct Band {
    SlotIndex oldest = kNull;
    SlotIndex newest = kNull;
    std::uint32_t size = 0;
    std::uint32_t turn = kNoTenant;
    double promise_credit = 0.0;
    double takes_owed = 0.0;
  };

  struct Set {
    std::array<Band, kMaxBands> bands;
  };

  [[nodiscard]] static int rank(const Offer& offer) noexcept {
    switch (offer.reason) {
      case Reason::lower_band:
        return 0;
      case Reason::promise:
        return 1;
      case Reason::late:
        return 3;
      default:
        return 2;
    }
  }

  [[nodiscard]] Duration promise_of(const Slot& s) const noexcept {
    return (s.waits_for & ~collated_).empty() ? collated_promise_ : promise_;
  }

  [[nodiscard]] std::int64_t key_of(const Slot& s) const noexcept {
    return to_ns(is_fifo_ ? s.arrival : s.latest_start);
  }

  [[nodiscard]] TenantQueue& queue_at(std::size_t set, std::size_t band, std::size_t tenant) noexcept {
    return queues_[(set * bands_ + band) * tenants_ + tenant];
  }
  [[nodiscard]] TenantQueue& queue_of(const Slot& s) noexcept {
    return queue_at(s.set, s.request.priority, index_of(s.request.tenant));
  }

  void insert(TenantQueue& queue, SlotIndex slot, Instant now) noexcept {
    const Slot& s = slab_[slot];
    forest_.insert(s.is_late ? queue.late : queue.feasible, slot, key_of(s), s.ticket.sequence(), to_ns(now));
  }

  [[nodiscard]] std::uint8_t set_for(ModelMask mask) noexcept {
    std::size_t vacant = kOverflow;
    for (std::size_t i = 0; i < kOverflow; ++i) {
      if (set_sizes_[i] != 0 && set_masks_[i] == mask) return static_cast<std::uint8_t>(i);
      if (set_sizes_[i] == 0 && (vacant == kOverflow || set_masks_[i] == mask)) vacant = i;
    }
    const bool joins = vacant == kOverflow && set_sizes_[vacant] != 0;
    set_masks_[vacant] = joins ? set_masks_[vacant] | mask : mask;
    return static_cast<std::uint8_t>(vacant);
  }

  /// The promise's part of the takes grows with how long past it the oldest request is: a tenth of the cap at the
  /// promise, all of it at one and a half. A short overload is then spent on those that can still make it.
  [[nodiscard]] double promise_credit_per_take(const Band& band, Instant now) const noexcept {
    const Duration promise = promise_of(slab_[band.oldest]);
    const Duration past = now - (slab_[band.oldest].arrival + promise);
    const double ramp = 2.0 * to_seconds(past) / to_seconds(promise);
    return promise_credit_per_take_ * std::clamp(ramp, 0.1, 1.0);
  }

  // --- who of a band -------------------------------------------------------------------------------------------------

  [[nodiscard]] std::uint8_t owed_band(const Set& set) const noexcept {
    if (is_fifo_) return static_cast<std::uint8_t>(bands_);
    for (std::uint8_t b = 1; b < bands_; ++b) {
      if (set.bands[b].size > 0 && set.bands[b].takes_owed >= 1.0) return b;
    }
    return static_cast<std::uint8_t>(bands_);
  }

  [[nodiscard]] Offer best_of_band(std::size_t set_index, std::uint8_t b, ModelMask open, Instant now) noexcept {
    Band& band = sets_[set_index].bands[b];
    const auto tenant = tenant_in_turn(set_index, b);
    TenantQueue& queue = queue_at(set_index, b, tenant);
    if (set_index == kOverflow) return scan_overflow(band, tenant, b, open, now);
    if (is_fifo_) return {queue.feasible.first(), Reason::arrival_order, b};
    retire_late(queue, now);
    const bool is_feasible = !queue.feasible.is_empty() && slab_[queue.feasible.first()].latest_start >= now;
    if (is_overdue(slab_[band.oldest], now) && (!is_feasible || may_go_ahead(band, now))) {
      return {band.oldest, Reason::promise, b};
    }
    if (is_feasible) return {queue.feasible.first(), Reason::earliest_deadline, b};
    return {(queue.late.is_empty() ? queue.feasible : queue.late).first(), Reason::late, b};
  }

  /// Whether the band's overdue oldest request may go before feasible ones.
  [[nodiscard]] bool may_go_ahead(const Band& band, Instant now) const noexcept {
    const Slot& oldest = slab_[band.oldest];
    return band.promise_credit >= 1.0 || (lifts_cap_ && oldest.arrival + 3 * promise_of(oldest) / 2 <= now);
  }

  /// Requests whose latest start has passed move to the late heap, a bounded number at a time.
  void retire_late(TenantQueue& queue, Instant now) noexcept {
    for (int moves = 0; moves < kMovesPerOffer && !queue.feasible.is_empty(); ++moves) {
      Slot& s = slab_[queue.feasible.first()];
      if (s.latest_start >= now) return;
      const SlotIndex slot = forest_.pop(queue.feasible);
      s.is_late = true;
      insert(queue, slot, now);
    }
  }

  /// Sets beyond the sixteenth share queues: looks at the first requests of each tenant, from the one in turn, for one
  /// that `open` may serve.
  [[nodiscard]] Offer scan_overflow(const Band& band, std::uint32_t turn, std::uint8_t b, ModelMask open,
                                    Instant now) noexcept {
    SlotIndex feasible = kNull;
    SlotIndex late = kNull;
    for (std::uint32_t tenant = turn; feasible == kNull;) {
      TenantQueue& queue = queue_at(kOverflow, b, tenant);
      if (!is_fifo_) retire_late(queue, now);
      feasible = first_for(open, queue.feasible);
      if (late == kNull) late = first_for(open, queue.late);
      if ((tenant = queue.next) == turn) break;
    }
    if (is_fifo_) return {feasible, Reason::arrival_order, b};
    const Slot& oldest = slab_[band.oldest];
    if (is_overdue(oldest, now) && !(oldest.waits_for & open).empty() &&
        (feasible == kNull || may_go_ahead(band, now))) {
      return {band.oldest, Reason::promise, b};
    }
    if (feasible != kNull) return {feasible, Reason::earliest_deadline, b};
    return {late, Reason::late, b};
  }

  [[nodiscard]] SlotIndex first_for(ModelMask open, const queue::CalendarForest::Queue& queue) const noexcept {
    SlotIndex found = kNull;
    forest_.visit_first(queue, kScanned, [&](SlotIndex slot) {
      if (!(slab_[slot].waits_for & open).empty()) found = slot;
      return found == kNull;
    });
    return found;
  }

  // --- tenants of a band, in turn ------------------------------------------------------------------------------------

  [[nodiscard]] std::uint32_t tenant_in_turn(std::size_t set, std::uint8_t b) noexcept {
    Band& band = sets_[set].bands[b];
    TenantQueue* queue = &queue_at(set, b, band.turn);
    if (queue->next == band.turn) return band.turn;  // alone: nothing to share
    if (queue->deficit_ns > 0) return band.turn;
    const std::uint32_t first = band.turn;
    for (;;) {  // a turn begins with a quantum; some round makes somebody's deficit positive
      band.turn = queue->next;
      queue = &queue_at(set, b, band.turn);
      queue->deficit_ns += quantum_[band.turn];
      if (queue->deficit_ns > 0) return band.turn;
      if (band.turn == first) skip_rounds(set, b);
    }
  }

  /// Whole rounds in which nobody's deficit would become positive are added at once.
  void skip_rounds(std::size_t set, std::uint8_t b) noexcept {
    const std::uint32_t first = sets_[set].bands[b].turn;
    std::int64_t rounds = std::numeric_limits<std::int64_t>::max();
    for (std::uint32_t t = first;;) {
      TenantQueue& queue = queue_at(set, b, t);
      rounds = std::min(rounds, -queue.deficit_ns / quantum_[t]);
      if ((t = queue.next) == first) break;
    }
    if (rounds <= 0) return;  // somebody's is positive already
    for (std::uint32_t t = first;;) {
      TenantQueue& queue = queue_at(set, b, t);
      queue.deficit_ns += rounds * quantum_[t];
      if ((t = queue.next) == first) break;
    }
  }

  void link_tenant(std::size_t set, std::uint8_t b, TenantId id) noexcept {
    Band& band = sets_[set].bands[b];
    const auto tenant = static_cast<std::uint32_t>(index_of(id));
    TenantQueue& queue = queue_at(set, b, tenant);
    queue.deficit_ns = std::min<std::int64_t>(queue.deficit_ns, 0);  // an idle tenant banks nothing
    if (band.turn == kNoTenant) {
      queue.next = queue.previous = tenant;
      band.turn = tenant;
      return;
    }
    TenantQueue& turn = queue_at(set, b, band.turn);
    queue.next = band.turn;
    queue.previous = turn.previous;
    queue_at(set, b, turn.previous).next = tenant;
    turn.previous = tenant;
  }

  void unlink_tenant(std::size_t set, std::uint8_t b, TenantId id) noexcept {
    Band& band = sets_[set].bands[b];
    const auto tenant = static_cast<std::uint32_t>(index_of(id));
    TenantQueue& queue = queue_at(set, b, tenant);
    if (queue.next == tenant) {
      band.turn = kNoTenant;
      queue.deficit_ns = 0;
    } else {
      queue_at(set, b, queue.previous).next = queue.next;
      queue_at(set, b, queue.next).previous = queue.previous;
      if (band.turn == tenant) band.turn = queue.next;
    }
    queue.next = queue.previous = kNoTenant;
  }

  // --- arrival order within a band -----------------------------------------------------------------------------------

  void link_arrival(Band& band, SlotIndex slot, bool arrives_now) noexcept {
    Slot& s = slab_[slot];
    SlotIndex after = arrives_now ? band.newest : kNull;
    s.previous = after;
    s.next = after == kNull ? band.oldest : slab_[after].next;
    (s.previous == kNull ? band.oldest : slab_[s.previous].next) = slot;
    (s.next == kNull ? band.newest : slab_[s.next].previous) = slot;
  }

  void unlink_arrival(Band& band, SlotIndex slot) noexcept {
    Slot& s = slab_[slot];
    (s.previous == kNull ? band.oldest : slab_[s.previous].next) = s.next;
    (s.next == kNull ? band.newest : slab_[s.next].previous) = s.previous;
    s.next = s.previous = kNull;
  }

  Slab& slab_;
  queue::CalendarForest forest_;
  bool is_fifo_;
  std::uint32_t bands_;
  std::uint32_t tenants_;
  ModelMask collated_;
  Duration promise_;
  Duration collated_promise_;
  bool lifts_cap_ = true;
  double promise_credit_per_take_;
  double lower_band_credit_per_take_;
  std::vector<std::int64_t> quantum_;
  std::vector<std::uint32_t> tenant_sizes_;
  std::vector<TenantQueue> queues_;
  std::uint32_t filled_sets_ = 0;  ///< What every event looks at stands together, apart from the bands.
  std::array<std::uint32_t, kSets> set_sizes_{};
  std::array<ModelMask, kSets> set_masks_{};
  std::array<Set, kSets> sets_;
  std::uint32_t size_ = 0;
};

}  // namespace zeta::sched
