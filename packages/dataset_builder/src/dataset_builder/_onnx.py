"""One-thread ONNX Runtime sessions of the small networks."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class OnnxNetwork:
    """A network with one input and one output on the CPU, in one thread.

    Raises:
        ImportError: onnxruntime is not installed; the message names the extra.
        ValueError: the file is damaged or no ONNX network.
    """

    def __init__(self, path: Path) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise ImportError(f"{path.name} needs onnxruntime: pip install 'neo3df-dataset-builder[photos]'") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3  # exporters' warnings about constant folding are not the user's business
        try:
            self._session: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own exceptions have no common public base
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ValueError(f"{path}: not a readable ONNX network ({reason[:160]})") from error
        self._input = self._session.get_inputs()[0].name

    def __call__(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """The network's output for an input of the shape it was exported with."""
        result: NDArray[np.float32] = self._session.run(None, {self._input: np.ascontiguousarray(values)})[0]
        return result
