"""Reading the folder of a published model: the most memory that it takes."""

from benchmarks.suite import file_workloads
from benchmarks.suite.benchmark import Benchmark

timeout = 120


class Loading(Benchmark):
    """Peak memory that loading adds to a process, over the model's bytes; libraries' counts."""

    version = "1"
    unit = "× the model's bytes"
    params = (tuple(file_workloads.FAMILIES), ("float32", "bfloat16"))
    param_names = ("family", "dtype")

    def setup(self, family: str, dtype: str) -> None:
        self.folder, self.config = file_workloads.saved(family)

    def teardown(self, family: str, dtype: str) -> None:
        self.folder.cleanup()

    def track_peak_over_weights(self, family: str, dtype: str) -> float:
        return file_workloads.peak_over_weights(self.folder.name, self.config, dtype)
