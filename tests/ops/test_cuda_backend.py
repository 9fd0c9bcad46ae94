"""The CUDA C++ kernels without a GPU: compiled by nvcc for three kinds of it, and run on a CPU by `emulated_cuda/`."""

import ctypes
import importlib.util
import os
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import kernel_checks as checks
import pytest
import torch

from sparsedrive.ops import backend_report, build_cuda, cuda_library
from sparsedrive.ops.deformable_aggregation.samples import Sample, random_sample

daf, focal = (importlib.import_module(f"sparsedrive.ops.{op}.cuda") for op in ("deformable_aggregation", "sigmoid_focal_loss"))
HERE = Path(__file__).parent
CXX = os.environ.get("CXX", "c++")
needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc: the CUDA kernels are not compiled")


# ---- built or not


@pytest.mark.slow
@needs_nvcc
def test_compiles_loads_and_reports_errors(tmp_path, monkeypatch):
    """For an A100, an H100 and a B200. Without a GPU the library loads all the same, and a launch is an error that says so."""
    path = tmp_path / cuda_library.FILE_NAME
    done = subprocess.run(build_cuda.command(("80", "90a", "100"), path), capture_output=True, text=True)
    assert done.returncode == 0 and "warning" not in done.stderr, done.stderr
    loaded = cuda_library.load(tmp_path)
    assert isinstance(loaded, ctypes.CDLL), loaded
    if torch.cuda.is_available():
        return
    monkeypatch.setattr(cuda_library, "library", lambda: loaded)
    monkeypatch.setattr(cuda_library, "_place", lambda like: (0, None))
    with pytest.raises(RuntimeError, match=r"sparsedrive_cuda_deformable_aggregation: CUDA says '.*'; if the library was built for other"):
        checks.outcome(daf, random_sample())


def test_missing_library_has_a_reason(tmp_path):
    assert str(cuda_library.load(tmp_path)) == "not built: `python -m sparsedrive.ops.build_cuda` builds it, where there is nvcc"
    (tmp_path / cuda_library.FILE_NAME).write_bytes(b"not a library")
    assert str(cuda_library.load(tmp_path)).startswith("built, but it does not load (")


def test_the_report_says_why_it_is_not_there():
    rows = [row for row in backend_report() if row.backend == "cuda" and row.op in ("deformable_aggregation", "sigmoid_focal_loss")]
    assert len(rows) == 2
    assert all(row.available == (cuda_library.why_missing() is None) and (row.available or row.reason) for row in rows)


def test_nothing_to_build_for_is_an_error():
    with pytest.raises(SystemExit, match="no compiler 'no-such-nvcc'"):
        build_cuda.main(build_cuda.Options(nvcc="no-such-nvcc"))
    if not torch.cuda.is_available():
        with pytest.raises(SystemExit, match="no GPU here to build for"):
            build_cuda.main(build_cuda.Options(nvcc=CXX))


@needs_nvcc
def test_a_failed_build_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(cuda_library, "FOLDER", tmp_path)
    (tmp_path / "broken.cu").write_text("this is not C++")
    (tmp_path / cuda_library.FILE_NAME).write_text("as before")
    with pytest.raises(SystemExit, match="nothing was changed"):
        build_cuda.main(build_cuda.Options(arch=("90",)))
    assert (tmp_path / cuda_library.FILE_NAME).read_text() == "as before"


# ---- the same numbers, emulated


@pytest.fixture(scope="session", params=["scalar_atomics", "vector_atomics"])
def emulated_library(request, tmp_path_factory):
    """The kernels compiled for the CPU; as for a GPU that adds one number at a time, and as for one that adds four."""
    if shutil.which(CXX) is None:
        pytest.skip(f"no C++ compiler {CXX!r}: the CUDA kernels are not emulated")
    path = tmp_path_factory.mktemp("emulated") / f"{request.param}.so"
    sources = [str(source) for source in sorted(cuda_library.FOLDER.glob("*.cu"))]
    flags = ["-std=c++17", "-O1", "-shared", "-fPIC", "-ffp-contract=off", "-w", f"-I{HERE / 'emulated_cuda'}"]
    if request.param == "vector_atomics":
        flags.append("-D__CUDA_ARCH__=900")
    done = subprocess.run([CXX, *flags, "-o", str(path), "-x", "c++", *sources], capture_output=True, text=True)
    if "_Float16" in done.stderr:
        pytest.skip(f"{CXX} has no _Float16: the CUDA kernels are not emulated")
    assert done.returncode == 0, done.stderr
    loaded = ctypes.CDLL(str(path))
    loaded.sparsedrive_cuda_error.restype = ctypes.c_char_p
    return loaded


@pytest.fixture
def emulated(emulated_library, monkeypatch):
    """The backend's own Python code on the emulated library."""
    monkeypatch.setattr(cuda_library, "library", lambda: emulated_library)
    monkeypatch.setattr(cuda_library, "_place", lambda like: (0, None))


pytestmark = pytest.mark.filterwarnings("error")


@pytest.mark.usefixtures("emulated")
class TestEmulated:
    """Each with both kinds of atomics."""

    @pytest.mark.parametrize("dtype", checks.TOLERANCE)
    @pytest.mark.parametrize(
        "sizes",
        [
            {},
            {"channels": 64, "groups": 2},
            {"channels": 96, "groups": 8},
            {"channels": 40, "groups": 1},
            {"channels": 7, "groups": 7, "cameras": 1},
            {"channels": 33, "groups": 3, "cameras": 8},
            {"level_hw": (1, 9, 7, 1, 3, 5, 1, 1), "groups": 1},
        ],
        ids=["plain", "32_a_group", "12_a_group", "40_a_group", "1_a_group", "odd_8_cameras", "odd_levels"],
    )
    def test_agrees_with_the_reference(self, sizes, dtype):
        checks.assert_agrees(daf, random_sample(dtype=dtype, **sizes))

    @pytest.mark.parametrize(("per_anchor", "cameras"), [(600, 2), (1024, 1), (1, 1), (43, 3)])
    def test_lists_longer_than_a_block(self, per_anchor, cameras):
        sample = random_sample(batch=1, anchors=2, per_anchor=per_anchor, cameras=cameras, channels=8, groups=2)
        checks.assert_agrees(daf, sample)

    def test_everything_visible(self):
        sample = random_sample(batch=1, anchors=2, per_anchor=300, channels=8, groups=2)
        checks.assert_agrees(daf, sample._replace(points=(sample.points + 0.5) / 2.001 + 1e-4))

    def test_float32_points_beside_half_features(self):
        sample = random_sample(dtype=torch.float16)
        checks.assert_agrees(daf, sample._replace(points=sample.points.float(), weights=sample.weights.float()))

    def test_borders(self):
        checks.assert_borders(daf)

    @pytest.mark.parametrize("channels", [16, 6])
    def test_reads_only_its_arguments(self, channels):
        checks.assert_reads_only_its_arguments(daf, channels=channels, anchors=20)

    @pytest.mark.parametrize("needs", checks.NEEDS)
    def test_only_wanted_gradients(self, needs):
        checks.assert_only_wanted_gradients(daf, needs)

    def test_nothing_visible(self):
        sample = random_sample()
        assert all((tensor == 0).all() for tensor in checks.outcome(daf, sample._replace(points=sample.points - 5)))

    @pytest.mark.parametrize("sizes", [{"anchors": 0}, {"per_anchor": 0}, {"batch": 0}], ids=["anchors", "points", "batch"])
    def test_empty(self, sizes):
        assert all((tensor == 0).all() for tensor in checks.outcome(daf, random_sample(**sizes)))

    def test_not_contiguous(self):
        sample = random_sample()
        strided = Sample(*(value.mT.contiguous().mT if isinstance(value, torch.Tensor) else value for value in sample))
        checks.assert_close(checks.outcome(daf, strided), checks.exact(sample), checks.TOLERANCE[torch.float32])

    def test_deterministic_mode_sums_the_features_gradient_in_order(self):
        sample = random_sample()
        torch.use_deterministic_algorithms(True)
        try:
            checks.assert_agrees(daf, sample)
        finally:
            torch.use_deterministic_algorithms(False)

    def test_too_many_levels(self):
        with pytest.raises(ValueError, match="level_hw: backend 'cuda' takes at most 16 levels, got 17"):
            checks.outcome(daf, random_sample(level_hw=(1, 1) * 17))

    @pytest.mark.skipif(not checks.UNIT.exists(), reason=f"no golden file {checks.UNIT}; name its folder in SPARSEDRIVE_GOLDEN")
    @pytest.mark.parametrize("group", ["daf_small", "daf_mid", "daf_inrange"])
    def test_golden(self, group):
        checks.assert_golden(daf, group)

    @pytest.mark.parametrize("clamp_log", [False, True])
    @pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
    @pytest.mark.parametrize("dtype", checks.TOLERANCE)
    def test_focal_loss_agrees_with_the_reference(self, dtype, gamma, clamp_log):
        checks.assert_focal_agrees(focal, dtype, gamma, clamp_log)

    def test_focal_loss_of_nothing(self):
        empty, target = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
        assert focal.forward(empty, target, 0.25, 2.0, False).shape == (0, 4)


# ---- the kernel the benchmark compares with

BASELINE = HERE.parents[1] / "benchmarks" / "baselines" / "published_style.py"


def baseline():
    spec = importlib.util.spec_from_file_location("published_style", BASELINE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@needs_nvcc
@pytest.mark.slow
def test_the_baseline_compiles(tmp_path):
    done = subprocess.run(baseline().build_command("90", tmp_path / "baseline.so"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_baseline_is_right_too(tmp_path, monkeypatch):
    if shutil.which(CXX) is None:
        pytest.skip(f"no C++ compiler {CXX!r}: the baseline is not emulated")
    path = tmp_path / "baseline.so"
    command = [CXX, "-std=c++17", "-O1", "-shared", "-fPIC", "-w", f"-I{HERE / 'emulated_cuda'}", "-o", str(path), "-x", "c++"]
    subprocess.run([*command, str(BASELINE.with_suffix(".cu"))], check=True)
    module, sample = baseline(), random_sample(channels=16)
    monkeypatch.setattr(module, "_library", lambda: ctypes.CDLL(str(path)))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(cuda_stream=0))
    got = [module.forward(sample), *module.backward(sample, checks.output_gradient(sample))]
    checks.assert_close(got, checks.exact(sample), checks.TOLERANCE[torch.float32])
    assert module.fits(sample) and not module.fits(random_sample(dtype=torch.bfloat16))


def test_the_emulator_notices_threads_that_wait_for_ever(tmp_path):
    """Else a kernel with a missing barrier partner would pass here and hang on a GPU."""
    if shutil.which(CXX) is None:
        pytest.skip(f"no C++ compiler {CXX!r}")
    source = tmp_path / "stuck.cpp"
    source.write_text("""
        #include "cuda_runtime.h"
        void half_come() { if (threadIdx.x < 16) __shfl_xor_sync(0xffffffffu, 1, 1); }
        extern "C" int stuck() { cudaLaunchConfig_t config = {}; config.gridDim = dim3(1); config.blockDim = dim3(32);
                                 return cudaLaunchKernelEx(&config, half_come); }
    """)
    flags = ["-std=c++17", "-shared", "-fPIC", "-w", f"-I{HERE / 'emulated_cuda'}"]
    subprocess.run([CXX, *flags, "-o", str(tmp_path / "stuck.so"), str(source)], check=True)
    assert ctypes.CDLL(str(tmp_path / "stuck.so")).stuck() == 702
