// Sigmoid focal loss on a GPU: one thread an element. The formulas stand in ../sigmoid_focal_loss/reference.py.

#include "common.cuh"

namespace {

template <class F, class T>
struct Job {
  int64_t count, classes;
  T alpha, gamma, log_floor;
  bool clamp_log;
  const F* logits;        // [N, K]
  const int64_t* target;  // [N]
  const F* grad;          // [N, K]
  F* loss;                // [N, K]; null: grad_logits is wanted
  F* grad_logits;         // [N, K]
};

// Of one element, and of its truth: probability of being right and of being wrong, logarithm of the first, wrong^gamma.
template <class T>
struct Terms {
  T right, wrong, log_right, focus;
};

template <class T>
__device__ __forceinline__ Terms<T> clamped_terms(T logit, bool positive, T gamma, T log_floor) {
  const T probability = 1 / (1 + exp(-logit));
  const T right = positive ? probability : 1 - probability, wrong = positive ? 1 - probability : probability;
  return {right, wrong, log(right > log_floor ? right : log_floor), pow(wrong, gamma)};
}

template <class T>
__device__ __forceinline__ Terms<T> exact_terms(T logit, bool positive, T gamma) {
  const T truth = positive ? logit : -logit;
  const T small = exp(-fabs(truth)), rest = log1p(small);
  const T likely = 1 / (1 + small), unlikely = small / (1 + small);
  const T log_right = (truth < 0 ? truth : 0) - rest, log_wrong = (truth > 0 ? -truth : 0) - rest;
  return {truth > 0 ? likely : unlikely, truth > 0 ? unlikely : likely, log_right, exp(gamma * log_wrong)};
}

template <class F, class T>
__global__ void __launch_bounds__(THREADS) focal_kernel(Job<F, T> job) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x;
  if (i >= job.count) return;
  const T logit = widen(job.logits[i]);
  const bool positive = job.target[i / job.classes] == i % job.classes;
  const Terms<T> terms = job.clamp_log ? clamped_terms(logit, positive, job.gamma, job.log_floor) : exact_terms(logit, positive, job.gamma);
  const T scale = (positive ? job.alpha : 1 - job.alpha) * terms.focus;
  if (job.loss) return narrow(-scale * terms.log_right, job.loss[i]);
  const T slope = scale * (terms.wrong - job.gamma * terms.right * terms.log_right);
  narrow(widen(job.grad[i]) * (positive ? -slope : slope), job.grad_logits[i]);
}

template <class F>
cudaError_t start(const int64_t* sizes, const double* options, bool clamp_log, void* const* data, cudaStream_t stream) {
  using T = typename SumOf<F>::type;
  const Job<F, T> job{sizes[0] * sizes[1], sizes[1], static_cast<T>(options[0]), static_cast<T>(options[1]), static_cast<T>(options[2]),
                      clamp_log, static_cast<const F*>(data[0]), static_cast<const int64_t*>(data[1]), static_cast<const F*>(data[2]),
                      static_cast<F*>(data[3]), static_cast<F*>(data[4])};
  return launch(focal_kernel<F, T>, (job.count + THREADS - 1) / THREADS, stream, job);
}

}  // namespace

// Loss where data[3] is set, else the gradient of the logits. Returns a cudaError_t.
// dtype: 0 float32, 1 float64, 2 bfloat16, 3 float16 (of all but target, which is int64). sizes: N, K. options: alpha, gamma, smallest
// number under the logarithm. data: logits, target, grad, loss, grad_logits; all contiguous.
SD_EXPORT int32_t sparsedrive_cuda_sigmoid_focal_loss(int32_t dtype, const int64_t* sizes, const double* options, int32_t clamp_log,
                                                      void* const* data, int32_t device, void* stream_pointer) {
  const cudaError_t failed = cudaSetDevice(device);
  if (failed != cudaSuccess) return failed;
  const auto stream = static_cast<cudaStream_t>(stream_pointer);
  if (dtype == 0) return start<float>(sizes, options, clamp_log, data, stream);
  if (dtype == 1) return start<double>(sizes, options, clamp_log, data, stream);
  if (dtype == 2) return start<__nv_bfloat16>(sizes, options, clamp_log, data, stream);
  return start<__half>(sizes, options, clamp_log, data, stream);
}
