// Deformable aggregation on a GPU: the visible (point, camera) pairs only. The rule itself stands in ../deformable_aggregation/README.md.
//
// Threads work in teams of eight, a team on one pair: its lanes hold neighbouring channels, so a team reads whole 64 or 128 byte pieces of
// a pixel. A block first lists the pairs its points are visible in, then its teams take them in turn.
// F is the type of features, output and the output's gradient, T the type of everything else and of all sums.

#include "common.cuh"

namespace {

constexpr int TEAM = 8;
constexpr int TEAMS = THREADS / TEAM;
constexpr int LIST = 1024;  // pairs of an anchor a block lists at a time
constexpr int MAX_LEVELS = 16;

template <class F, class T>
struct Job {
  int64_t batch, cameras, pixels, channels, anchors, per_anchor, levels, groups;
  int32_t height[MAX_LEVELS], width[MAX_LEVELS];
  int64_t start[MAX_LEVELS];  // of the level, in pixels
  const F* packed;            // [B, C, S, D]
  const T* points;            // [B, A, P, C, 2]
  const T* weights;           // [B, A, P, C, L, G]
  const F* grad;              // [B, A, D]
  F* output;                  // [B, A, D]
  T* grad_packed;             // as packed, zeros to add to; null: not wanted
  T* grad_points;             // as points, zeros where nothing is visible; null: not wanted
  T* grad_weights;            // as weights, likewise; null: not wanted
};

template <class T>
__device__ __forceinline__ bool is_visible(const T* point) {
  return point[0] > 0 && point[0] < 1 && point[1] > 0 && point[1] < 1;  // false for NaN
}

// Write the visible ones of `pairs` pairs to `list`, in order, and return how many there are. The whole block takes part.
template <class T>
__device__ int list_visible(const T* points, int pairs, int32_t* list) {
  __shared__ int counts[WARPS];
  const int lane = static_cast<int>(threadIdx.x) % WARP, warp = static_cast<int>(threadIdx.x) / WARP;
  int count = 0;
  for (int begin = 0; begin < pairs; begin += THREADS) {
    const int pair = begin + static_cast<int>(threadIdx.x);
    const bool seen = pair < pairs && is_visible(points + 2 * pair);
    const unsigned votes = __ballot_sync(0xffffffffu, seen);
    if (lane == 0) counts[warp] = __popc(votes);
    __syncthreads();
    int place = count + __popc(votes & ((1u << lane) - 1));
    for (int i = 0; i < WARPS; ++i) {
      if (i < warp) place += counts[i];
      count += counts[i];
    }
    if (seen) list[place] = pair;
    __syncthreads();
  }
  return count;
}

// Along one axis: the first of the two pixels around a point, how far the point is from it, and whether each is on the map.
template <class T>
struct Place {
  int64_t pixel;
  T part;
  bool on[2];
};

template <class T>
__device__ __forceinline__ Place<T> place_on(T coordinate, int32_t size) {
  const T position = scale_and_shift(coordinate, static_cast<T>(size), static_cast<T>(0.5));
  const T low = floor(position);
  const int32_t pixel = static_cast<int32_t>(low);
  return {pixel, position - low, {pixel >= 0, pixel + 1 < size}};
}

// The four corners of a sample, in the order (y, x) = (0, 0), (0, 1), (1, 0), (1, 1).
template <class T>
struct Corners {
  int64_t row[4];  // in the level's pixels
  bool on[4];
  T weight[4];
  T right, bottom;  // place between them
};

template <class T>
__device__ __forceinline__ Corners<T> corners_of(const T* point, int32_t height, int32_t width) {
  const Place<T> x = place_on(point[0], width), y = place_on(point[1], height);
  const int64_t first = y.pixel * width + x.pixel;
  return {{first, first + 1, first + width, first + width + 1},
          {y.on[0] && x.on[0], y.on[0] && x.on[1], y.on[1] && x.on[0], y.on[1] && x.on[1]},
          {(1 - y.part) * (1 - x.part), (1 - y.part) * x.part, y.part * (1 - x.part), y.part * x.part},
          x.part,
          y.part};
}

// Sums of TEAM * V channels of one anchor. Blocks follow each other stream by stream and there piece of channels by piece: what is read
// from a stream at about the same time is a fraction of its features, which the cache can hold although it cannot hold all of them.
template <int V, class F, class T>
__global__ void __launch_bounds__(THREADS) forward_kernel(Job<F, T> job) {
  __shared__ int32_t list[LIST];
  __shared__ T sums[TEAMS][TEAM * V];
  const int64_t pieces = (job.channels + TEAM * V - 1) / (TEAM * V);
  const int64_t stream = blockIdx.x / (job.anchors * pieces), piece = blockIdx.x / job.anchors % pieces;
  const int64_t anchor = stream * job.anchors + blockIdx.x % job.anchors;
  const int lane = static_cast<int>(threadIdx.x) % TEAM, team = static_cast<int>(threadIdx.x) / TEAM;
  const int64_t channel = (piece * TEAM + lane) * V;
  const bool has_work = channel < job.channels;
  const int64_t group = channel / (job.channels / job.groups);
  const int32_t pairs = static_cast<int32_t>(job.per_anchor * job.cameras), cameras = static_cast<int32_t>(job.cameras);
  T total[V] = {};
  for (int32_t begin = 0; begin < pairs; begin += LIST) {
    const int64_t first = anchor * pairs + begin;
    const int count = list_visible(job.points + 2 * first, pairs - begin < LIST ? pairs - begin : LIST, list);
    for (int i = team; has_work && i < count; i += TEAMS) {
      const int64_t pair = first + list[i], picture = stream * cameras + (begin + list[i]) % cameras;
      const F* features = job.packed + picture * job.pixels * job.channels + channel;
      for (int l = 0; l < job.levels; ++l) {
        const Corners<T> corners = corners_of(job.points + 2 * pair, job.height[l], job.width[l]);
        const T weight = job.weights[(pair * job.levels + l) * job.groups + group];
        Vector<V, F> taps[4];  // all on their way before the first is used
        for (int k = 0; k < 4; ++k)
          taps[k] = load_or_zero<V>(features + (job.start[l] + corners.row[k]) * job.channels, corners.on[k]);
        for (int v = 0; v < V; ++v) {
          T sample = corners.weight[0] * widen(taps[0].at[v]);
          for (int k = 1; k < 4; ++k) sample += corners.weight[k] * widen(taps[k].at[v]);
          total[v] += weight * sample;
        }
      }
    }
    __syncthreads();  // the list is used up
  }
  for (int v = 0; v < V; ++v) sums[team][lane * V + v] = total[v];
  __syncthreads();
  const int place = static_cast<int>(threadIdx.x);
  if (place >= TEAM * V || piece * TEAM * V + place >= job.channels) return;
  T sum = 0;
  for (int i = 0; i < TEAMS; ++i) sum += sums[i][place];
  narrow(sum, job.output[anchor * job.channels + piece * TEAM * V + place]);
}

// Sum over a team; every lane has it.
template <class T>
__device__ __forceinline__ T team_sum(T value) {
  const unsigned members = 0xffu << (threadIdx.x % WARP / TEAM * TEAM);
  for (int step = 1; step < TEAM; step *= 2) value += __shfl_xor_sync(members, value, step);
  return value;
}

// Of one sample and group: add to the gradient of the four pixels, and return the inner products of these with the output's gradient.
template <int V, class F, class T>
__device__ __forceinline__ void group_gradient(const Job<F, T>& job, int64_t row, int64_t grad_row, const Corners<T>& corners, T weight,
                                               int64_t first_channel, T (&dots)[4]) {
  const int lane = static_cast<int>(threadIdx.x) % TEAM;
  const bool need_dots = job.grad_points || job.grad_weights;
  for (int64_t i = lane * V; i < job.channels / job.groups; i += TEAM * V) {
    const int64_t channel = first_channel + i;
    const Vector<V, F> grad = load<V>(job.grad + grad_row + channel);
    for (int k = 0; k < 4; ++k) {
      const int64_t at = (row + corners.row[k]) * job.channels + channel;
      if (need_dots) {
        const Vector<V, F> tap = load_or_zero<V>(job.packed + at, corners.on[k]);
        for (int v = 0; v < V; ++v) dots[k] += widen(tap.at[v]) * widen(grad.at[v]);
      }
      if (job.grad_packed && corners.on[k]) {
        T values[V];
        for (int v = 0; v < V; ++v) values[v] = weight * corners.weight[k] * widen(grad.at[v]);
        atomic_add(job.grad_packed + at, values);
      }
    }
  }
}

// All gradients of THREADS pairs that follow each other.
template <int V, class F, class T>
__global__ void __launch_bounds__(THREADS) backward_kernel(Job<F, T> job) {
  __shared__ int32_t list[THREADS];
  const int64_t per_anchor = job.per_anchor * job.cameras, pairs = job.batch * job.anchors * per_anchor;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * THREADS;
  const int count = list_visible(job.points + 2 * first, static_cast<int>(pairs - first < THREADS ? pairs - first : THREADS), list);
  const int lane = static_cast<int>(threadIdx.x) % TEAM, team = static_cast<int>(threadIdx.x) / TEAM;
  for (int i = team; i < count; i += TEAMS) {
    const int64_t pair = first + list[i], anchor = pair / per_anchor;
    const int64_t row = (anchor / job.anchors * job.cameras + pair % job.cameras) * job.pixels;
    T slope_x = 0, slope_y = 0;
    for (int l = 0; l < job.levels; ++l) {
      const Corners<T> corners = corners_of(job.points + 2 * pair, job.height[l], job.width[l]);
      const T width = static_cast<T>(job.width[l]), height = static_cast<T>(job.height[l]);
      for (int64_t g = 0; g < job.groups; ++g) {
        const int64_t weight_at = (pair * job.levels + l) * job.groups + g;
        const T weight = job.weights[weight_at];
        T dots[4] = {};
        group_gradient<V>(job, row + job.start[l], anchor * job.channels, corners, weight, g * (job.channels / job.groups), dots);
        if (!job.grad_points && !job.grad_weights) continue;
        for (int k = 0; k < 4; ++k) dots[k] = team_sum(dots[k]);
        slope_x += weight * width * ((1 - corners.bottom) * (dots[1] - dots[0]) + corners.bottom * (dots[3] - dots[2]));
        slope_y += weight * height * ((1 - corners.right) * (dots[2] - dots[0]) + corners.right * (dots[3] - dots[1]));
        if (!job.grad_weights || lane != 0) continue;
        T value = 0;
        for (int k = 0; k < 4; ++k) value += corners.weight[k] * dots[k];
        job.grad_weights[weight_at] = value;
      }
    }
    if (!job.grad_points || lane != 0) continue;
    job.grad_points[2 * pair] = slope_x;
    job.grad_points[2 * pair + 1] = slope_y;
  }
}

template <int V, class F, class T>
cudaError_t run(const Job<F, T>& job, cudaStream_t stream) {
  const int64_t anchors = job.batch * job.anchors, pairs = anchors * job.per_anchor * job.cameras;
  if (!job.output) return launch(backward_kernel<V, F, T>, (pairs + THREADS - 1) / THREADS, stream, job);
  return launch(forward_kernel<V, F, T>, anchors * ((job.channels + TEAM * V - 1) / (TEAM * V)), stream, job);
}

// As many channels at once as a group and the memory's alignment allow.
template <class F>
cudaError_t start(const int64_t* sizes, const int64_t* level_hw, void* const* data, cudaStream_t stream) {
  using T = typename SumOf<F>::type;
  Job<F, T> job{sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5], sizes[6], sizes[7], {}, {}, {},
                static_cast<const F*>(data[0]), static_cast<const T*>(data[1]), static_cast<const T*>(data[2]),
                static_cast<const F*>(data[3]), static_cast<F*>(data[4]), static_cast<T*>(data[5]),
                static_cast<T*>(data[6]), static_cast<T*>(data[7])};
  if (job.levels > MAX_LEVELS || job.per_anchor * job.cameras > INT32_MAX - LIST) return cudaErrorInvalidValue;
  int64_t pixels = 0;
  for (int64_t l = 0; l < job.levels; ++l) {
    job.height[l] = static_cast<int32_t>(level_hw[2 * l]);
    job.width[l] = static_cast<int32_t>(level_hw[2 * l + 1]);
    job.start[l] = pixels;
    pixels += level_hw[2 * l] * level_hw[2 * l + 1];
  }
  const int64_t group_channels = job.channels / job.groups;
  if constexpr (sizeof(F) == 2)
    if (job.output && group_channels % 8 == 0 && is_aligned<8>(job.packed)) return run<8>(job, stream);
  if (group_channels % 4 == 0 && is_aligned<4>(job.packed) && is_aligned<4>(job.grad)) return run<4>(job, stream);
  return run<1>(job, stream);
}

}  // namespace

// Forward where data[4] is set, else the gradients whose pointers are; these are zeros before. Returns a cudaError_t.
// dtype: 0 float32, 1 float64, 2 bfloat16, 3 float16 (of packed, grad and output; the others are float32, beside float64 float64).
// sizes: B, C, S, D, A, P, L, G. data: packed, points, weights, grad, output, grad_packed, grad_points, grad_weights; all contiguous.
SD_EXPORT int32_t sparsedrive_cuda_deformable_aggregation(int32_t dtype, const int64_t* sizes, const int64_t* level_hw, void* const* data,
                                                          int32_t device, void* stream_pointer) {
  const cudaError_t failed = cudaSetDevice(device);
  if (failed != cudaSuccess) return failed;
  const auto stream = static_cast<cudaStream_t>(stream_pointer);
  if (dtype == 0) return start<float>(sizes, level_hw, data, stream);
  if (dtype == 1) return start<double>(sizes, level_hw, data, stream);
  if (dtype == 2) return start<__nv_bfloat16>(sizes, level_hw, data, stream);
  return start<__half>(sizes, level_hw, data, stream);
}
