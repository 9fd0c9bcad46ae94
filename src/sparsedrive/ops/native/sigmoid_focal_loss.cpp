// Sigmoid focal loss on a CPU, one pass over the logits each way. The formulas stand in ../sigmoid_focal_loss/reference.py.
//
// F is the type of logits, loss and gradients, T that of what is computed. Every element is computed by itself, so any number of threads
// gives the same bits. For float, exponential and logarithm are polynomials, good to about two units in the last place, because the
// compiler can make vectors of those; for double they are the library's.

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-trapping-math")  // nobody asks which operation overflowed; else selecting keeps loops from becoming vectors
#endif

#include <limits>

#include "common.h"

namespace {

constexpr int64_t CHUNK = 2048;  // elements whose sides are noted at once; rows are not split

template <class F, class T>
struct Job {
  int64_t rows, classes;
  T alpha, gamma, log_floor;
  bool clamp_log;
  const F* logits;        // [N, K]
  const int64_t* target;  // [N]
  const F* grad;          // [N, K]
  F* loss;                // [N, K]; null: grad_logits is wanted
  F* grad_logits;         // [N, K]
};

SD_INLINE float from_bits(uint32_t bits) {
  float out;
  std::memcpy(&out, &bits, sizeof out);
  return out;
}

SD_INLINE uint32_t to_bits(float value) {
  uint32_t out;
  std::memcpy(&out, &value, sizeof out);
  return out;
}

// e^x, 0 below the smallest normal number, infinity above the largest; NaN stays.
template <bool FMA>
SD_INLINE float exponential(float x) {
  constexpr float LOWEST = -87.33654f, HIGHEST = 88.72283f, SHIFT = 12582912.0f;  // 1.5 * 2^23: what is added to it becomes an integer
  const float not_low = x < LOWEST ? LOWEST : x, clamped = not_low > HIGHEST ? HIGHEST : not_low;
  const float shifted = multiply_add<FMA>(clamped, 1.44269504f, SHIFT), twos = shifted - SHIFT;
  const float rest = multiply_add<FMA>(twos, 2.12194440e-4f, multiply_add<FMA>(twos, -0.693359375f, clamped));  // within ln 2 / 2
  float sum = 1.0f / 5040;
  sum = multiply_add<FMA>(sum, rest, 1.0f / 720);
  sum = multiply_add<FMA>(sum, rest, 1.0f / 120);
  sum = multiply_add<FMA>(sum, rest, 1.0f / 24);
  sum = multiply_add<FMA>(sum, rest, 1.0f / 6);
  sum = multiply_add<FMA>(sum, rest, 0.5f);
  sum = multiply_add<FMA>(sum, rest * rest, rest) + 1.0f;
  // 2^twos in two factors: 2^128 alone is no number
  const uint32_t power = (to_bits(shifted) - to_bits(SHIFT)) + 254u, half = power >> 1;
  const float value = sum * from_bits(half << 23) * from_bits((power - half) << 23);
  const float not_small = x < LOWEST ? 0.0f : value;
  return x > HIGHEST ? std::numeric_limits<float>::infinity() : not_small;
}

template <bool FMA>
SD_INLINE double exponential(double x) {
  return std::exp(x);
}

// log((1 + s) / (1 - s)) for |s| <= 1/3
template <bool FMA>
SD_INLINE float log_of_ratio(float s) {
  const float square = s * s;
  float sum = 1.0f / 15;
  sum = multiply_add<FMA>(sum, square, 1.0f / 13);
  sum = multiply_add<FMA>(sum, square, 1.0f / 11);
  sum = multiply_add<FMA>(sum, square, 1.0f / 9);
  sum = multiply_add<FMA>(sum, square, 1.0f / 7);
  sum = multiply_add<FMA>(sum, square, 1.0f / 5);
  sum = multiply_add<FMA>(sum, square, 1.0f / 3);
  return 2 * multiply_add<FMA>(sum * square, s, s);
}

// log(1 + x) for x in 0..1
template <bool FMA>
SD_INLINE float log_above_one(float x) {
  return log_of_ratio<FMA>(x / (2 + x));
}

template <bool FMA>
SD_INLINE double log_above_one(double x) {
  return std::log1p(x);
}

// log(x) of a normal number or of 0; NaN stays.
template <bool FMA>
SD_INLINE float logarithm(float x) {
  constexpr uint32_t ROOT_HALF = 0x3f3504f3u;  // mantissas from sqrt(1/2) to sqrt(2)
  const uint32_t shifted = to_bits(x) - ROOT_HALF;
  const auto twos = static_cast<float>(static_cast<int32_t>(shifted) >> 23);
  const float mantissa = from_bits((shifted & 0x7fffffu) + ROOT_HALF);
  const float rest = log_of_ratio<FMA>((mantissa - 1) / (mantissa + 1));
  const float value = multiply_add<FMA>(twos, 0.693359375f, multiply_add<FMA>(twos, -2.12194440e-4f, rest));
  const float positive = x > 0 ? value : -std::numeric_limits<float>::infinity();
  return x == x ? positive : x;
}

template <bool FMA>
SD_INLINE double logarithm(double x) {
  return std::log(x);
}

// Of one element, and of its truth: probability of being right and of being wrong, and the logarithm of the first.
template <class T>
struct Terms {
  T right, wrong, log_right;
};

template <class T, bool FMA>
SD_INLINE Terms<T> clamped_terms(T logit, bool positive, T log_floor) {
  const T probability = 1 / (1 + exponential<FMA>(-logit)), other = 1 - probability;
  const T right = positive ? probability : other, wrong = positive ? other : probability;
  return {right, wrong, logarithm<FMA>(right < log_floor ? log_floor : right)};
}

template <class T, bool FMA>
SD_INLINE Terms<T> exact_terms(T logit, bool positive) {
  const T truth = positive ? logit : -logit;
  const T small = exponential<FMA>(-std::fabs(logit)), likely = 1 / (1 + small), unlikely = small * likely;
  const T log_right = (truth > 0 ? T(0) : truth) - log_above_one<FMA>(small);
  return {truth > 0 ? likely : unlikely, truth > 0 ? unlikely : likely, log_right};
}

// wrong^gamma
template <class T, bool SQUARE, bool FMA>
SD_INLINE T focus(T wrong, T gamma) {
  if constexpr (SQUARE) return wrong * wrong;
  const T power = exponential<FMA>(gamma * logarithm<FMA>(wrong));
  return gamma == 0 ? T(1) : power;
}

// Elements begin..end, which are `side` (1: the target's column) noted from `begin` on.
template <class F, class T, bool CLAMP, bool SQUARE, bool LOSS, bool FMA>
SD_INLINE void elements(const Job<F, T>& job, int64_t begin, int64_t count, const T* SD_RESTRICT side) {
  const F* SD_RESTRICT logits = job.logits + begin;
  const F* SD_RESTRICT grad = LOSS ? logits : job.grad + begin;
  F* SD_RESTRICT out = (LOSS ? job.loss : job.grad_logits) + begin;
  const T alpha = job.alpha, gamma = job.gamma, log_floor = job.log_floor;
  SD_SIMD
  for (int64_t i = 0; i < count; ++i) {
    const bool positive = side[i] > 0;
    const T logit = widen(logits[i]);
    Terms<T> terms;
    if constexpr (CLAMP)
      terms = clamped_terms<T, FMA>(logit, positive, log_floor);
    else
      terms = exact_terms<T, FMA>(logit, positive);
    const T scale = (positive ? alpha : 1 - alpha) * focus<T, SQUARE, FMA>(terms.wrong, gamma);
    if constexpr (LOSS)
      narrow(-scale * terms.log_right, out[i]);
    else
      narrow(-side[i] * widen(grad[i]) * scale * (terms.wrong - gamma * terms.right * terms.log_right), out[i]);
  }
}

// Rows begin..end.
template <class F, class T, bool CLAMP, bool SQUARE, bool LOSS, bool FMA>
SD_INLINE void rows_of(const Job<F, T>& job, int64_t begin, int64_t end) {
  const int64_t classes = job.classes, step = std::max<int64_t>(1, CHUNK / classes);
  Buffer<T> side_memory(step * classes);
  T* side = side_memory.data();
  for (int64_t first = begin; first < end; first += step) {
    const int64_t last = std::min(first + step, end), count = (last - first) * classes;
    std::fill(side, side + count, T(-1));
    for (int64_t row = first; row < last; ++row)
      if (job.target[row] >= 0 && job.target[row] < classes) side[(row - first) * classes + job.target[row]] = 1;
    elements<F, T, CLAMP, SQUARE, LOSS, FMA>(job, first * classes, count, side);
  }
}

template <class F, class T, bool FMA>
SD_INLINE void some_rows(const Job<F, T>& job, int64_t begin, int64_t end) {
  const bool square = job.gamma == 2, loss = job.loss != nullptr;
  if (job.clamp_log && square && loss) return rows_of<F, T, true, true, true, FMA>(job, begin, end);
  if (job.clamp_log && square) return rows_of<F, T, true, true, false, FMA>(job, begin, end);
  if (job.clamp_log && loss) return rows_of<F, T, true, false, true, FMA>(job, begin, end);
  if (job.clamp_log) return rows_of<F, T, true, false, false, FMA>(job, begin, end);
  if (square && loss) return rows_of<F, T, false, true, true, FMA>(job, begin, end);
  if (square) return rows_of<F, T, false, true, false, FMA>(job, begin, end);
  if (loss) return rows_of<F, T, false, false, true, FMA>(job, begin, end);
  return rows_of<F, T, false, false, false, FMA>(job, begin, end);
}

// The same code for each instruction set: what is inlined into these functions is compiled for theirs.
#define SD_KERNEL(NAME, TARGET, FMA)                                                       \
  template <class F, class T>                                                              \
  TARGET void NAME(const Job<F, T>& job, int64_t begin, int64_t end) {                     \
    some_rows<F, T, FMA>(job, begin, end);                                                 \
  }
SD_KERNEL(run_base, , BASE_HAS_FMA)
#if SD_X86_DISPATCH
SD_KERNEL(run_avx2, SD_TARGET_AVX2, true)
SD_KERNEL(run_avx512, SD_TARGET_AVX512, true)
#endif

template <class F, class T>
bool start(const int64_t* sizes, const double* options, bool clamp_log, void* const* data, int64_t threads, Isa isa) {
  const Job<F, T> job{sizes[0], sizes[1], static_cast<T>(options[0]), static_cast<T>(options[1]), static_cast<T>(options[2]), clamp_log,
                      static_cast<const F*>(data[0]), static_cast<const int64_t*>(data[1]), static_cast<const F*>(data[2]),
                      static_cast<F*>(data[3]), static_cast<F*>(data[4])};
  auto run = run_base<F, T>;
#if SD_X86_DISPATCH
  if (isa == Isa::avx512) run = run_avx512<F, T>;
  if (isa == Isa::avx2) run = run_avx2<F, T>;
#endif
  // a thread costs as much as some ten thousand elements
  const int64_t grain = std::max<int64_t>(1, 16 * CHUNK / job.classes);
  return in_parallel(job.rows, grain, threads, [&](int64_t begin, int64_t end) { run(job, begin, end); });
}

}  // namespace

// Loss where data[3] is set, else the gradient of the logits. Returns 0, or 1 where memory ran out.
// dtype: 0 float32, 1 float64, 2 bfloat16 (of all but target, which is int64). sizes: N, K. options: alpha, gamma, smallest number under
// the logarithm. data: logits, target, grad, loss, grad_logits; all contiguous. widest_isa: 0, 1 or 2, to run narrower code than the
// machine has.
SD_EXPORT int32_t sparsedrive_sigmoid_focal_loss(int32_t dtype, const int64_t* sizes, const double* options, int32_t clamp_log,
                                                 void* const* data, int64_t threads, int32_t widest_isa) {
  try {
    const Isa isa = std::min(best_isa(), static_cast<Isa>(widest_isa));
    if (dtype == 0) return start<float, float>(sizes, options, clamp_log, data, threads, isa) ? 0 : 1;
    if (dtype == 1) return start<double, double>(sizes, options, clamp_log, data, threads, isa) ? 0 : 1;
    return start<Bfloat16, float>(sizes, options, clamp_log, data, threads, isa) ? 0 : 1;
  } catch (...) {
    return 1;
  }
}
