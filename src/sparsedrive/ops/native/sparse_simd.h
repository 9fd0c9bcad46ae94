// The vector arithmetic of sparse convolution, compiled once an instruction set: included several times by sparse_conv.cpp, each time
// with SD_SET (name of a namespace), SD_FN (attributes of its functions) and SD_WIDTH (bytes of a vector register; 0: any machine's).
// Functions of one set may be inlined only into functions of the same set, which is why all of them carry SD_FN.

namespace SD_SET {

// A register of T and what can be done with it.
template <class T>
struct Vec;

#if SD_WIDTH == 64
template <>
struct Vec<float> {
  using V = __m512;
  static constexpr int lanes = 16;
  SD_FN static V load(const float* p) { return _mm512_loadu_ps(p); }
  SD_FN static void store(float* p, V v) { _mm512_storeu_ps(p, v); }
  SD_FN static V spread(float x) { return _mm512_set1_ps(x); }
  SD_FN static V add_product(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
};
template <>
struct Vec<double> {
  using V = __m512d;
  static constexpr int lanes = 8;
  SD_FN static V load(const double* p) { return _mm512_loadu_pd(p); }
  SD_FN static void store(double* p, V v) { _mm512_storeu_pd(p, v); }
  SD_FN static V spread(double x) { return _mm512_set1_pd(x); }
  SD_FN static V add_product(V a, V b, V c) { return _mm512_fmadd_pd(a, b, c); }
};
#elif SD_WIDTH == 32
template <>
struct Vec<float> {
  using V = __m256;
  static constexpr int lanes = 8;
  SD_FN static V load(const float* p) { return _mm256_loadu_ps(p); }
  SD_FN static void store(float* p, V v) { _mm256_storeu_ps(p, v); }
  SD_FN static V spread(float x) { return _mm256_set1_ps(x); }
  SD_FN static V add_product(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
};
template <>
struct Vec<double> {
  using V = __m256d;
  static constexpr int lanes = 4;
  SD_FN static V load(const double* p) { return _mm256_loadu_pd(p); }
  SD_FN static void store(double* p, V v) { _mm256_storeu_pd(p, v); }
  SD_FN static V spread(double x) { return _mm256_set1_pd(x); }
  SD_FN static V add_product(V a, V b, V c) { return _mm256_fmadd_pd(a, b, c); }
};
#else
template <class T>
struct Vec {
  static constexpr int lanes = 16 / sizeof(T);
#if defined(__GNUC__)
  typedef T V __attribute__((vector_size(16)));
#else
  struct V {
    T at[lanes];
    T& operator[](int i) { return at[i]; }
    T operator[](int i) const { return at[i]; }
  };
#endif
  SD_FN static V load(const T* p) {
    V v;
    std::memcpy(&v, p, sizeof v);
    return v;
  }
  SD_FN static void store(T* p, V v) { std::memcpy(p, &v, sizeof v); }
  SD_FN static V spread(T x) {
    V v;
    for (int i = 0; i < lanes; ++i) v[i] = x;
    return v;
  }
  SD_FN static V add_product(V a, V b, V c) {
    for (int i = 0; i < lanes; ++i) c[i] = multiply_add<BASE_HAS_FMA>(a[i], b[i], c[i]);
    return c;
  }
};
#endif

// Columns are done in blocks of 4, 2 or 1 registers. Each has as many rows at once as sums fit into the registers there are.
template <int COLUMNS>
constexpr int rows_at_once() {
  if (SD_WIDTH == 64) return COLUMNS == 4 ? 6 : COLUMNS == 2 ? 12 : 16;
  return SD_WIDTH == 32 ? (COLUMNS == 2 ? 6 : 8) : 4;
}
constexpr int WIDEST = SD_WIDTH == 64 ? 4 : 2;
constexpr int MOST_ROWS = 16;

// sums[m][:] += row m . weight, for M rows and one block of columns; weight is [depth, block].
template <class T, int M, int COLUMNS>
SD_FN void add_rows(const T* const* rows, int64_t first, int64_t depth, const T* weight, T* const* sums, int64_t column) {
  using S = Vec<T>;
  typename S::V sum[M][COLUMNS];
  const T* row[M];
  for (int m = 0; m < M; ++m) {
    row[m] = rows[m] + first;
    for (int n = 0; n < COLUMNS; ++n) sum[m][n] = S::load(sums[m] + column + n * S::lanes);
  }
  for (int64_t c = 0; c < depth; ++c, weight += COLUMNS * S::lanes) {
    typename S::V w[COLUMNS];
    for (int n = 0; n < COLUMNS; ++n) w[n] = S::load(weight + n * S::lanes);
    for (int m = 0; m < M; ++m) {
      const typename S::V x = S::spread(row[m][c]);
      for (int n = 0; n < COLUMNS; ++n) sum[m][n] = S::add_product(x, w[n], sum[m][n]);
    }
  }
  for (int m = 0; m < M; ++m)
    for (int n = 0; n < COLUMNS; ++n) S::store(sums[m] + column + n * S::lanes, sum[m][n]);
}

// All pairs of one kernel offset times one block of columns. rows and sums have MOST_ROWS entries more than `pairs`, safe to use.
template <class T, int COLUMNS>
SD_FN void add_block(const T* const* rows, T* const* sums, int64_t pairs, int64_t depth, const T* weight, int64_t column) {
  constexpr int M = rows_at_once<COLUMNS>();
  constexpr int64_t DEPTH = 128;  // of the weights that stay in the nearest cache
  for (int64_t first = 0; first < depth; first += DEPTH) {
    const int64_t part = std::min(DEPTH, depth - first);
    const T* w = weight + first * COLUMNS * Vec<T>::lanes;
    for (int64_t p = 0; p < pairs; p += M) add_rows<T, M, COLUMNS>(rows + p, first, part, w, sums + p, column);
  }
}

// sums[m][:] += sum over pairs of left[p][row + m] * right[p][column:], for M rows and one block of columns.
template <class T, int M, int COLUMNS>
SD_FN void add_outer(const T* const* left, int64_t row, const T* const* right, int64_t column, int64_t pairs, T* sums, int64_t width) {
  using S = Vec<T>;
  typename S::V sum[M][COLUMNS];
  for (int m = 0; m < M; ++m)
    for (int n = 0; n < COLUMNS; ++n) sum[m][n] = S::load(sums + m * width + n * S::lanes);
  for (int64_t p = 0; p < pairs; ++p) {
    const T *l = left[p] + row, *r = right[p] + column;
    typename S::V y[COLUMNS];
    for (int n = 0; n < COLUMNS; ++n) y[n] = S::load(r + n * S::lanes);
    for (int m = 0; m < M; ++m) {
      const typename S::V x = S::spread(l[m]);
      for (int n = 0; n < COLUMNS; ++n) sum[m][n] = S::add_product(x, y[n], sum[m][n]);
    }
  }
  for (int m = 0; m < M; ++m)
    for (int n = 0; n < COLUMNS; ++n) S::store(sums + m * width + n * S::lanes, sum[m][n]);
}

// Entry points, one per type of numbers. Everything above is inlined into them.
template <class T>
struct Simd {
  static constexpr int lanes = Vec<T>::lanes;
  static constexpr int widest = WIDEST;
  static constexpr int outer_rows = 4;

  SD_SET_TARGET static void forward(const T* const* rows, T* const* sums, int64_t pairs, int64_t depth, const T* weight, int64_t columns) {
    int64_t column = 0;
    for (; columns - column >= WIDEST * lanes; column += WIDEST * lanes)
      add_block<T, WIDEST>(rows, sums, pairs, depth, weight + column * depth, column);
    if (WIDEST == 4 && columns - column >= 2 * lanes) {
      add_block<T, 2>(rows, sums, pairs, depth, weight + column * depth, column);
      column += 2 * lanes;
    }
    if (columns > column) add_block<T, 1>(rows, sums, pairs, depth, weight + column * depth, column);
  }

  // sums [left_width, right_width] += left^T right, of `pairs` rows each; widths are multiples of outer_rows and lanes.
  SD_SET_TARGET static void outer(const T* const* left, int64_t left_width, const T* const* right, int64_t right_width, int64_t pairs,
                                  T* sums) {
    for (int64_t row = 0; row < left_width; row += outer_rows) {
      T* line = sums + row * right_width;
      int64_t column = 0;
      for (; right_width - column >= WIDEST * lanes; column += WIDEST * lanes)
        add_outer<T, outer_rows, WIDEST>(left, row, right, column, pairs, line + column, right_width);
      for (; column < right_width; column += lanes)
        add_outer<T, outer_rows, 1>(left, row, right, column, pairs, line + column, right_width);
    }
  }
};

}  // namespace SD_SET
