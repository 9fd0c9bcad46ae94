// Sparse convolution on a CPU: for every kernel offset the rows of features it joins times that offset's weights, read where they lie
// and added in registers: no gathered copy, no im2col.
//
// Every output number is summed by one thread, offsets in order and channels in order: any number of threads gives the same bits.
// A table gives for each kernel offset and output row the input row, or -1. The gradient of the features is the same sum with the other
// table and the weights transposed. The rule itself stands in ../sparse_conv/README.md.

#include "common.h"

#if SD_X86_DISPATCH
#include <immintrin.h>
#endif

namespace {

#define SD_SET base
#define SD_SET_TARGET
#define SD_FN SD_INLINE
#define SD_WIDTH 0
#include "sparse_simd.h"
#undef SD_SET
#undef SD_SET_TARGET
#undef SD_FN
#undef SD_WIDTH
#if SD_X86_DISPATCH
#define SD_SET avx2
#define SD_SET_TARGET SD_TARGET_AVX2
#define SD_FN SD_TARGET_AVX2 SD_INLINE
#define SD_WIDTH 32
#include "sparse_simd.h"
#undef SD_SET
#undef SD_SET_TARGET
#undef SD_FN
#undef SD_WIDTH
#define SD_SET avx512
#define SD_SET_TARGET SD_TARGET_AVX512
#define SD_FN SD_TARGET_AVX512 SD_INLINE
#define SD_WIDTH 64
#include "sparse_simd.h"
#endif

constexpr int64_t TILE_NUMBERS = 1 << 16;  // sums a thread holds in its second-level cache
constexpr int64_t SPARE = 16;              // pairs behind the last one: see MOST_ROWS
constexpr int64_t CHUNK = 64;              // pairs added up in registers for the gradient of the weights
constexpr int64_t GRADIENT_TILE = 1024;    // output rows whose offsets are done together for it

template <class T>
struct Job {
  int64_t offsets, in_rows, out_rows, in_channels, out_channels;
  const T* feats;        // [in_rows, in_channels]
  const T* weight;       // [offsets, in_channels, out_channels]; forward only
  const T* grad;         // [out_rows, out_channels]; gradient of the weights only
  const int32_t* table;  // [offsets, out_rows]
  T* result;             // [out_rows, out_channels] or as weight
  bool offset_by_offset;
};

int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

// Weights of each offset in blocks of columns as Simd::forward takes them: [block][in_channels, block's columns], zeros behind the last.
template <template <class> class Simd, class T>
void pack_weight(const Job<T>& job, int64_t offset, int64_t columns, T* packed) {
  constexpr int64_t lanes = Simd<T>::lanes;
  const T* weight = job.weight + offset * job.in_channels * job.out_channels;
  for (int64_t column = 0; column < columns;) {
    const int64_t left = (columns - column) / lanes;
    const int64_t width = (left >= Simd<T>::widest ? Simd<T>::widest : left >= 2 ? 2 : 1) * lanes;
    const int64_t filled = std::max<int64_t>(0, std::min(width, job.out_channels - column));
    for (int64_t c = 0; c < job.in_channels; ++c, packed += width) {
      std::copy_n(weight + c * job.out_channels + column, filled, packed);
      std::fill(packed + filled, packed + width, T(0));
    }
    column += width;
  }
}

// Output rows begin..end, of kernel offsets first..last, added to what `result` holds if `more`.
template <template <class> class Simd, class T>
void forward_tile(const Job<T>& job, const T* packed, int64_t columns, int64_t begin, int64_t end, int64_t first, int64_t last, bool more) {
  const int64_t rows = end - begin;
  Buffer<T> sums_memory((rows + 1) * columns);
  T* sums = sums_memory.data();
  std::fill_n(sums, (rows + 1) * columns, T(0));
  if (more)
    for (int64_t r = 0; r < rows; ++r) std::copy_n(job.result + (begin + r) * job.out_channels, job.out_channels, sums + r * columns);
  std::vector<const T*> from(static_cast<size_t>(rows + SPARE));
  std::vector<T*> to(static_cast<size_t>(rows + SPARE));
  for (int64_t offset = first; offset < last; ++offset) {
    const int32_t* table = job.table + offset * job.out_rows + begin;
    size_t pairs = 0;
    for (int64_t r = 0; r < rows; ++r) {
      from[pairs] = job.feats + std::max(table[r], 0) * job.in_channels;
      to[pairs] = sums + r * columns;
      pairs += table[r] >= 0;
    }
    if (pairs == 0) continue;
    std::fill_n(from.begin() + static_cast<int64_t>(pairs), SPARE, from[0]);
    std::fill_n(to.begin() + static_cast<int64_t>(pairs), SPARE, sums + rows * columns);  // a row nobody reads
    const T* weight = packed + offset * job.in_channels * columns;
    Simd<T>::forward(from.data(), to.data(), static_cast<int64_t>(pairs), job.in_channels, weight, columns);
  }
  for (int64_t r = 0; r < rows; ++r) std::copy_n(sums + r * columns, job.out_channels, job.result + (begin + r) * job.out_channels);
}

template <template <class> class Simd, class T>
bool forward(const Job<T>& job, int64_t threads) {
  const int64_t columns = round_up(job.out_channels, Simd<T>::lanes);
  Buffer<T> packed_memory(job.offsets * job.in_channels * columns);
  T* packed = packed_memory.data();
  const auto pack = [&](int64_t offset, int64_t) { pack_weight<Simd>(job, offset, columns, packed + offset * job.in_channels * columns); };
  if (!in_parallel(job.offsets, 1, job.offsets * job.in_channels * columns > (1 << 18) ? threads : 1, pack)) return false;
  const int64_t most = std::max<int64_t>(64, std::min<int64_t>(1024, TILE_NUMBERS / columns));
  const int64_t rows = std::min(most, std::max<int64_t>(64, job.out_rows / (4 * threads)));
  const int64_t step = job.offset_by_offset ? 1 : job.offsets;
  for (int64_t first = 0; first < job.offsets; first += step) {
    const auto tile = [&](int64_t begin, int64_t end) {
      forward_tile<Simd>(job, packed, columns, begin, end, first, first + step, first > 0);
    };
    if (!in_parallel(job.out_rows, rows, threads, tile)) return false;
  }
  return true;
}

// Where rows are read: in place if they are as wide as wanted, else from a copy with zeros behind.
template <class T>
class Rows {
 public:
  Rows(const T* rows, int64_t channels, int64_t width)
      : rows_(rows), channels_(channels), width_(width), copies_(channels == width ? 0 : CHUNK * width) {
    if (channels != width) std::fill_n(copies_.data(), CHUNK * width, T(0));
  }
  const T* at(int64_t row, int64_t slot) {
    const T* found = rows_ + row * channels_;
    return channels_ == width_ ? found : std::copy_n(found, channels_, copies_.data() + slot * width_) - channels_;
  }

 private:
  const T* rows_;
  int64_t channels_, width_;
  Buffer<T> copies_;
};

// Gradient of the weights of offsets first..last. A tile of output rows serves all of them before the next, so that rows come from the
// cache; within it a chunk of pairs is added up in registers to the sums so far.
template <template <class> class Simd, class T>
void weight_gradient(const Job<T>& job, int64_t first, int64_t last) {
  const int64_t left_width = round_up(job.in_channels, Simd<T>::outer_rows), right_width = round_up(job.out_channels, Simd<T>::lanes);
  const int64_t size = left_width * right_width;
  Rows<T> left_rows(job.feats, job.in_channels, left_width), right_rows(job.grad, job.out_channels, right_width);
  Buffer<T> sums_memory((last - first) * size);
  T* sums = sums_memory.data();
  std::fill_n(sums, (last - first) * size, T(0));
  const T *left[CHUNK], *right[CHUNK];
  for (int64_t begin = 0; begin < job.out_rows; begin += GRADIENT_TILE) {
    const int64_t end = std::min(job.out_rows, begin + GRADIENT_TILE);
    for (int64_t offset = first; offset < last; ++offset) {
      const int32_t* table = job.table + offset * job.out_rows;
      int64_t pairs = 0;
      for (int64_t r = begin; r < end; ++r) {
        if (table[r] >= 0) {
          left[pairs] = left_rows.at(table[r], pairs);
          right[pairs] = right_rows.at(r, pairs);
          ++pairs;
        }
        if (pairs == CHUNK || (r + 1 == end && pairs > 0)) {
          Simd<T>::outer(left, left_width, right, right_width, pairs, sums + (offset - first) * size);
          pairs = 0;
        }
      }
    }
  }
  for (int64_t row = 0; row < (last - first) * job.in_channels; ++row) {
    const int64_t offset = row / job.in_channels, c = row % job.in_channels;
    std::copy_n(sums + offset * size + c * right_width, job.out_channels, job.result + (first * job.in_channels + row) * job.out_channels);
  }
}

template <template <class> class Simd, class T>
bool run(const Job<T>& job, int64_t threads) {
  if (job.weight) return forward<Simd>(job, threads);
  const int64_t share = (job.offsets + threads - 1) / threads;
  return in_parallel(job.offsets, share, threads, [&](int64_t first, int64_t last) { weight_gradient<Simd>(job, first, last); });
}

template <class T>
bool start(const int64_t* sizes, void* const* data, int64_t threads, Isa isa) {
  const Job<T> job{sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], static_cast<const T*>(data[0]), static_cast<const T*>(data[1]),
                   static_cast<const T*>(data[2]), static_cast<const int32_t*>(data[3]), static_cast<T*>(data[4]), sizes[5] != 0};
#if SD_X86_DISPATCH
  if (isa == Isa::avx512) return run<avx512::Simd>(job, threads);
  if (isa == Isa::avx2) return run<avx2::Simd>(job, threads);
#endif
  return run<base::Simd>(job, threads);
}

}  // namespace

// Forward where data[1] is set, else the gradient of the weights.
// dtype: 0 float32, 1 float64. sizes: kernel offsets, input rows, output rows, input channels, output channels, 1 for one offset after
// the other. data: feats, weight, grad, table, result; all contiguous.
// widest_isa: 0, 1 or 2, to run narrower code than the machine has. Returns 0, or 1 where memory ran out.
SD_EXPORT int32_t sparsedrive_sparse_conv(int32_t dtype, const int64_t* sizes, void* const* data, int64_t threads, int32_t widest_isa) {
  try {
    const Isa isa = std::min(best_isa(), static_cast<Isa>(widest_isa));
    return (dtype == 0 ? start<float>(sizes, data, threads, isa) : start<double>(sizes, data, threads, isa)) ? 0 : 1;
  } catch (...) {
    return 1;
  }
}
