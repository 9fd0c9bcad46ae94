// CUDA on one CPU thread: enough of it to run the kernels of this project where there is no GPU.
//
// Every thread of a block is a coroutine. It runs until it waits for its warp or its block; a kernel in which some wait for others that
// never come is an error instead of undefined. Blocks run one after the other, so a `__shared__` variable is a static one, and since one
// thread runs at a time an atomic is an addition. What this cannot show: races, alignment, speed.
#pragma once

#include <math.h>
#include <ucontext.h>

#include <cstdint>
#include <cstring>
#include <functional>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(threads)

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorInvalidConfiguration = 9, cudaErrorLaunchTimeout = 702 };
using cudaStream_t = void*;

struct dim3 {
  unsigned x, y, z;
  explicit dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
};

struct float4 {
  float x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

namespace emulated {

constexpr int WARP = 32, STACK = 1 << 16;
enum class Waits { no, for_warp, for_block, done };

struct Thread {
  ucontext_t context;
  std::vector<char> stack = std::vector<char>(STACK);
  Waits waits = Waits::no;
  unsigned members = 0;
  uint64_t shown = 0;  // what other lanes read
};

inline std::vector<Thread> threads;
inline ucontext_t scheduler;
inline int running = 0;
inline std::function<void()> kernel;

inline void wait(Waits what, unsigned members = 0) {
  Thread& self = threads[static_cast<size_t>(running)];
  self.waits = what;
  self.members = members;
  swapcontext(&self.context, &scheduler);
}

inline void body() {
  kernel();
  threads[static_cast<size_t>(running)].waits = Waits::done;
}

inline bool block_is_there() {
  for (const Thread& thread : threads)
    if (thread.waits != Waits::for_block && thread.waits != Waits::done) return false;
  return true;
}

// Whether all members of a thread's warp wait for each other.
inline bool warp_is_there(int index) {
  const Thread& thread = threads[static_cast<size_t>(index)];
  for (int lane = 0; lane < WARP; ++lane) {
    const Thread& other = threads[static_cast<size_t>(index / WARP * WARP + lane)];
    if ((thread.members >> lane & 1) && (other.waits != Waits::for_warp || other.members != thread.members)) return false;
  }
  return true;
}

inline bool release() {
  bool any = false;
  if (block_is_there())
    for (Thread& thread : threads)
      if (thread.waits == Waits::for_block) thread.waits = Waits::no, any = true;
  for (int i = 0; i < static_cast<int>(threads.size()); ++i) {
    const Thread& thread = threads[static_cast<size_t>(i)];
    if (thread.waits != Waits::for_warp || !warp_is_there(i)) continue;
    const unsigned members = thread.members;
    for (int lane = 0; lane < WARP; ++lane)
      if (members >> lane & 1) threads[static_cast<size_t>(i / WARP * WARP + lane)].waits = Waits::no;
    any = true;
  }
  return any;
}

inline bool run_block(unsigned count) {
  threads.resize(count);
  for (Thread& thread : threads) {
    thread.waits = Waits::no;
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = thread.stack.data();
    thread.context.uc_stack.ss_size = thread.stack.size();
    thread.context.uc_link = &scheduler;
    makecontext(&thread.context, body, 0);
  }
  do {
    for (running = 0; running < static_cast<int>(count); ++running) {
      Thread& thread = threads[static_cast<size_t>(running)];
      if (thread.waits == Waits::no) swapcontext(&scheduler, &thread.context);
    }
  } while (release());
  for (const Thread& thread : threads)
    if (thread.waits != Waits::done) return false;
  return true;
}

// Every member shows a value; returns that of lane `from`.
inline uint64_t exchange(unsigned members, uint64_t value, int from) {
  threads[static_cast<size_t>(running)].shown = value;
  wait(Waits::for_warp, members);
  const uint64_t seen = threads[static_cast<size_t>(running / WARP * WARP + from)].shown;
  wait(Waits::for_warp, members);
  return seen;
}

inline dim3 thread_index() { return dim3(static_cast<unsigned>(running), 0, 0); }

}  // namespace emulated

#define threadIdx (emulated::thread_index())
inline dim3 blockIdx, blockDim, gridDim;

inline void __syncthreads() { emulated::wait(emulated::Waits::for_block); }

template <class T>
T __shfl_xor_sync(unsigned members, T value, int lanes) {
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = emulated::exchange(members, bits, (emulated::running % emulated::WARP) ^ lanes);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline unsigned __ballot_sync(unsigned members, bool vote) {
  unsigned votes = vote ? 1u << emulated::running % emulated::WARP : 0u;
  for (int step = 1; step < emulated::WARP; step *= 2) votes |= __shfl_xor_sync(members, votes, step);
  return votes;
}

inline int __popc(unsigned value) { return __builtin_popcount(value); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __dsub_rn(double a, double b) { return a - b; }

template <class T>
void atomicAdd(T* to, T value) {
  *to += value;
}
inline void atomicAdd(float4* to, float4 value) {
  to->x += value.x, to->y += value.y, to->z += value.z, to->w += value.w;
}

inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t code) {
  return code == cudaErrorLaunchTimeout ? "threads wait for ever" : "emulated error";
}

template <class... Expected, class... Given>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Expected...), Given&&... given) {
  emulated::kernel = [&] { kernel(given...); };
  gridDim = config->gridDim, blockDim = config->blockDim;
  for (unsigned block = 0; block < config->gridDim.x; ++block) {
    blockIdx = dim3(block, 0, 0);
    if (!emulated::run_block(config->blockDim.x)) return cudaErrorLaunchTimeout;
  }
  return cudaSuccess;
}
