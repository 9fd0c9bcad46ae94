// Deformable aggregation on a CPU: its arguments, and where a point lies between pixels.
#pragma once

#include "common.h"

namespace {

template <class F, class T>
struct Job {
  int64_t batch, cameras, pixels, channels, anchors, per_anchor, levels, groups;
  const int64_t* level_hw;
  const F* packed;   // [B, C, S, D]
  const T* points;   // [B, A, P, C, 2]
  const T* weights;  // [B, A, P, C, L, G]
  const T* grad;     // [B, A, D]
  F* output;         // [B, A, D]
  F* grad_packed;    // as packed; null: not wanted
  T* grad_points;    // as points; null: not wanted
  T* grad_weights;   // as weights; null: not wanted
};

// The two pixels around a point along one axis, their weights and the slopes of these. A pixel outside the map is replaced by the one
// at the edge (which is the other of the two), with weight and slope 0.
template <class T>
struct Neighbours {
  int64_t pixel[2];
  bool on_map[2];
  T weight[2];
  T slope[2];
};

template <class T>
SD_INLINE Neighbours<T> neighbours(T coordinate, int64_t size) {
  const T position = coordinate * static_cast<T>(size) - static_cast<T>(0.5);
  const T low = std::floor(position);
  const T fraction = position - low;
  const T weight[2] = {1 - fraction, fraction};
  const T slope[2] = {-static_cast<T>(size), static_cast<T>(size)};
  Neighbours<T> out;
  for (int i = 0; i < 2; ++i) {
    const int64_t pixel = static_cast<int64_t>(low) + i;
    out.on_map[i] = pixel >= 0 && pixel < size;
    out.pixel[i] = std::min(std::max<int64_t>(pixel, 0), size - 1);
    out.weight[i] = out.on_map[i] ? weight[i] : 0;
    out.slope[i] = out.on_map[i] ? slope[i] : 0;
  }
  return out;
}

template <class T>
SD_INLINE bool is_visible(const T* point) {
  return point[0] > 0 && point[0] < 1 && point[1] > 0 && point[1] < 1;  // false for NaN
}

}  // namespace
