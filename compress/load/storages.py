"""Whether a TorchScript archive holds as many bytes as it says: torch reads on past the end of what is shorter."""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

from compress.errors import ModelError
from compress.load.weights import Skipped

BYTES = {
    "Double": 8, "Float": 4, "Half": 2, "BFloat16": 2, "Long": 8, "Int": 4, "Short": 2, "Char": 1, "Byte": 1, "Bool": 1,
    "ComplexFloat": 8, "ComplexDouble": 16, "QInt8": 1, "QUInt8": 1, "QInt32": 4,
}  # fmt: skip
"""Of a value, by the first part of the name of torch's storage of it."""


class _Sizes(pickle.Unpickler):
    """Reads a pickle for the storages that it names, and makes nothing of it."""

    def __init__(self, data: bytes):
        super().__init__(io.BytesIO(data))
        self.found: dict[str, int] = {}

    def find_class(self, module: str, name: str) -> Any:
        size = BYTES.get(name.removesuffix("Storage")) if module == "torch" else None
        return type(name, (Skipped,), {"size": size})

    def persistent_load(self, pid: Any) -> Any:
        _, storage, key, _, count, *_ = pid
        size = getattr(storage, "size", None)
        if isinstance(key, str) and isinstance(count, int) and size is not None:
            self.found[key] = max(self.found.get(key, 0), count * size)
        return Skipped()


def check_storages(path: Path) -> None:
    """Raises ModelError, naming the file and what is too short in it; other errors where it is no such archive."""
    with zipfile.ZipFile(path) as archive:
        held = {entry.filename.partition("/")[2]: entry.file_size for entry in archive.infolist()}
        root = archive.namelist()[0].partition("/")[0]
        for folder in ("data", "constants"):
            if f"{folder}.pkl" not in held:
                continue
            sizes = _Sizes(archive.read(f"{root}/{folder}.pkl"))
            sizes.load()
            for key, size in sizes.found.items():
                name = f"{folder}/{key}"
                if (has := held.get(name, 0)) < size:
                    raise ModelError(
                        f"{path}: is damaged: {name} has {has} bytes and should have {size}; save it again"
                    )
