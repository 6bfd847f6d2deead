"""Transitions on disk: append-only shards named by their content, and data sets."""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from smac_lab.data.buffer import TransitionBuffer
from smac_lab.data.lookup import LENGTH
from smac_lab.data.validation import check_dataset, check_spec
from smac_lab.tasks.family import MujocoFamily, TaskFamily
from smac_lab.tasks.spec import FamilySpec, Tasks

DATASET_FORMAT = 2
PARTIAL = ".partial_"  # prefix of unfinished files
LOCK = ".lock"  # file in a folder that only one process may use
SHARD_ROWS = 2**18  # at most per shard, unless one segment is longer


LONGEST = 1_000  # characters of a message, which may quote a damaged or hostile file


class StorageError(ValueError):
    """A file or folder is missing, damaged, or not the requested one."""

    def __init__(self, message: str):
        super().__init__(message if len(message) <= LONGEST else f"{message[:LONGEST]} ...")


def save_dataset(
    path: str | Path, buffer: TransitionBuffer, family: TaskFamily, tasks: Tasks, about: dict[str, Any]
) -> Path:
    """Write offline data as a folder: `dataset.json` and one shard.

    Args:
        path: created if missing.
        buffer: `tasks[i]` is its task `i`.
        family: of the transitions; the hash of its MJCF file is recorded.
        about: further entries of the record, serialisable as JSON.

    Raises:
        ValueError: the buffer fails `check_dataset`. Nothing is written then.
    """
    path = Path(path)
    checks = check_dataset(buffer, family, tasks)
    path.mkdir(parents=True, exist_ok=True)
    record = {
        "format": DATASET_FORMAT,
        "spec": family.spec._asdict(),
        "xml_sha256": family.xml_hash if isinstance(family, MujocoFamily) else None,
        "tasks": tasks.values.tolist(),
        "counts": buffer.counts.tolist(),
        "checks": checks,
        "buffer": save_shards(path, buffer, []),
        **about,
    }
    replace_text(path / "dataset.json", json.dumps(record, indent=1))
    return path


def load_dataset(path: str | Path, family: TaskFamily) -> tuple[TransitionBuffer, Tasks, dict[str, Any]]:
    """Read and check a data set written by `save_dataset`.

    Returns:
        Buffer, tasks and record.

    Raises:
        StorageError: files are missing or damaged, the data are of another family, variant or body, or fail
            `check_dataset`.
    """
    path = Path(path)
    record = read_json(path / "dataset.json")
    if record.get("format") != DATASET_FORMAT:
        raise StorageError(f"{path} has data format {record.get('format')!r}; this version reads {DATASET_FORMAT}")
    with reading(path / "dataset.json"):
        spec, tasks = FamilySpec(**record["spec"]), Tasks(record["tasks"])
        check_spec(spec, family.spec)
        check_body(record["xml_sha256"], family)
        buffer = load_shards(path, record["buffer"], spec, "cpu")
        checks = check_dataset(buffer, family, tasks)
        counts, written = record["counts"], record["checks"]["content_sha256"]
    if checks["transitions"] != counts:
        raise StorageError(f"{path} holds {checks['transitions']} transitions of its tasks, not {counts}")
    if checks["content_sha256"] != written:
        raise StorageError(f"{path} is damaged: its transitions and tasks are not those that were written")
    return buffer, tasks, record


def check_body(xml_sha256: str | None, family: TaskFamily) -> None:
    """Raise StorageError if the family has an MJCF file with another hash."""
    if isinstance(family, MujocoFamily) and xml_sha256 != family.xml_hash:
        raise StorageError(
            f"this data was made with another version of {family.xml} (SHA-256 {xml_sha256}) than the one installed "
            f"({family.xml_hash}); collect it anew"
        )


def save_shards(path: Path, buffer: TransitionBuffer, known: list[dict[str, Any]]) -> dict[str, Any]:
    """Write segments that no `known` shard contains to `path/buffer`, and return the record.

    A shard contains whole segments and their rows.
    """
    folder = path / "buffer"
    folder.mkdir(parents=True, exist_ok=True)
    rows, segments = buffer.rows, torch.from_numpy(buffer.segments)
    ends = torch.cat([torch.zeros(1, dtype=torch.int64), (segments[:, LENGTH] + 1).cumsum(0)])  # of segments, in rows

    def piece(first: int, last: int) -> dict[str, Tensor]:
        return {"rows": rows[ends[first] : ends[last]], "segments": segments[first:last]}

    shards, first = [], 0
    for shard in known:
        last = first + shard["segments"]
        if last > len(segments) or _digest(piece(first, last)) != shard["content_sha256"]:
            break
        shards.append(shard)
        first = last
    while first < len(segments):
        limit = int(torch.searchsorted(ends, ends[first] + SHARD_ROWS, right=True)) - 1
        last = max(first + 1, limit)
        new = {name: value.cpu().clone() for name, value in piece(first, last).items()}
        digest = _digest(new)
        file = folder / f"{digest[:32]}.safetensors"
        with replacing(file) as partial:
            write_tensors(new, partial)
        sizes = {name: len(value) for name, value in new.items()}
        shards.append({"file": file.name, **sizes, "content_sha256": digest, "sha256": file_sha256(file)})
        first = last
    return {"n_tasks": buffer.n_tasks, "seeds": buffer.seeds, "shards": shards}


def load_shards(path: Path, record: dict[str, Any], spec: FamilySpec, device: str) -> TransitionBuffer:
    """Read the buffer that `save_shards` recorded.

    Raises:
        StorageError: a shard is missing or damaged.
    """
    n_tasks, shards = record["n_tasks"], record["shards"]
    files = [inside(path / "buffer", shard["file"]) for shard in shards]
    on_disk = 0
    for file, shard in zip(files, shards, strict=True):
        check_hash(file, shard["sha256"])
        on_disk += file.stat().st_size
        if not 0 <= shard["rows"] * spec.obs_dim * 4 <= file.stat().st_size:
            raise StorageError(f"{file} is damaged: it is too small for {shard['rows']} rows")
    if not 0 < n_tasks <= max(on_disk, 1000):  # a buffer allocates per task
        raise StorageError(f"{path} records {n_tasks} tasks, more than its {on_disk} bytes can hold")
    empty = TransitionBuffer(spec, n_tasks, device)
    rows = torch.empty(sum(shard["rows"] for shard in shards), empty.rows.shape[1], device=device)
    segments, start = [empty.segments], 0
    for file, shard in zip(files, shards, strict=True):
        end = start + shard["rows"]
        try:
            piece = load_file(file, device=device)
        except SafetensorError as error:
            raise StorageError(f"{file} is damaged: {error}") from error
        if piece["rows"].shape != rows[start:end].shape:
            raise StorageError(f"{file} holds rows of {piece['rows'].shape}, needed are {rows[start:end].shape}")
        rows[start:end] = piece["rows"]
        segments.append(piece["segments"].cpu().numpy().copy())  # a view would keep the whole file mapped
        start = end
    return TransitionBuffer.from_rows(spec, n_tasks, rows, np.concatenate(segments), record["seeds"])


def claim_folder(
    folder: Path, record: dict[str, Any], grows: Mapping[str, Callable[[Path, Any], bool]] | None = None
) -> None:
    """Write `record` to `folder/config.json`, or check that an existing `config.json` has the same record.

    Args:
        folder: of a run or a data set.
        record: its settings.
        grows: lists that may get further entries later, such as seeds, by key; the function returns whether the
            folder has anything of an entry. Such entries must be in `record`; other stored ones are forgotten.

    Raises:
        StorageError: the stored record differs, lists entries that `record` lacks, or is damaged.
    """
    file = folder / "config.json"
    record = json.loads(json.dumps(record))
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        replace_text(file, json.dumps(record, indent=1))
        return
    stored = read_json(file)
    with reading(file):
        lists = {}
        for key, is_there in (grows or {}).items():
            kept = [entry for entry in stored[key] if entry in record[key] or is_there(folder, entry)]
            if lost := [entry for entry in kept if entry not in record[key]]:
                raise StorageError(
                    f"{folder} holds {key} {', '.join(map(str, lost))} too: name them as well, remove them, or choose "
                    "another --out"
                )
            lists[key] = kept + [entry for entry in record[key] if entry not in kept]
        changed = sorted(key for key in record if key not in lists and stored.get(key) != record[key])
        if "config" in changed:
            fields = set(record["config"]) | set(stored["config"])
            changed += [k for k in sorted(fields) if record["config"].get(k) != stored["config"].get(k)]
    if changed:
        raise StorageError(
            f"{folder} holds another experiment (it differs in {', '.join(changed)}); choose another --out"
        )
    if any(stored[key] != entries for key, entries in lists.items()):
        replace_text(file, json.dumps({**stored, **lists}, indent=1))


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Turn the errors of a damaged or hostile file into a StorageError that names it.

    Errors of the operating system pass unchanged.
    """
    try:
        yield
    except (StorageError, OSError):
        raise
    except (
        *(ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError),
        *(RuntimeError, MemoryError, SafetensorError, csv.Error),
    ) as error:
        what = f"it lacks {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
        raise StorageError(f"{path} cannot be read: {' '.join(what.split())[:500]}") from error


def inside(folder: Path, name: Any) -> Path:
    """Return the path of a file that a record names.

    Raises:
        StorageError: the name is not that of a file in `folder` itself.
    """
    if not isinstance(name, str) or name in ("", ".", "..") or Path(name).name != name or "\x00" in name:
        raise StorageError(f"{folder} refers to {str(name)[:100]!r}, which cannot be the name of a file in it")
    return folder / name


def check_widths(record: Mapping[str, Any], file: Path) -> None:
    """Raise StorageError if a record's layers are wider than its file of parameters can fill.

    Args:
        record: layer sizes, integers or lists of them; other values are ignored.
        file: parameters, in half precision or wider.
    """
    most = file.stat().st_size // 2
    for name, value in record.items():
        sizes = [one for one in (value if isinstance(value, (list, tuple)) else [value]) if isinstance(one, int)]
        if max([*sizes, *(a * b for a, b in itertools.pairwise(sizes))], default=0) > most:
            raise StorageError(f"{file} is too small for layers of {name}={str(value)[:100]}")


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object from a file.

    Raises:
        StorageError: the file is missing or has no JSON object.
    """
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StorageError(f"{file} is missing or damaged: {error}") from error
    if not isinstance(value, dict):
        raise StorageError(f"{file} does not hold a JSON object")
    return value


def check_hash(file: Path, expected: str) -> None:
    """Compare a file with its recorded hash.

    Raises:
        StorageError: the file is missing or its hash differs.
    """
    if not file.is_file():
        raise StorageError(f"{file} is missing")
    if file_sha256(file) != expected:
        raise StorageError(
            f"{file} is damaged: its {file.stat().st_size} bytes do not have the SHA-256 recorded when it was written"
        )


def file_sha256(file: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_tensors(tensors: dict[str, Tensor], file: Path) -> None:
    """Write named tensors as safetensors.

    Raises:
        OSError: the file cannot be written.
    """
    try:
        save_file(tensors, file)
    except SafetensorError as error:
        raise OSError(f"{file} cannot be written: {error}") from error


def replace_text(file: Path, text: str) -> None:
    """Replace a text file in one step, so that readers see all or nothing of it."""
    with replacing(file) as partial:
        partial.write_text(text, encoding="utf-8")


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Yield a temporary path, and rename it to `file`, or remove it if writing fails."""
    partial = file.with_name(f"{PARTIAL}{os.getpid()}_{file.name}")
    try:
        yield partial
        os.replace(partial, file)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def holding(folder: Path) -> Iterator[None]:
    """Lock a folder against other processes, and remove partial files of a killed one.

    The lock ends with the process, even a killed one. The file `.lock` remains.

    Raises:
        StorageError: another process has locked the folder, or it cannot be written.
    """
    lock = filelock.FileLock(folder / LOCK, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except filelock.Timeout:
        raise StorageError(f"another process is at work in {folder}; wait for it, or choose another --out") from None
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise StorageError(f"{folder} cannot be a folder to write in: {error}") from error
    try:
        remove_partial(folder)
        yield
    finally:
        lock.release()


def remove_partial(folder: Path) -> None:
    """Remove partial files below a folder, except in subfolders with a lock."""
    for path in folder.iterdir():
        if path.name.startswith(PARTIAL):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        elif path.is_dir() and not path.is_symlink() and not (path / LOCK).exists():
            remove_partial(path)


def _digest(columns: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for column in columns.values():
        digest.update(column.cpu().contiguous().numpy().data)
    return digest.hexdigest()
