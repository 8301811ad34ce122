#pragma once

#include <atomic>
#include <cstdint>
#include <cstring>
#include <source_location>
#include <string>
#include <type_traits>

#include "interleave/model.hpp"

namespace zeta::interleave {

constexpr Order load_order(std::memory_order order) noexcept {
  if (order == std::memory_order_relaxed) return kRelaxed;
  return order == std::memory_order_seq_cst ? kAcquire | kSeqCst : kAcquire;
}
constexpr Order store_order(std::memory_order order) noexcept {
  if (order == std::memory_order_relaxed) return kRelaxed;
  return order == std::memory_order_seq_cst ? kRelease | kSeqCst : kRelease;
}
constexpr Order change_order(std::memory_order order) noexcept {
  switch (order) {
    case std::memory_order_relaxed:
      return kRelaxed;
    case std::memory_order_release:
      return kRelease;
    case std::memory_order_acq_rel:
      return kAcquire | kRelease;
    case std::memory_order_seq_cst:
      return kAcquire | kRelease | kSeqCst;
    default:
      return kAcquire;
  }
}

/// std::atomic's interface over the model's memory; give it to a lock-free type as its `Atomic`. Each operation is a
/// scheduling point and knows its place in the subject's source. Values of at most eight bytes.
template <class T>
class ModelAtomic {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= sizeof(std::uint64_t));
  using Where = std::source_location;
  using Memory = std::memory_order;

 public:
  using value_type = T;
  static constexpr bool is_always_lock_free = true;

  ModelAtomic() noexcept : ModelAtomic(T{}) {}
  ModelAtomic(T value) noexcept {  // NOLINT(google-explicit-constructor): as std::atomic
    location_.initial = bits(value);
    if (Model* const model = Model::current_model()) location_.id = model->next_location();
  }
  ModelAtomic(const ModelAtomic&) = delete;
  ModelAtomic& operator=(const ModelAtomic&) = delete;

  T load(Memory order = Memory::seq_cst, Where where = Where::current()) const noexcept {
    Model& model = this->model();
    model.step(where);
    const Order effective = model.effective(load_order(order), Operation::kLoad, where);
    const std::uint64_t read = model.load(location_, effective);
    if (model.is_tracing()) note("load", effective, std::to_string(read), where);
    return value(read);
  }

  void store(T desired, Memory order = Memory::seq_cst, Where where = Where::current()) noexcept {
    Model& model = this->model();
    model.step(where);
    const Order effective = model.effective(store_order(order), Operation::kStore, where);
    if (model.is_tracing()) note("store", effective, std::to_string(bits(desired)), where);
    model.store(location_, bits(desired), effective);
  }

  T exchange(T desired, Memory order = Memory::seq_cst, Where where = Where::current()) noexcept {
    return change(Operation::kExchange, order, where, [&](std::uint64_t) { return bits(desired); });
  }

  bool compare_exchange_strong(T& expected, T desired, Memory success, Memory failure,
                               Where where = Where::current()) noexcept {
    return compare_exchange(expected, desired, success, failure, false, where);
  }
  bool compare_exchange_weak(T& expected, T desired, Memory success, Memory failure,
                             Where where = Where::current()) noexcept {
    return compare_exchange(expected, desired, success, failure, true, where);
  }
  bool compare_exchange_strong(T& expected, T desired, Memory order = Memory::seq_cst,
                               Where where = Where::current()) noexcept {
    return compare_exchange(expected, desired, order, of_failure(order), false, where);
  }
  bool compare_exchange_weak(T& expected, T desired, Memory order = Memory::seq_cst,
                             Where where = Where::current()) noexcept {
    return compare_exchange(expected, desired, order, of_failure(order), true, where);
  }

  T fetch_add(T by, Memory order = Memory::seq_cst, Where where = Where::current()) noexcept {
    return change(Operation::kFetch, order, where,
                  [&](std::uint64_t old) { return bits(static_cast<T>(value(old) + by)); });
  }
  T fetch_sub(T by, Memory order = Memory::seq_cst, Where where = Where::current()) noexcept {
    return change(Operation::kFetch, order, where,
                  [&](std::uint64_t old) { return bits(static_cast<T>(value(old) - by)); });
  }
  T fetch_and(T by, Memory order = Memory::seq_cst, Where where = Where::current()) noexcept {
    return change(Operation::kFetch, order, where,
                  [&](std::uint64_t old) { return bits(static_cast<T>(value(old) & by)); });
  }
  T fetch_or(T by, Memory order = Memory::seq_cst, Where where = Where::current()) noexcept {
    return change(Operation::kFetch, order, where,
                  [&](std::uint64_t old) { return bits(static_cast<T>(value(old) | by)); });
  }
  T fetch_xor(T by, Memory order = Memory::seq_cst, Where where = Where::current()) noexcept {
    return change(Operation::kFetch, order, where,
                  [&](std::uint64_t old) { return bits(static_cast<T>(value(old) ^ by)); });
  }

 private:
  static constexpr Memory of_failure(Memory order) noexcept {
    if (order == Memory::acq_rel) return Memory::acquire;
    return order == Memory::release ? Memory::relaxed : order;
  }
  static std::uint64_t bits(T value) noexcept {
    std::uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof value);
    return bits;
  }
  static T value(std::uint64_t bits) noexcept {
    T value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
  }
  static Model& model() noexcept { return *Model::current_model(); }

  template <class Change>
  T change(Operation operation, Memory order, const Where& where, Change next) noexcept {
    Model& model = this->model();
    model.step(where);
    const Order effective = model.effective(change_order(order), operation, where);
    const std::uint64_t old = model.read_modify_write(location_, effective, next);
    if (model.is_tracing())
      note(name_of(operation), effective, std::to_string(old) + " -> " + std::to_string(next(old)), where);
    return value(old);
  }

  bool compare_exchange(T& expected, T desired, Memory success, Memory failure, bool is_weak,
                        const Where& where) noexcept {
    Model& model = this->model();
    model.step(where);
    const Order of_success = model.effective(change_order(success), Operation::kCompareExchange, where);
    const Order of_failure = model.effective(load_order(failure), Operation::kCompareExchangeFailure, where);
    std::uint64_t seen = bits(expected);
    const bool has_changed = model.compare_exchange(location_, seen, bits(desired), of_success, of_failure, is_weak);
    if (model.is_tracing()) {
      note("compare_exchange", has_changed ? of_success : of_failure,
           has_changed ? std::to_string(seen) + " -> " + std::to_string(bits(desired))
                       : "failed, read " + std::to_string(seen),
           where);
    }
    if (!has_changed) expected = value(seen);
    return has_changed;
  }

  void note(const char* operation, Order order, const std::string& what, const Where& where) const {
    model().note("a" + std::to_string(location_.id) + "." + operation + " " + what + " (" + name_of(order) + ")  " +
                 where.file_name() + ":" + std::to_string(where.line()));
  }

  mutable Location location_;
};

}  // namespace zeta::interleave
