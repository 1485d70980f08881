"""K-means that exist: centroids from NumPy, PyTorch, safetensors, scikit-learn and faiss files."""

import io
import pickletools
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spintok._files import require
from spintok.models.codebook import Codebook, CodebookConfig
from spintok.models.importers.pickled import Call, read_pickled
from spintok.models.importers.read import one_line, read_checkpoint
from spintok.models.importers.weights import CheckpointError, check_weights

__all__ = ["Centroids", "read_centroids"]

# The first instruction of files of torch.save before 1.6 is this number.
_TORCH_MAGIC = 0x1950A86A20F9469CFC6C


@dataclass(frozen=True)
class Centroids:
    """A K-means.

    Attributes:
        codewords: (K, E) float32.
        rotation: weight (E, D) and bias (E,) of a linear map from features to the space of the codewords; None if they
            lie in the space of the features.
    """

    codewords: Tensor
    rotation: tuple[Tensor, Tensor] | None = None

    def codebook(self, name: str = "primary") -> Codebook:
        """The codebook that gives a feature the number of its nearest centroid."""
        size, width = self.codewords.shape
        features = width if self.rotation is None else self.rotation[0].shape[1]
        book = Codebook(CodebookConfig(name, size, features, width, "l2", projection=self.rotation is not None))
        weights = {"codewords": self.codewords}
        if self.rotation is not None:
            weights |= {"projection.weight": self.rotation[0], "projection.bias": self.rotation[1]}
        book.load_state_dict(weights)
        return book


def read_centroids(path: Path) -> Centroids:
    """The centroids of a K-means, recognised by the file's content; no code in it is run.

    Args:
        path: ``.npy``; ``.safetensors`` or ``.pt`` with one matrix; ``KMeans`` or ``MiniBatchKMeans`` of scikit-learn
            as joblib or pickle writes it (``.bin``, ``.pkl``, ``.joblib``); or an index of faiss: flat, IVF, or IVF
            after a linear transform, of which the coarse quantizer is read.

    Raises:
        CheckpointError: one line: the file is missing, damaged, unsafe, or holds something else.
        MissingPackageError: an index needs faiss.
    """
    try:
        return _checked(_read(path))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: there is no such file") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or one_line(error)}") from None
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _read(path: Path) -> Centroids:
    with path.open("rb") as file:
        head = file.read(64)
    if head[:6] == b"\x93NUMPY":
        try:
            return Centroids(_matrix(np.load(path, allow_pickle=False)))
        except (ValueError, EOFError, MemoryError) as error:
            raise CheckpointError(f"it is no array of numbers: {one_line(error)}") from None
    if path.suffix == ".index" or head[:4] in (b"IxF2", b"IwFl", b"IxPT", b"IwPQ"):
        return _from_faiss(path)
    if path.suffix == ".safetensors" or zipfile.is_zipfile(path) or head[8:9] == b"{" or _is_old_torch(head):
        return Centroids(_only_matrix(read_checkpoint(path)))
    return Centroids(_from_sklearn(read_pickled(path)))


def _is_old_torch(head: bytes) -> bool:
    with suppress(ValueError):
        for code, argument, _ in pickletools.genops(io.BytesIO(head)):
            if code.name != "PROTO":
                return bool(argument == _TORCH_MAGIC)
    return False


def _from_sklearn(found: Any) -> Tensor:
    if isinstance(found, np.ndarray):
        return _matrix(found)
    name = found.name if isinstance(found, Call) else type(found).__name__
    if isinstance(found, Call) and not name.endswith("KMeans"):
        raise CheckpointError(f"it holds a {name.replace(' ', '.')}, not a K-means of scikit-learn")
    state = found.state if isinstance(found, Call) else found
    if not isinstance(state, Mapping) or not isinstance(state.get("cluster_centers_"), np.ndarray):
        raise CheckpointError(f"it holds a {name.replace(' ', '.')} without cluster_centers_: it was not fitted")
    return _matrix(state["cluster_centers_"])


def _only_matrix(found: Any) -> Tensor:
    """The one matrix in a checkpoint; others that are smaller, such as counts, have other dimensions."""
    matrices = {name: tensor for name, tensor in _tensors(found, "") if tensor.ndim == 2 and tensor.is_floating_point()}
    centers = {name: tensor for name, tensor in matrices.items() if name.endswith("cluster_centers_")}
    matrices = centers or matrices
    if len(matrices) != 1:
        names = ", ".join(f"{name or 'the whole file'} {tuple(one.shape)}" for name, one in [*matrices.items()][:5])
        raise CheckpointError(f"it must hold one matrix, the centroids; it holds {names or 'none'}")
    (matrix,) = matrices.values()
    return matrix.detach().float()


def _tensors(found: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(found, Tensor):
        yield name, found
    elif isinstance(found, Mapping):
        for key, value in found.items():
            yield from _tensors(value, f"{name}.{key}".lstrip("."))


def _matrix(array: np.ndarray[Any, Any]) -> Tensor:
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        raise CheckpointError(f"centroids are a matrix of numbers, not {array.shape} of {array.dtype}")
    return torch.from_numpy(np.array(array, dtype=np.float32, order="C"))


def _from_faiss(path: Path) -> Centroids:
    faiss = require("faiss", extra="faiss", purpose=f"{path}: an index of faiss")
    try:
        # It owns the parts below, which must not outlive it.
        whole = faiss.read_index(str(path))
    except RuntimeError as error:
        raise CheckpointError(f"it is no index that faiss reads: {one_line(error)}") from None
    index = faiss.downcast_index(whole)
    rotation = None
    if isinstance(index, faiss.IndexPreTransform):
        if index.chain.size() != 1:
            raise CheckpointError(f"its {index.chain.size()} transforms are more than the one that spintok reads")
        linear = faiss.downcast_VectorTransform(index.chain.at(0))
        if not isinstance(linear, faiss.LinearTransform):
            raise CheckpointError(f"its transform is a {type(linear).__name__}, not a linear one")
        weight = faiss.vector_to_array(linear.A).reshape(linear.d_out, linear.d_in)
        bias = faiss.vector_to_array(linear.b) if linear.have_bias else np.zeros(linear.d_out, np.float32)
        rotation = (torch.from_numpy(weight.copy()), torch.from_numpy(bias.copy()))
        index = faiss.downcast_index(index.index)
    if isinstance(index, faiss.IndexIVF):
        # The cells of an IVF index are the clusters: the coarse quantizer holds their centroids.
        index = faiss.downcast_index(index.quantizer)
    if index.metric_type != faiss.METRIC_L2 or index.ntotal == 0:
        raise CheckpointError("its centroids are not compared by L2 distance, or it has none")
    return Centroids(torch.from_numpy(index.reconstruct_n(0, index.ntotal).copy()), rotation)


def _checked(found: Centroids) -> Centroids:
    weights = {"centroids": found.codewords}
    if found.rotation is not None:
        weights |= {"rotation": found.rotation[0], "bias": found.rotation[1]}
    check_weights(weights)
    if 0 in found.codewords.shape:
        raise CheckpointError(f"it has centroids of the shape {tuple(found.codewords.shape)}")
    return found
