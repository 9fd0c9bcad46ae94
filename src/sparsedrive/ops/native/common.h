// What every C++ kernel here needs: exported C functions, bfloat16, one source compiled for several instruction sets, threads.
//
// Nothing of PyTorch or Python is included: tensors come as raw pointers, so one build serves every version of both.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#if defined(_MSC_VER)
#define SD_EXPORT extern "C" __declspec(dllexport)
#define SD_INLINE __forceinline
#define SD_RESTRICT __restrict
#define SD_SIMD
#define SD_SIMD_SUM(...)
#define SD_PREFETCH(address) ((void)0)
#else
#define SD_EXPORT extern "C" __attribute__((visibility("default")))
#define SD_INLINE inline __attribute__((always_inline))
#define SD_RESTRICT __restrict__
#define SD_PREFETCH(address) __builtin_prefetch(address)
#define SD_PRAGMA(text) _Pragma(#text)
#define SD_SIMD SD_PRAGMA(omp simd)
#define SD_SIMD_SUM(...) SD_PRAGMA(omp simd reduction(+ : __VA_ARGS__))
#endif

// Wider instruction sets are chosen when the library runs, so that it can be built on one machine for all.
#if (defined(__GNUC__) || defined(__clang__)) && defined(__x86_64__)
#define SD_X86_DISPATCH 1
#define SD_TARGET_AVX2 __attribute__((target("avx2,fma")))
#if defined(__clang__)
#define SD_TARGET_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")))
#else
#define SD_TARGET_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,prefer-vector-width=512")))
#endif
#else
#define SD_X86_DISPATCH 0
#endif

// Without instruction set of its own, whether the compiler's target multiplies and adds in one step (as 64-bit ARM does).
#if defined(__FP_FAST_FMAF)
constexpr bool BASE_HAS_FMA = true;
#else
constexpr bool BASE_HAS_FMA = false;
#endif

enum class Isa { base, avx2, avx512 };

inline Isa best_isa() {
#if SD_X86_DISPATCH
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl"))
    return Isa::avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Isa::avx2;
#endif
  return Isa::base;
}

// a * b + c. The compiler is told not to fuse by itself (-ffp-contract=off): where a sample lies between pixels has to round as in
// PyTorch. And where there is no such instruction, std::fma would be a slow library call.
template <bool FMA, class T>
SD_INLINE T multiply_add(T a, T b, T c) {
  if constexpr (FMA)
    return std::fma(a, b, c);
  else
    return a * b + c;
}

struct Bfloat16 {
  uint16_t bits;
};

SD_INLINE float widen(float value) { return value; }
SD_INLINE double widen(double value) { return value; }
SD_INLINE float widen(Bfloat16 value) {
  const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
  float out;
  std::memcpy(&out, &bits, sizeof out);
  return out;
}

SD_INLINE void narrow(float value, float& out) { out = value; }
SD_INLINE void narrow(double value, double& out) { out = value; }
SD_INLINE void narrow(float value, Bfloat16& out) {  // to the nearest, ties to even; a NaN stays one
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  out.bits = static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded);
}

// Memory of one thread, aligned to cache lines.
template <class T>
class Buffer {
 public:
  explicit Buffer(int64_t size) : owned_(new T[static_cast<size_t>(size) + 63 / sizeof(T) + 1]) {
    const auto address = reinterpret_cast<uintptr_t>(owned_.get());
    data_ = reinterpret_cast<T*>((address + 63) & ~static_cast<uintptr_t>(63));
  }
  T* data() { return data_; }

 private:
  std::unique_ptr<T[]> owned_;
  T* data_;
};

// Run body(begin, end) over [0, count) in pieces of `grain`, on at most `threads` threads; they take the next piece when they are done
// with one. Results do not depend on it as long as no two pieces write the same number. False where memory or threads ran out.
template <class Body>
bool in_parallel(int64_t count, int64_t grain, int64_t threads, const Body& body) {
  const int64_t pieces = (count + grain - 1) / grain;
  std::atomic<int64_t> next{0};
  std::atomic<bool> good{true};
  const auto work = [&]() noexcept {
    try {
      for (int64_t piece = next++; piece < pieces; piece = next++) body(piece * grain, std::min(count, (piece + 1) * grain));
    } catch (...) {
      good = false;
    }
  };
  std::vector<std::thread> helpers;
  try {
    for (int64_t i = 1; i < std::min(threads, pieces); ++i) helpers.emplace_back(work);
  } catch (...) {
    // fewer threads than wanted: the others do the work
  }
  work();
  for (auto& helper : helpers) helper.join();
  return good;
}
