"""Read files that may be damaged or foreign: whatever a loader raises becomes one line that names the file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

DIGEST = "digest"  # key of the metadata of a file of weights


class UnreadableError(ValueError):
    """A file that cannot be read; the message names it."""


@contextmanager
def readable(
    where: Path | str, what: str = "cannot be read, it is damaged or foreign", kind: type[ValueError] = UnreadableError
) -> Iterator[None]:
    """Turn whatever reading a file raises into an error of this kind and of one line."""
    try:
        yield
    except (UnreadableError, kind) as error:
        raise kind(str(error)) from None
    except Exception as error:
        raise kind(f"{shown(where)} {what}: {one_line(error)}") from None


def one_line(error: BaseException) -> str:
    """What an error says, in one line; of an error of torch.load without its advice to load the file anyway."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    if isinstance(error, KeyError):  # its text is a bare key
        said = ""
    said = said.strip().split("\n")[0] if "weights_only" in said else said
    return " ".join(shown(said).split())[:200] or type(error).__name__


def shown(name: Path | str) -> str:
    """A name of a file that can be printed, even if its bytes are no text."""
    return str(name).encode(errors="backslashreplace").decode()


# --- weights


def weights_file(weights: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """The content of a safetensors file of these weights, with a digest of them in its metadata."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    return save(plain, {**metadata, DIGEST: _digest(plain, metadata)})


def read_weights(
    path: Path | str, kind: type[ValueError] = UnreadableError
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file on the CPU, and its metadata. An error of this kind if its digest differs.

    A file without a digest, of an earlier version or another program, is read as it is.
    """
    with readable(path, kind=kind), safe_open(path, "pt") as file:
        metadata = dict(file.metadata() or {})
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        written = metadata.pop(DIGEST, None)
        if written is not None and written != _digest(weights, metadata):
            raise ValueError("its content is not what was written")
    return weights, metadata


def _digest(weights: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    state = hashlib.sha256(repr(sorted(metadata.items())).encode())
    for name, tensor in sorted(weights.items()):
        state.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
        state.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return state.hexdigest()[:32]
