// What the CUDA library as a whole exports.

#include "common.cuh"

// The same number as INTERFACE in ../cuda_library.py.
SD_EXPORT int32_t sparsedrive_cuda_interface() { return 1; }

SD_EXPORT const char* sparsedrive_cuda_error(int32_t code) { return cudaGetErrorString(static_cast<cudaError_t>(code)); }
