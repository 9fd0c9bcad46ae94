// Deformable aggregation on a CPU: the visible (point, camera) pairs only, all channels of a pixel at once.
//
// F is the type of features, output and gradient of the features, T the type of everything else and of all sums. Every output number is
// summed by one thread in an order that depends on the arguments only: any number of threads gives the same bits.
// The rule itself stands in ../deformable_aggregation/README.md.

#include "deformable_forward.h"

namespace {

constexpr int64_t BLOCK = 16;         // numbers stored at once when weights are spread over channels
constexpr int64_t BAND_PIXELS = 4096;  // of the features' gradient, for one thread at a time

// The four pixels of a sample.
template <class F>
struct Rows {
  const F* at[2][2];  // [y][x]
};

template <class F, class T>
SD_INLINE Rows<F> rows_of(const F* level, int64_t width, int64_t channels, const Neighbours<T>& y, const Neighbours<T>& x) {
  Rows<F> rows;
  for (int i = 0; i < 2; ++i)
    for (int j = 0; j < 2; ++j) rows.at[i][j] = level + (y.pixel[i] * width + x.pixel[j]) * channels;
  return rows;
}

// Each group's weight times `factor`, once a channel. Whole blocks are stored: the next group overwrites what is too much, and `out` has
// room for one block behind the channels.
template <class T>
SD_INLINE void spread(const T* weights, T factor, int64_t groups, int64_t group_channels, T* SD_RESTRICT out) {
  for (int64_t g = 0; g < groups; ++g) {
    const T value = weights[g] * factor;
    T* SD_RESTRICT begin = out + g * group_channels;
    for (int64_t d = 0; d < group_channels; d += BLOCK)
      for (int64_t i = 0; i < BLOCK; ++i) begin[d + i] = value;
  }
}

// Of one sample: terms[i] = d output / d weight of channel i, and returns by reference its part of the point's gradient.
template <class F, class T, bool FMA>
SD_INLINE void sample_gradient(const Rows<F>& rows, const Neighbours<T>& y, const Neighbours<T>& x, const T* SD_RESTRICT weight,
                               const T* SD_RESTRICT grad, int64_t channels, T* SD_RESTRICT terms, T* grad_point) {
  const F *a = rows.at[0][0], *b = rows.at[0][1], *c = rows.at[1][0], *d = rows.at[1][1];
  const T wx0 = x.weight[0], wx1 = x.weight[1], wy0 = y.weight[0], wy1 = y.weight[1];
  const T sx0 = x.slope[0], sx1 = x.slope[1], sy0 = y.slope[0], sy1 = y.slope[1];
  T sum_x = 0, sum_y = 0;
  SD_SIMD_SUM(sum_x, sum_y)
  for (int64_t i = 0; i < channels; ++i) {
    const T va = widen(a[i]), vb = widen(b[i]), vc = widen(c[i]), vd = widen(d[i]);
    const T left = multiply_add<FMA>(wy1, vc, wy0 * va), right = multiply_add<FMA>(wy1, vd, wy0 * vb);
    const T top = multiply_add<FMA>(wx1, vb, wx0 * va), bottom = multiply_add<FMA>(wx1, vd, wx0 * vc);
    const T weighted = grad[i] * weight[i];
    terms[i] = grad[i] * multiply_add<FMA>(wx1, right, wx0 * left);
    sum_x += weighted * multiply_add<FMA>(sx1, right, sx0 * left);
    sum_y += weighted * multiply_add<FMA>(sy1, bottom, sy0 * top);
  }
  grad_point[0] += sum_x;
  grad_point[1] += sum_y;
}

template <class T>
SD_INLINE void sums_of(const T* SD_RESTRICT terms, int64_t groups, int64_t group_channels, T* SD_RESTRICT out) {
  for (int64_t g = 0; g < groups; ++g) {
    const T* part = terms + g * group_channels;
    T sum = 0;
    SD_SIMD_SUM(sum)
    for (int64_t i = 0; i < group_channels; ++i) sum += part[i];
    out[g] = sum;
  }
}

// Such short sums are far faster where the compiler knows how long they are.
template <class T>
SD_INLINE void group_sums(const T* SD_RESTRICT terms, int64_t groups, int64_t group_channels, T* SD_RESTRICT out) {
  switch (group_channels) {
    case 8:
      return sums_of(terms, groups, 8, out);
    case 12:
      return sums_of(terms, groups, 12, out);
    case 16:
      return sums_of(terms, groups, 16, out);
    case 32:
      return sums_of(terms, groups, 32, out);
    default:
      return sums_of(terms, groups, group_channels, out);
  }
}

// Gradients of the points and weights of anchors begin..end of all streams' anchors.
template <class F, class T, bool FMA>
SD_INLINE void pair_gradients_range(const Job<F, T>& job, int64_t begin, int64_t end) {
  const int64_t channels = job.channels, group_channels = channels / job.groups, per_pair = job.levels * job.groups;
  Buffer<T> terms_memory(job.levels * channels), weight_memory(job.levels * channels + BLOCK);
  T *terms = terms_memory.data(), *weight = weight_memory.data();
  for (int64_t anchor = begin; anchor < end; ++anchor) {
    const T* grad = job.grad + anchor * channels;
    const int64_t first_image = anchor / job.anchors * job.cameras, pairs = job.per_anchor * job.cameras;
    if (job.grad_points) std::fill_n(job.grad_points + anchor * pairs * 2, pairs * 2, T(0));
    if (job.grad_weights) std::fill_n(job.grad_weights + anchor * pairs * per_pair, pairs * per_pair, T(0));
    for (int64_t p = 0; p < job.per_anchor; ++p)
      for (int64_t c = 0; c < job.cameras; ++c) {
        const int64_t pair = (anchor * job.per_anchor + p) * job.cameras + c;
        const T* point = job.points + pair * 2;
        if (!is_visible(point)) continue;
        const F* level = job.packed + (first_image + c) * job.pixels * channels;
        T grad_point[2] = {0, 0};
        spread(job.weights + pair * per_pair, T(1), per_pair, group_channels, weight);  // all levels at once as in the forward
        for (int64_t l = 0; l < job.levels; ++l) {
          const int64_t height = job.level_hw[2 * l], width = job.level_hw[2 * l + 1];
          const Neighbours<T> y = neighbours(point[1], height), x = neighbours(point[0], width);
          const Rows<F> rows = rows_of(level, width, channels, y, x);
          sample_gradient<F, T, FMA>(rows, y, x, weight + l * channels, grad, channels, terms + l * channels, grad_point);
          level += height * width * channels;
        }
        if (job.grad_weights) group_sums(terms, per_pair, group_channels, job.grad_weights + pair * per_pair);
        if (job.grad_points) std::copy_n(grad_point, 2, job.grad_points + pair * 2);
      }
  }
}

// Lines first..last of one level of one picture: what a thread makes of the features' gradient at a time.
struct Band {
  int64_t level, start, first, last;  // start: of the level, in pixels
};

std::vector<Band> bands_of(const int64_t* level_hw, int64_t levels) {
  std::vector<Band> bands;
  int64_t start = 0;
  for (int64_t l = 0; l < levels; ++l) {
    const int64_t height = level_hw[2 * l], width = level_hw[2 * l + 1], lines = std::max<int64_t>(1, BAND_PIXELS / width);
    for (int64_t first = 0; first < height; first += lines) bands.push_back({l, start, first, std::min(height, first + lines)});
    start += height * width;
  }
  return bands;
}

// The points [A, P] a picture sees.
template <class F, class T>
std::vector<int64_t> seen_by(const Job<F, T>& job, int64_t image) {
  std::vector<int64_t> seen;
  const int64_t points = job.anchors * job.per_anchor;
  const T* point = job.points + (image / job.cameras * points * job.cameras + image % job.cameras) * 2;
  for (int64_t i = 0; i < points; ++i, point += job.cameras * 2)
    if (is_visible(point)) seen.push_back(i);
  return seen;
}

// One pixel's part in one sample.
template <class T>
struct Tap {
  int64_t point;
  T factor;
};

// The taps on a band, sorted by pixel (points in order within one): first[i]..first[i + 1] are those of pixel i.
template <class F, class T>
SD_INLINE void sort_taps(const Job<F, T>& job, int64_t image, const Band& band, const std::vector<int64_t>& seen,
                         std::vector<int64_t>& first, std::vector<Tap<T>>& taps) {
  const int64_t height = job.level_hw[2 * band.level], width = job.level_hw[2 * band.level + 1];
  const int64_t points = job.anchors * job.per_anchor;
  const T* origin = job.points + (image / job.cameras * points * job.cameras + image % job.cameras) * 2;
  first.assign(static_cast<size_t>((band.last - band.first) * width) + 2, 0);
  for (const bool counting : {true, false}) {
    for (const int64_t point : seen) {
      const T* xy = origin + point * job.cameras * 2;
      const Neighbours<T> y = neighbours(xy[1], height);
      if (y.pixel[1] < band.first || y.pixel[0] >= band.last) continue;
      const Neighbours<T> x = neighbours(xy[0], width);
      for (int i = 0; i < 2; ++i)
        for (int j = 0; j < 2; ++j) {
          if (!y.on_map[i] || !x.on_map[j] || y.pixel[i] < band.first || y.pixel[i] >= band.last) continue;
          const auto pixel = static_cast<size_t>((y.pixel[i] - band.first) * width + x.pixel[j]);
          if (counting)
            ++first[pixel + 2];
          else
            taps[static_cast<size_t>(first[pixel + 1]++)] = {point, y.weight[i] * x.weight[j]};
        }
    }
    if (!counting) continue;
    for (size_t i = 2; i < first.size(); ++i) first[i] += first[i - 1];
    taps.resize(static_cast<size_t>(first.back()));
  }
}

template <class T, bool FMA>
SD_INLINE void add_weighted(const T* SD_RESTRICT weight, const T* SD_RESTRICT row, int64_t channels, T* SD_RESTRICT sums) {
  SD_SIMD
  for (int64_t i = 0; i < channels; ++i) sums[i] = multiply_add<FMA>(weight[i], row[i], sums[i]);
}

// Gradient of the features on one band of one picture: each pixel sums the output gradients of the points that touched it.
template <class F, class T, bool FMA>
SD_INLINE void features_gradient(const Job<F, T>& job, int64_t image, const Band& band, const std::vector<int64_t>& seen) {
  const int64_t channels = job.channels, width = job.level_hw[2 * band.level + 1], camera = image % job.cameras;
  const int64_t first_anchor = image / job.cameras * job.anchors;
  std::vector<int64_t> first;
  std::vector<Tap<T>> taps;
  sort_taps(job, image, band, seen, first, taps);
  Buffer<T> sums_memory(channels), weight_memory(channels + BLOCK);
  T *sums = sums_memory.data(), *weight = weight_memory.data();
  F* SD_RESTRICT out = job.grad_packed + (image * job.pixels + band.start + band.first * width) * channels;
  for (int64_t pixel = 0; pixel < (band.last - band.first) * width; ++pixel, out += channels) {
    const int64_t begin = first[static_cast<size_t>(pixel)], end = first[static_cast<size_t>(pixel) + 1];
    if (begin == end) {
      std::memset(out, 0, static_cast<size_t>(channels) * sizeof(F));
      continue;
    }
    std::fill(sums, sums + channels, T(0));
    for (int64_t i = begin; i < end; ++i) {
      const Tap<T>& tap = taps[static_cast<size_t>(i)];
      const int64_t pair = (first_anchor * job.per_anchor + tap.point) * job.cameras + camera;
      spread(job.weights + (pair * job.levels + band.level) * job.groups, tap.factor, job.groups, channels / job.groups, weight);
      add_weighted<T, FMA>(weight, job.grad + (first_anchor + tap.point / job.per_anchor) * channels, channels, sums);
    }
    for (int64_t i = 0; i < channels; ++i) narrow(sums[i], out[i]);
  }
}

// The same code for each instruction set: what is inlined into these functions is compiled for theirs.
#define SD_KERNELS(NAME, TARGET, FMA)                                                                                        \
  template <class F, class T>                                                                                                \
  struct NAME {                                                                                                              \
    TARGET static void forward(const Job<F, T>& job, const int64_t* anchors, int64_t count) {                                \
      forward_anchors<F, T, FMA>(job, anchors, count);                                                                       \
    }                                                                                                                        \
    TARGET static void pairs(const Job<F, T>& job, int64_t begin, int64_t end) { pair_gradients_range<F, T, FMA>(job, begin, end); } \
    TARGET static void features(const Job<F, T>& job, int64_t image, const Band& band, const std::vector<int64_t>& seen) {    \
      features_gradient<F, T, FMA>(job, image, band, seen);                                                                  \
    }                                                                                                                        \
  };
SD_KERNELS(Base, , BASE_HAS_FMA)
#if SD_X86_DISPATCH
SD_KERNELS(Avx2, SD_TARGET_AVX2, true)
SD_KERNELS(Avx512, SD_TARGET_AVX512, true)
#endif

template <template <class, class> class Kernels, class F, class T>
bool run(const Job<F, T>& job, int64_t threads) {
  const int64_t anchors = job.batch * job.anchors, images = job.batch * job.cameras;
  if (job.output) {
    const std::vector<int64_t> order = by_picture(job);
    const int64_t grain = std::min(MOST_ANCHORS, anchors / PIECES + 1);
    const auto some = [&](int64_t begin, int64_t end) { Kernels<F, T>::forward(job, order.data() + begin, end - begin); };
    return in_parallel(anchors, grain, threads, some);
  }
  bool good = true;
  if (job.grad_points || job.grad_weights)
    good = in_parallel(anchors, 4, threads, [&](int64_t begin, int64_t end) { Kernels<F, T>::pairs(job, begin, end); });
  if (!good || !job.grad_packed) return good;
  std::vector<std::vector<int64_t>> seen(static_cast<size_t>(images));
  good = in_parallel(images, 1, threads, [&](int64_t image, int64_t) { seen[static_cast<size_t>(image)] = seen_by(job, image); });
  const std::vector<Band> bands = bands_of(job.level_hw, job.levels);
  const auto count = static_cast<int64_t>(bands.size());
  const auto one = [&](int64_t task, int64_t) {
    const int64_t image = task / count;
    Kernels<F, T>::features(job, image, bands[static_cast<size_t>(task % count)], seen[static_cast<size_t>(image)]);
  };
  return good && in_parallel(images * count, 1, threads, one);
}

template <class F, class T>
bool start(const int64_t* sizes, const int64_t* level_hw, void* const* data, int64_t threads, Isa isa) {
  const Job<F, T> job{sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5], sizes[6], sizes[7], level_hw,
                      static_cast<const F*>(data[0]), static_cast<const T*>(data[1]), static_cast<const T*>(data[2]),
                      static_cast<const T*>(data[3]), static_cast<F*>(data[4]), static_cast<F*>(data[5]),
                      static_cast<T*>(data[6]), static_cast<T*>(data[7])};
#if SD_X86_DISPATCH
  if (isa == Isa::avx512) return run<Avx512>(job, threads);
  if (isa == Isa::avx2) return run<Avx2>(job, threads);
#endif
  return run<Base>(job, threads);
}

}  // namespace

// Forward where data[4] is set, else the gradients whose pointers are.
// dtype: 0 float32, 1 float64, 2 bfloat16 (of packed, output and grad_packed; the others are then float32).
// sizes: B, C, S, D, A, P, L, G. data: packed, points, weights, grad, output, grad_packed, grad_points, grad_weights; all contiguous.
// widest_isa: 0, 1 or 2, to run narrower code than the machine has. Returns 0, or 1 where memory ran out.
SD_EXPORT int32_t sparsedrive_deformable_aggregation(int32_t dtype, const int64_t* sizes, const int64_t* level_hw, void* const* data,
                                                     int64_t threads, int32_t widest_isa) {
  try {
    const Isa isa = std::min(best_isa(), static_cast<Isa>(widest_isa));
    if (dtype == 0) return start<float, float>(sizes, level_hw, data, threads, isa) ? 0 : 1;
    if (dtype == 1) return start<double, double>(sizes, level_hw, data, threads, isa) ? 0 : 1;
    return start<Bfloat16, float>(sizes, level_hw, data, threads, isa) ? 0 : 1;
  } catch (...) {
    return 1;
  }
}
