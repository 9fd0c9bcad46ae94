// What every CUDA kernel here needs: exported C functions, the number types, loads of several numbers at once, and launches.
//
// Nothing of PyTorch or Python is included: tensors come as raw pointers, so one build serves every version of both.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#define SD_EXPORT extern "C" __attribute__((visibility("default")))

constexpr int WARP = 32;
constexpr int THREADS = 128;  // of every block
constexpr int WARPS = THREADS / WARP;

// What numbers of a type are computed and summed in.
template <class F>
struct SumOf {
  using type = float;
};
template <>
struct SumOf<double> {
  using type = double;
};

__device__ __forceinline__ float widen(float value) { return value; }
__device__ __forceinline__ double widen(double value) { return value; }
__device__ __forceinline__ float widen(__half value) { return __half2float(value); }
__device__ __forceinline__ float widen(__nv_bfloat16 value) { return __bfloat162float(value); }

__device__ __forceinline__ void narrow(float value, float& out) { out = value; }
__device__ __forceinline__ void narrow(double value, double& out) { out = value; }
__device__ __forceinline__ void narrow(float value, __half& out) { out = __float2half_rn(value); }
__device__ __forceinline__ void narrow(float value, __nv_bfloat16& out) { out = __float2bfloat16_rn(value); }

// a * b - c rounded twice, never in one step: where a sample lies between pixels has to round as in PyTorch.
__device__ __forceinline__ float scale_and_shift(float a, float b, float c) { return __fsub_rn(__fmul_rn(a, b), c); }
__device__ __forceinline__ double scale_and_shift(double a, double b, double c) { return __dsub_rn(__dmul_rn(a, b), c); }

// V numbers that lie together, loaded in one instruction where they have up to 16 bytes.
template <int V, class F>
struct alignas(V * sizeof(F)) Vector {
  F at[V];
};

template <int V, class F>
__device__ __forceinline__ Vector<V, F> load(const F* from) {
  return *reinterpret_cast<const Vector<V, F>*>(from);
}

template <int V, class F>
__device__ __forceinline__ Vector<V, F> load_or_zero(const F* from, bool wanted) {
  if (wanted) return load<V>(from);
  return {};
}

template <int V, class F>
bool is_aligned(const F* pointer) {
  return reinterpret_cast<uintptr_t>(pointer) % (V * sizeof(F)) == 0;
}

// Add to numbers in memory that other threads add to.
template <int V, class T>
__device__ __forceinline__ void atomic_add(T* to, const T (&values)[V]) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  if constexpr (V == 4 && sizeof(T) == 4)
    atomicAdd(reinterpret_cast<float4*>(to), make_float4(values[0], values[1], values[2], values[3]));
  else
#endif
    for (int i = 0; i < V; ++i) atomicAdd(to + i, values[i]);
}

// Run a kernel on `blocks` blocks of THREADS. A number of blocks no grid can have is an error, not an overflow.
template <class... Args>
cudaError_t launch(void (*kernel)(Args...), int64_t blocks, cudaStream_t stream, Args... args) {
  if (blocks == 0) return cudaSuccess;
  if (blocks > INT32_MAX) return cudaErrorInvalidConfiguration;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(THREADS);
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, args...);
}
