// A baseline to measure against, and for nothing else: deformable aggregation as the published op divides it.
//
// One thread for each (stream, anchor, point, camera, level, channel): it takes one sample and adds it to the output, and in the backward
// to every gradient, with float32 atomics. Indices are 32-bit.

#include <cuda_runtime.h>

namespace {

constexpr int THREADS = 128;

struct Sizes {
  int batch, cameras, pixels, channels, anchors, per_anchor, levels, groups;
  int level_hw[32];
};

struct Sample {
  int anchor, channel, point_at, weight_at;
  int corner[4];  // index into the features; -1: off the map
  float factor[4];
  float right, bottom, width, height;
};

// What the thread's sample is; false where its point is hidden or there is none.
__device__ bool find_sample(const Sizes& sizes, const float* points, Sample& sample) {
  int rest = blockIdx.x * THREADS + threadIdx.x;
  sample.channel = rest % sizes.channels, rest /= sizes.channels;
  const int level = rest % sizes.levels, pair = rest / sizes.levels;
  const int camera = pair % sizes.cameras;
  sample.anchor = pair / sizes.cameras / sizes.per_anchor;
  if (sample.anchor >= sizes.batch * sizes.anchors) return false;
  const float x = points[2 * pair], y = points[2 * pair + 1];
  if (!(x > 0 && x < 1 && y > 0 && y < 1)) return false;
  int first = (sample.anchor / sizes.anchors * sizes.cameras + camera) * sizes.pixels;
  for (int l = 0; l < level; ++l) first += sizes.level_hw[2 * l] * sizes.level_hw[2 * l + 1];
  const int height = sizes.level_hw[2 * level], width = sizes.level_hw[2 * level + 1];
  const float px = x * width - 0.5f, py = y * height - 0.5f;
  const int left = static_cast<int>(floorf(px)), top = static_cast<int>(floorf(py));
  sample.right = px - left, sample.bottom = py - top, sample.width = width, sample.height = height;
  for (int k = 0; k < 4; ++k) {
    const int column = left + k % 2, line = top + k / 2;
    const bool on = column >= 0 && column < width && line >= 0 && line < height;
    sample.corner[k] = on ? (first + line * width + column) * sizes.channels + sample.channel : -1;
    sample.factor[k] = (k % 2 ? sample.right : 1 - sample.right) * (k / 2 ? sample.bottom : 1 - sample.bottom);
  }
  sample.point_at = 2 * pair;
  sample.weight_at = (pair * sizes.levels + level) * sizes.groups + sample.channel / (sizes.channels / sizes.groups);
  return true;
}

__global__ void forward_kernel(Sizes sizes, const float* packed, const float* points, const float* weights, float* output) {
  Sample sample;
  if (!find_sample(sizes, points, sample)) return;
  float value = 0;
  for (int k = 0; k < 4; ++k)
    if (sample.corner[k] >= 0) value += sample.factor[k] * packed[sample.corner[k]];
  atomicAdd(output + sample.anchor * sizes.channels + sample.channel, value * weights[sample.weight_at]);
}

__global__ void backward_kernel(Sizes sizes, const float* packed, const float* points, const float* weights, const float* grad,
                                float* grad_packed, float* grad_points, float* grad_weights) {
  Sample sample;
  if (!find_sample(sizes, points, sample)) return;
  const float gradient = grad[sample.anchor * sizes.channels + sample.channel], weighted = gradient * weights[sample.weight_at];
  float tap[4], value = 0;
  for (int k = 0; k < 4; ++k) {
    tap[k] = sample.corner[k] >= 0 ? packed[sample.corner[k]] : 0;
    value += sample.factor[k] * tap[k];
    if (sample.corner[k] >= 0) atomicAdd(grad_packed + sample.corner[k], weighted * sample.factor[k]);
  }
  atomicAdd(grad_weights + sample.weight_at, gradient * value);
  const float along_x = (1 - sample.bottom) * (tap[1] - tap[0]) + sample.bottom * (tap[3] - tap[2]);
  const float along_y = (1 - sample.right) * (tap[2] - tap[0]) + sample.right * (tap[3] - tap[1]);
  atomicAdd(grad_points + sample.point_at, weighted * sample.width * along_x);
  atomicAdd(grad_points + sample.point_at + 1, weighted * sample.height * along_y);
}

}  // namespace

// sizes: B, C, S, D, A, P, L, G, then height and width of each level. data: packed, points, weights, grad, output, grad_packed,
// grad_points, grad_weights; output null: backward. What is written holds zeros before.
extern "C" int published_style(const int* numbers, void* const* data, void* stream) {
  Sizes sizes{numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], numbers[5], numbers[6], numbers[7], {}};
  for (int i = 0; i < 2 * sizes.levels; ++i) sizes.level_hw[i] = numbers[8 + i];
  const auto* packed = static_cast<const float*>(data[0]);
  const auto* points = static_cast<const float*>(data[1]);
  const auto* weights = static_cast<const float*>(data[2]);
  const int samples = sizes.batch * sizes.anchors * sizes.per_anchor * sizes.cameras * sizes.levels * sizes.channels;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>((samples + THREADS - 1) / THREADS));
  config.blockDim = dim3(THREADS);
  config.stream = static_cast<cudaStream_t>(stream);
  if (data[4]) return cudaLaunchKernelEx(&config, forward_kernel, sizes, packed, points, weights, static_cast<float*>(data[4]));
  return cudaLaunchKernelEx(&config, backward_kernel, sizes, packed, points, weights, static_cast<const float*>(data[3]),
                            static_cast<float*>(data[5]), static_cast<float*>(data[6]), static_cast<float*>(data[7]));
}
