// Kernel maps on a CPU: which input row meets which output row at each kernel offset, and which cells a convolution reaches.
//
// Cells become numbers whose order is that of (batch, x, y, z), sorted once by radix; then for one kernel offset the cells looked for
// are in order too, and one walk along both lists finds all pairs: no hash table, no search, the same result with any number of threads.

#include "common.h"

namespace {

constexpr int32_t OUT_OF_MEMORY = 1, TOO_WIDE = 2, DUPLICATES = 3;

struct Geometry {
  int64_t kernel[3], stride[3], start[3], dilation[3];
  int64_t offsets() const { return kernel[0] * kernel[1] * kernel[2]; }
  // Kernel index -> place along each axis. TorchSparse's order: x fastest if the number of offsets is odd, else z fastest.
  void place(int64_t index, int64_t* at) const {
    const bool odd = offsets() % 2 != 0;
    for (int i = 0; i < 3; ++i) {
      const int axis = odd ? i : 2 - i;
      at[axis] = index % kernel[axis];
      index /= kernel[axis];
    }
  }
};

// The smallest box around all cells. A cell's key is its place in it, z fastest.
struct Box {
  int64_t low[4] = {INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX}, high[4] = {INT64_MIN, INT64_MIN, INT64_MIN, INT64_MIN};
  int64_t step[4] = {0, 0, 0, 0};
  void include(int axis, int64_t value) {
    low[axis] = std::min(low[axis], value);
    high[axis] = std::max(high[axis], value);
  }
  bool finish() {  // false where keys would not fit into 62 bits
    double cells = 1;
    int64_t size = 1;
    for (int axis = 3; axis >= 0; --axis) {
      step[axis] = size;
      cells *= static_cast<double>(high[axis] - low[axis] + 1);
      if (cells > 4e18) return false;
      size *= high[axis] - low[axis] + 1;
    }
    return true;
  }
  int64_t key(const int64_t* cell) const {
    int64_t sum = 0;
    for (int axis = 0; axis < 4; ++axis) sum += (cell[axis] - low[axis]) * step[axis];
    return sum;
  }
  int64_t last() const { return key(high); }
};

struct Entry {
  int64_t key;
  int32_t row;
};

// By key, rows of one key in order. Digits of 11 bits from the lowest; nothing is done where the list is sorted already.
void sort(std::vector<Entry>& entries, int64_t largest) {
  const auto before = [](const Entry& a, const Entry& b) { return a.key < b.key; };
  if (std::is_sorted(entries.begin(), entries.end(), before)) return;
  std::vector<Entry> other(entries.size());
  for (int shift = 0; shift < 63 && (largest >> shift) > 0; shift += 11) {
    std::vector<size_t> start(2049, 0);
    for (const Entry& entry : entries) ++start[static_cast<size_t>((entry.key >> shift) & 2047) + 1];
    for (size_t i = 1; i < start.size(); ++i) start[i] += start[i - 1];
    for (const Entry& entry : entries) other[start[static_cast<size_t>((entry.key >> shift) & 2047)]++] = entry;
    entries.swap(other);
  }
}

template <class CellOf>
std::vector<Entry> sorted_entries(int64_t count, const Box& box, const CellOf& cell_of) {
  std::vector<Entry> entries(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    int64_t cell[4];
    cell_of(i, cell);
    entries[static_cast<size_t>(i)] = {box.key(cell), static_cast<int32_t>(i)};
  }
  sort(entries, box.last());
  return entries;
}

int32_t kernel_table(const int32_t* in, int64_t in_rows, const int32_t* out, int64_t out_rows, const Geometry& geometry, int32_t* in_of_out,
                     int32_t* out_of_in, int64_t threads) {
  if (in_rows == 0 || out_rows == 0) {
    std::fill_n(in_of_out, geometry.offsets() * out_rows, -1);
    std::fill_n(out_of_in, geometry.offsets() * in_rows, -1);
    return 0;
  }
  // A box that holds every cell looked for as well: then the key looked for is that of the output's first offset plus a constant.
  Box box;
  for (int64_t i = 0; i < in_rows; ++i)
    for (int axis = 0; axis < 4; ++axis) box.include(axis, in[i * 4 + axis]);
  const auto origin = [&](int64_t i, int64_t* cell) {
    cell[0] = out[i * 4];
    for (int axis = 0; axis < 3; ++axis) cell[axis + 1] = out[i * 4 + axis + 1] * geometry.stride[axis] + geometry.start[axis];
  };
  for (int64_t i = 0; i < out_rows; ++i) {
    int64_t cell[4];
    origin(i, cell);
    for (int axis = 0; axis < 4; ++axis) {
      box.include(axis, cell[axis]);
      if (axis > 0) box.include(axis, cell[axis] + (geometry.kernel[axis - 1] - 1) * geometry.dilation[axis - 1]);
    }
  }
  if (!box.finish()) return TOO_WIDE;
  const auto as_is = [&](int64_t i, int64_t* cell) { std::copy_n(in + i * 4, 4, cell); };
  const std::vector<Entry> inputs = sorted_entries(in_rows, box, as_is);
  const std::vector<Entry> outputs = sorted_entries(out_rows, box, origin);
  for (size_t i = 1; i < inputs.size(); ++i)
    if (inputs[i].key == inputs[i - 1].key) return DUPLICATES;
  const auto one_offset = [&](int64_t offset, int64_t) {
    int32_t *ins = in_of_out + offset * out_rows, *outs = out_of_in + offset * in_rows;
    std::fill_n(ins, out_rows, -1);
    std::fill_n(outs, in_rows, -1);
    int64_t at[3], shift = 0;
    geometry.place(offset, at);
    for (int axis = 0; axis < 3; ++axis) shift += at[axis] * geometry.dilation[axis] * box.step[axis + 1];
    const Entry *input = inputs.data(), *end = input + inputs.size();
    for (const Entry& output : outputs) {
      const int64_t wanted = output.key + shift;
      while (input != end && input->key < wanted) ++input;
      if (input == end) break;
      if (input->key != wanted) continue;
      ins[output.row] = input->row;
      outs[input->row] = output.row;
    }
  };
  return in_parallel(geometry.offsets(), 1, threads, one_offset) ? 0 : OUT_OF_MEMORY;
}

// Along one axis, all cells that a cell at `from` reaches, within low..high.
void reached_on_axis(const Geometry& geometry, bool transposed, int axis, int64_t from, int64_t low, int64_t high,
                     std::vector<int64_t>& out) {
  out.clear();
  const int64_t stride = geometry.stride[axis];
  for (int64_t j = 0; j < geometry.kernel[axis]; ++j) {
    const int64_t step = geometry.start[axis] + j * geometry.dilation[axis];
    int64_t cell = from * stride + step;
    if (!transposed) {
      if ((from - step) % stride != 0) continue;
      cell = (from - step) / stride;
    }
    if (low <= cell && cell <= high) out.push_back(cell);
  }
}

struct Cells {
  std::vector<int32_t> coords;  // [M, 4]
};

int32_t reached(const int32_t* in, int64_t rows, const Geometry& geometry, const int64_t* bounds, bool transposed, Cells& cells) {
  std::vector<int64_t> axis[3];
  const auto each = [&](const auto& body) {
    for (int64_t i = 0; i < rows; ++i) {
      for (int a = 0; a < 3; ++a) reached_on_axis(geometry, transposed, a, in[i * 4 + a + 1], bounds[a], bounds[3 + a], axis[a]);
      if (!axis[0].empty() && !axis[1].empty() && !axis[2].empty()) body(in[i * 4]);
    }
  };
  Box box;
  size_t count = 0;
  each([&](int64_t batch) {
    box.include(0, batch);
    for (int a = 0; a < 3; ++a) {
      box.include(a + 1, *std::min_element(axis[a].begin(), axis[a].end()));
      box.include(a + 1, *std::max_element(axis[a].begin(), axis[a].end()));
    }
    count += axis[0].size() * axis[1].size() * axis[2].size();
  });
  if (count == 0) return 0;
  if (!box.finish()) return TOO_WIDE;
  std::vector<Entry> entries;
  entries.reserve(count);
  each([&](int64_t batch) {
    for (const int64_t x : axis[0])
      for (const int64_t y : axis[1])
        for (const int64_t z : axis[2]) {
          const int64_t cell[4] = {batch, x, y, z};
          entries.push_back({box.key(cell), 0});
        }
  });
  sort(entries, box.last());
  int64_t previous = -1;
  for (const Entry& entry : entries) {
    if (entry.key == previous) continue;
    previous = entry.key;
    int64_t rest = entry.key;
    for (int a = 0; a < 4; ++a) {
      cells.coords.push_back(static_cast<int32_t>(rest / box.step[a] + box.low[a]));
      rest %= box.step[a];
    }
  }
  return 0;
}

Geometry geometry_of(const int64_t* numbers) {
  Geometry geometry;
  for (int axis = 0; axis < 3; ++axis) {
    geometry.kernel[axis] = numbers[axis];
    geometry.stride[axis] = numbers[3 + axis];
    geometry.start[axis] = numbers[6 + axis];
    geometry.dilation[axis] = numbers[9 + axis];
  }
  return geometry;
}

}  // namespace

// Fills in_of_out [K, out_rows] and out_of_in [K, in_rows] with rows, -1 for none:
// input cell = output cell * stride + start + j * dilation.
// geometry: kernel, stride, start, dilation, three each. Cells: int32 [rows, 4], batch first.
// Returns 0; 1 out of memory; 2 cells spread too wide for 62-bit keys; 3 two equal input cells.
SD_EXPORT int32_t sparsedrive_kernel_table(const int32_t* in, int64_t in_rows, const int32_t* out, int64_t out_rows,
                                           const int64_t* geometry, int32_t* in_of_out, int32_t* out_of_in, int64_t threads) {
  try {
    return kernel_table(in, in_rows, out, out_rows, geometry_of(geometry), in_of_out, out_of_in, threads);
  } catch (...) {
    return OUT_OF_MEMORY;
  }
}

// All cells the input cells reach, each once, sorted; bounds: lowest x, y, z, highest x, y, z. Their number goes to `count`, and what
// sparsedrive_take_cells has to be given to `handle`. Returns as above.
SD_EXPORT int32_t sparsedrive_reached_cells(const int32_t* in, int64_t rows, const int64_t* geometry, const int64_t* bounds,
                                            int32_t transposed, int64_t* count, void** handle) {
  try {
    auto cells = std::make_unique<Cells>();
    const int32_t failed = reached(in, rows, geometry_of(geometry), bounds, transposed != 0, *cells);
    if (failed) return failed;
    *count = static_cast<int64_t>(cells->coords.size() / 4);
    *handle = cells.release();
    return 0;
  } catch (...) {
    return OUT_OF_MEMORY;
  }
}

// Copies the cells to `out` [count, 4] and frees them.
SD_EXPORT void sparsedrive_take_cells(void* handle, int32_t* out) {
  const std::unique_ptr<Cells> cells(static_cast<Cells*>(handle));
  std::copy(cells->coords.begin(), cells->coords.end(), out);
}
