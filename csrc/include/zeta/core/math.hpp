#pragma once
// exp, log and logistic from IEEE additions, multiplications and divisions only. libm may differ between machines in
// the last bit; these do not, so they may stand on the way to an event. Compiled with -ffp-contract=off.

#include <bit>
#include <cstdint>

namespace zeta {

/// `holds ? a : b` without a branch. Compilers turn a conditional expression into a branch around the work that only
/// one side needs, and a loop with a branch in it is not vectorised.
constexpr double select(bool holds, double a, double b) noexcept {
  const std::uint64_t mask = -static_cast<std::uint64_t>(holds);
  return std::bit_cast<double>((std::bit_cast<std::uint64_t>(a) & mask) | (std::bit_cast<std::uint64_t>(b) & ~mask));
}

/// e^x; relative error below 4e-15 on [-700, 700], clamped outside; NaN stays NaN. Range reduction by ln 2, then Taylor
/// to degree 13, summed in pairs (Estrin, 1960) so that the processor need not wait for one term after the other. No
/// step waits on a branch, so that a compiler can do several arguments at once.
constexpr double exact_exp(double x) noexcept {
  x = select(x > 700.0, 700.0, x);
  x = select(x < -700.0, -700.0, x);
  const double nearest = x * 1.4426950408889634 + select(x < 0.0, -0.5, 0.5);
  const auto whole = static_cast<std::int32_t>(select(nearest == nearest, nearest, 0.0));  // NaN goes on through r
  const auto k = static_cast<double>(whole);
  const double r = (x - k * 6.93147180369123816490e-01) - k * 1.90821492927058770002e-10;  // ln 2 in two parts
  const double r2 = r * r;
  const double r4 = r2 * r2;
  const double low = (1.0 + r) + (1.0 / 2 + r * (1.0 / 6)) * r2;
  const double middle = (1.0 / 24 + r * (1.0 / 120)) + (1.0 / 720 + r * (1.0 / 5040)) * r2;
  const double high = (1.0 / 40320 + r * (1.0 / 362880)) + (1.0 / 3628800 + r * (1.0 / 39916800)) * r2;
  const double highest = 1.0 / 479001600 + r * (1.0 / 6227020800.0);
  const double sum = low + r4 * (middle + r4 * (high + r4 * highest));
  const auto exponent = static_cast<std::uint64_t>(static_cast<std::int64_t>(whole) + 1023);
  return sum * std::bit_cast<double>(exponent << 52U);
}

/// ln x for finite x > 0 (0 or less gives -745); relative error below 1e-14. atanh series on the mantissa.
constexpr double exact_log(double x) noexcept {
  if (!(x > 0.0)) return -745.0;
  auto bits = std::bit_cast<std::uint64_t>(x);
  std::int64_t exponent = static_cast<std::int64_t>(bits >> 52U) - 1023;
  bits = (bits & 0x000FFFFFFFFFFFFFULL) | 0x3FF0000000000000ULL;
  double m = std::bit_cast<double>(bits);
  if (m > 1.4142135623730951) {
    m *= 0.5;
    ++exponent;
  }
  const double s = (m - 1.0) / (m + 1.0);
  const double s2 = s * s;
  double sum = 0.0;
  for (int i = 23; i >= 1; i -= 2) sum = sum * s2 + 1.0 / static_cast<double>(i);
  return 2.0 * s * sum + static_cast<double>(exponent) * 0.6931471805599453;
}

constexpr double logistic(double x) noexcept { return 1.0 / (1.0 + exact_exp(-x)); }
constexpr double logit(double p) noexcept { return exact_log(p / (1.0 - p)); }

}  // namespace zeta
