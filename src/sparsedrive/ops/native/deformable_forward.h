// Deformable aggregation on a CPU, forward: anchors of one picture together, their visible points from top to bottom, level by level, so
// that pixels are still in the cache when the next point reads them. An anchor's own order of summing does not depend on the others.
#pragma once

#include "deformable_job.h"

namespace {

constexpr int64_t LINES = 64;        // of a picture, by which its points are sorted
constexpr size_t CHUNK = 256;        // steps prepared at once
constexpr size_t AHEAD = 2;          // steps between fetching and using
constexpr int64_t MOST_ANCHORS = 32;  // that are worked on at once
constexpr int64_t PIECES = 16;        // at least, where there are as many anchors

// A visible point in one picture.
template <class T>
struct Seen {
  int64_t pair, image;
  T x, y;
  T* sums;
};

// It at one level.
template <class F, class T>
struct Step {
  const F* row;         // upper left pixel
  int64_t right, down;  // from there to the other pixels
  T corner[4];          // weights of upper left, upper right, lower left, lower right
  const T* weights;     // one a group
  T* sums;
};

// The visible points of anchors, by camera and line.
template <class F, class T>
SD_INLINE void sort_seen(const Job<F, T>& job, const int64_t* anchors, int64_t count, T* sums, std::vector<Seen<T>>& sorted) {
  const int64_t pairs = job.per_anchor * job.cameras, per_pair = job.levels * job.groups;
  std::vector<Seen<T>> seen(static_cast<size_t>(count * pairs));
  std::vector<size_t> bin(seen.size()), first(static_cast<size_t>(job.cameras * LINES + 1), 0);
  size_t found = 0;
  for (int64_t slot = 0; slot < count; ++slot) {
    const int64_t first_image = anchors[slot] / job.anchors * job.cameras;
    for (int64_t i = 0, pair = anchors[slot] * pairs; i < pairs; ++i, ++pair) {
      const T* point = job.points + pair * 2;
      if (!is_visible(point)) continue;
      const int64_t camera = i % job.cameras, line = std::min(static_cast<int64_t>(point[1] * LINES), LINES - 1);
      seen[found] = {pair, first_image + camera, point[0], point[1], sums + slot * job.channels};
      bin[found] = static_cast<size_t>(camera * LINES + line);
      ++first[bin[found++] + 1];
      for (int64_t k = 0; k < per_pair; k += static_cast<int64_t>(64 / sizeof(T))) SD_PREFETCH(job.weights + pair * per_pair + k);
    }
  }
  for (size_t i = 1; i < first.size(); ++i) first[i] += first[i - 1];
  sorted.resize(found);
  for (size_t i = 0; i < found; ++i) sorted[first[bin[i]]++] = seen[i];
}

// One step; the pixels of a `later` one are fetched meanwhile, as the processor does not foresee where they are.
template <class F, class T, bool FMA>
SD_INLINE void add_step(const Step<F, T>& step, const Step<F, T>& later, int64_t groups, int64_t group_channels) {
  const T wa = step.corner[0], wb = step.corner[1], wc = step.corner[2], wd = step.corner[3];
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t begin = g * group_channels;
    for (int64_t i = begin; i < begin + group_channels; i += static_cast<int64_t>(64 / sizeof(F))) {
      SD_PREFETCH(later.row + i);
      SD_PREFETCH(later.row + later.right + i);
      SD_PREFETCH(later.row + later.down + i);
      SD_PREFETCH(later.row + later.down + later.right + i);
    }
    const F *a = step.row + begin, *b = a + step.right, *c = a + step.down, *d = c + step.right;
    const T weight = step.weights[g];
    T* SD_RESTRICT sums = step.sums + begin;
    SD_SIMD
    for (int64_t i = 0; i < group_channels; ++i) {
      T value = wa * widen(a[i]);
      value = multiply_add<FMA>(wb, widen(b[i]), value);
      value = multiply_add<FMA>(wc, widen(c[i]), value);
      value = multiply_add<FMA>(wd, widen(d[i]), value);
      sums[i] = multiply_add<FMA>(weight, value, sums[i]);
    }
  }
}

// All of `seen` at level l, which begins `start` pixels into a picture.
template <class F, class T, bool FMA>
SD_INLINE void add_level(const Job<F, T>& job, const std::vector<Seen<T>>& seen, int64_t l, int64_t start, std::vector<Step<F, T>>& steps) {
  const int64_t channels = job.channels, groups = job.groups, height = job.level_hw[2 * l], width = job.level_hw[2 * l + 1];
  for (size_t from = 0; from < seen.size(); from += CHUNK) {
    const size_t count = std::min(CHUNK, seen.size() - from);
    for (size_t i = 0; i < count; ++i) {
      const Seen<T>& at = seen[from + i];
      const Neighbours<T> y = neighbours(at.y, height), x = neighbours(at.x, width);
      const int64_t pixel = at.image * job.pixels + start + y.pixel[0] * width + x.pixel[0];
      steps[i] = {job.packed + pixel * channels, (x.pixel[1] - x.pixel[0]) * channels, (y.pixel[1] - y.pixel[0]) * width * channels,
                  {y.weight[0] * x.weight[0], y.weight[0] * x.weight[1], y.weight[1] * x.weight[0], y.weight[1] * x.weight[1]},
                  job.weights + (at.pair * job.levels + l) * groups, at.sums};
    }
    const bool usual = channels == 32 * groups;  // faster where the compiler knows it
    for (size_t i = 0; i < count; ++i) {
      const Step<F, T>& later = steps[std::min(i + AHEAD, count - 1)];
      if (usual)
        add_step<F, T, FMA>(steps[i], later, groups, 32);
      else
        add_step<F, T, FMA>(steps[i], later, groups, channels / groups);
    }
  }
}

// Output of `count` of all streams' anchors.
template <class F, class T, bool FMA>
SD_INLINE void forward_anchors(const Job<F, T>& job, const int64_t* anchors, int64_t count) {
  Buffer<T> sums_memory(count * job.channels);
  T* sums = sums_memory.data();
  std::fill(sums, sums + count * job.channels, T(0));
  std::vector<Seen<T>> seen;
  sort_seen(job, anchors, count, sums, seen);
  std::vector<Step<F, T>> steps(CHUNK);
  for (int64_t l = 0, start = 0; l < job.levels; start += job.level_hw[2 * l] * job.level_hw[2 * l + 1], ++l)
    add_level<F, T, FMA>(job, seen, l, start, steps);
  for (int64_t slot = 0; slot < count; ++slot) {
    const T* from = sums + slot * job.channels;
    F* SD_RESTRICT output = job.output + anchors[slot] * job.channels;
    for (int64_t i = 0; i < job.channels; ++i) narrow(from[i], output[i]);
  }
}

// All streams' anchors, those first seen by the same camera together.
template <class F, class T>
std::vector<int64_t> by_picture(const Job<F, T>& job) {
  const int64_t pairs = job.per_anchor * job.cameras, count = job.batch * job.anchors;
  std::vector<int64_t> key(static_cast<size_t>(count)), first(static_cast<size_t>(job.batch * (job.cameras + 1) + 1), 0), order(key.size());
  for (int64_t anchor = 0; anchor < count; ++anchor) {
    int64_t i = 0;
    while (i < pairs && !is_visible(job.points + (anchor * pairs + i) * 2)) ++i;
    const int64_t at = anchor / job.anchors * (job.cameras + 1) + (i < pairs ? i % job.cameras : job.cameras);
    key[static_cast<size_t>(anchor)] = at;
    ++first[static_cast<size_t>(at) + 1];
  }
  for (size_t i = 1; i < first.size(); ++i) first[i] += first[i - 1];
  for (size_t i = 0; i < key.size(); ++i) order[static_cast<size_t>(first[static_cast<size_t>(key[i])]++)] = static_cast<int64_t>(i);
  return order;
}

}  // namespace
