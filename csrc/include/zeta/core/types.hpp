#pragma once
// Names for the things that requests meet. Each is its own type, so that a model cannot be passed for a replica.

#include <cstddef>
#include <cstdint>
#include <limits>

namespace zeta {

enum class ModelId : std::uint8_t {};
enum class ReplicaId : std::uint16_t {};
enum class DeviceId : std::uint8_t {};
enum class TenantId : std::uint16_t {};

template <class Id>
constexpr std::size_t index_of(Id id) noexcept {
  return static_cast<std::size_t>(id);
}

inline constexpr std::size_t kMaxModels = 32;      ///< One bit each in a ModelMask.
inline constexpr std::size_t kMaxDevices = 64;     ///< GPUs (or other shared devices) that one scheduler places on.
inline constexpr std::size_t kMaxReplicas = 4096;  ///< Running copies over all models.

inline constexpr ReplicaId kNoReplica{std::numeric_limits<std::uint16_t>::max()};
inline constexpr ModelId kNoModel{std::numeric_limits<std::uint8_t>::max()};

/// A set of models, bit i = ModelId{i}.
class ModelMask {
 public:
  constexpr ModelMask() noexcept = default;
  constexpr explicit ModelMask(std::uint32_t bits) noexcept : bits_{bits} {}
  static constexpr ModelMask of(ModelId model) noexcept { return ModelMask{1U << index_of(model)}; }
  static constexpr ModelMask first(std::size_t count) noexcept {
    return ModelMask{count >= 32 ? ~0U : (1U << count) - 1U};
  }

  [[nodiscard]] constexpr bool contains(ModelId model) const noexcept { return (bits_ >> index_of(model)) & 1U; }
  [[nodiscard]] constexpr bool empty() const noexcept { return bits_ == 0; }
  [[nodiscard]] constexpr std::uint32_t bits() const noexcept { return bits_; }
  constexpr void insert(ModelId model) noexcept { bits_ |= 1U << index_of(model); }
  constexpr void erase(ModelId model) noexcept { bits_ &= ~(1U << index_of(model)); }

  friend constexpr ModelMask operator&(ModelMask a, ModelMask b) noexcept { return ModelMask{a.bits_ & b.bits_}; }
  friend constexpr ModelMask operator|(ModelMask a, ModelMask b) noexcept { return ModelMask{a.bits_ | b.bits_}; }
  friend constexpr ModelMask operator~(ModelMask a) noexcept { return ModelMask{~a.bits_}; }
  friend constexpr bool operator==(ModelMask, ModelMask) noexcept = default;

 private:
  std::uint32_t bits_ = 0;
};

/// Calls `visit(ModelId)` for each model of the set in ascending order.
template <class Visit>
constexpr void for_each_model(ModelMask mask, Visit&& visit) {
  for (std::uint32_t bits = mask.bits(); bits != 0; bits &= bits - 1) {
    visit(ModelId{static_cast<std::uint8_t>(__builtin_ctz(bits))});
  }
}

}  // namespace zeta
