"""Reading the weights of networks from files, with one clear line for whatever can be wrong with such a file."""

import hashlib
import pickle
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

_NAMED_KEYS = 3


def read_checkpoint(path: Path) -> object:
    """What a PyTorch checkpoint holds; no code in the file is run.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is truncated or no PyTorch checkpoint.
    """
    _check_file(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path}: not a readable PyTorch checkpoint ({_first_line(error)})") from error


def read_state(path: Path, under: str = "state_dict") -> dict[str, Tensor]:
    """State dict of a PyTorch checkpoint; no code in the file is run.

    A dict of tensors, or one that holds it under the key ``under``; a "module." before every key is taken away.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is truncated, is no PyTorch checkpoint, or holds no state dict.
    """
    content = read_checkpoint(path)
    if isinstance(content, Mapping) and isinstance(content.get(under), Mapping):
        content = content[under]
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise ValueError(f"{path}: holds no state dict, but {type(content).__name__}")
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and header of a safetensors file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is truncated or no safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    _check_file(path)
    try:
        with safe_open(path, "pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path}: not a readable safetensors file ({_first_line(error)})") from error


def fill_network(network: nn.Module, state: Mapping[str, Tensor], path: Path, ignored: tuple[str, ...] = ()) -> None:
    """Give a network the weights of a state dict that must fit exactly; keys that start as ``ignored`` are left out.

    A network on the "meta" device, which has no weights yet, takes the tensors of the state dict as its own.

    Raises:
        ValueError: keys are missing or left over, shapes differ, or a weight is not finite; one line names some.
    """
    wanted = network.state_dict()
    given = {key: value for key, value in state.items() if not key.startswith(ignored)} if ignored else dict(state)
    # An old checkpoint may lack the counters of batch normalisation; evaluation does not use them.
    counters = (key for key in wanted if key not in given and key.endswith("num_batches_tracked"))
    given |= {key: torch.zeros_like(wanted[key], device="cpu") for key in counters}
    reshaped = [
        f"{key} {tuple(given[key].shape)} for {tuple(value.shape)}"
        for key, value in wanted.items()
        if key in given and given[key].shape != value.shape
    ]
    broken = [key for key in wanted if key in given and not torch.isfinite(given[key]).all()]
    faults = [
        *_fault("missing", [key for key in wanted if key not in given]),
        *_fault("not expected", [key for key in given if key not in wanted]),
        *_fault("of another shape", reshaped),
        *_fault("not finite", broken),
    ]
    if faults:
        raise ValueError(f"{path}: not the weights of {type(network).__name__}: {'; '.join(faults)}")
    unmade = any(value.is_meta for value in wanted.values())
    network.load_state_dict({key: given[key].to(wanted[key].dtype) for key in wanted}, assign=unmade)


def file_sha256(path: Path) -> str:
    """Hex digest of a file, computed once as long as the file stays as it is."""
    stat = path.stat()
    return _file_sha256(path, stat.st_size, stat.st_mtime_ns)


def state_sha256(network: nn.Module) -> str:
    """Hex digest of a network's weights: names, types, shapes and values."""
    digest = hashlib.sha256()
    for key, value in sorted(network.state_dict().items()):
        digest.update(f"{key} {value.dtype} {tuple(value.shape)} ".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@lru_cache
def _file_sha256(path: Path, size: int, modified_ns: int) -> str:  # size and time make a changed file a new key
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such weights file")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


def _fault(what: str, keys: list[str]) -> list[str]:
    more = f" and {len(keys) - _NAMED_KEYS} more" if len(keys) > _NAMED_KEYS else ""
    return [f"{len(keys)} {what} ({', '.join(keys[:_NAMED_KEYS])}{more})"] if keys else []
