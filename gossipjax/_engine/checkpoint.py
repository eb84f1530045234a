"""Save the state of a run on disk, so that an interrupted run resumes and a finished one can be continued."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from gossipjax._base import hosts
from gossipjax._base.arguments import instance
from gossipjax._base.leaves import in_form, plain
from gossipjax._base.locks import Held, take_lock
from gossipjax._base.paths import replacing

FORMAT = "gossipjax-checkpoint-2"
_DAMAGE = (ValueError, KeyError, TypeError, AttributeError, OSError, EOFError, zipfile.BadZipFile, zlib.error)
"""What NumPy raises for incomplete files."""
KEPT = 2
"""Number of pieces kept: if the newest is damaged, the one before is used."""


class Part(NamedTuple):
    """State and records of a run after its first ``done`` events."""

    done: int
    state: Any
    records: dict[str, Any]
    plan: str
    """Hash of those events."""


class Checkpoint:
    """A folder with the last finished pieces of one run, one file each, written atomically.

    Every file says which run it belongs to. So does ``run.json``, in a form that people can read, by which another run
    is refused early. A process that works in the folder holds the lock ``lock``, which is released when the process
    ends for whatever reason.
    """

    def __init__(self, folder: str | os.PathLike[str], identity: dict[str, Any]):
        """Name a folder for one run, whose ``identity`` a resumed run must share.

        Raises:
            TypeError: if the folder is not a path.
        """
        instance("checkpoint", folder, (str, os.PathLike), "pass a folder, such as 'runs/first'")
        self.folder = pathlib.Path(folder).absolute()
        self._identity = json.loads(json.dumps({"format": FORMAT, **identity}))
        self._lock: Any = None

    def __enter__(self) -> Checkpoint:
        """Open the folder.

        Raises:
            ValueError: if its parent does not exist, another process works in it, or it holds another run or a damaged
                ``run.json``.
        """
        folder = self.folder
        if not folder.parent.is_dir():
            raise ValueError(f"no folder {folder.parent} to make the checkpoint {folder.name} in; make it first")
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"checkpoint={folder}: is a file; pass a folder")
        try:
            folder.mkdir(exist_ok=True)
            self._take_lock()
        except OSError as error:
            raise ValueError(
                f"checkpoint={folder}: cannot be made or written to ({error}); pass a folder where you may write"
            ) from error
        try:
            for left in (*folder.glob(".after-*"), *folder.glob(".run.json.*")):  # of a process that was killed
                left.unlink(missing_ok=True)
            self._compare_note()
        except BaseException:
            self._lock.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        """Let other processes work in the folder."""
        self._lock.close()

    def _take_lock(self) -> None:
        try:
            self._lock = take_lock(self.folder / "lock")
        except Held as error:
            raise ValueError(
                f"{self.folder} is in use by {error.holder}; wait for it to end, or pass another folder"
            ) from None

    def _compare_note(self) -> None:
        note = self.folder / "run.json"
        if note.exists():
            try:
                found = json.loads(note.read_text(encoding="utf-8"))
            except (OSError, ValueError, RecursionError) as error:
                raise ValueError(
                    f"{note} is damaged ({error}): delete this one file to go on with the run, or the folder "
                    f"{self.folder} to begin again"
                ) from error
            self._compare(found)
        else:
            for path in self._pieces()[-1:]:
                with_piece(path, self._compare)
            with replacing(note) as temporary:
                temporary.write_text(json.dumps(self._identity, indent=1), encoding="utf-8")

    def _compare(self, found: Any) -> None:
        if found != self._identity:
            kept = found if isinstance(found, dict) else {}
            names = kept.keys() | self._identity.keys()
            changed = sorted(name for name in names if kept.get(name) != self._identity.get(name))
            raise ValueError(
                f"{self.folder} holds another run (it differs in {', '.join(changed)}); pass another folder"
            )

    def _pieces(self) -> list[pathlib.Path]:
        """Files of pieces, the newest last."""
        return sorted(self.folder.glob("after-*.npz"))

    def restore(self, state: Any) -> Part | None:
        """Return the newest complete piece, its state in the form of ``state``; None for a new run.

        Raises:
            ValueError: if the pieces belong to another run, or all of them are damaged.
        """
        pieces, reasons = self._pieces(), []
        for path in reversed(pieces):
            try:
                arrays = read_piece(path)
            except ValueError as error:
                reasons.append(str(error))
                continue
            self._compare(json.loads(str(arrays["identity"])))
            if reasons:
                warnings.warn(f"{reasons[0]}; going on from {path.name}, the piece before", stacklevel=2)
            records = {name.removeprefix("log/"): value for name, value in arrays.items() if name.startswith("log/")}
            leaves = [arrays[f"leaf_{number}"] for number in range(len(jax.tree.leaves(state)))]
            return Part(int(arrays["done"]), in_form(leaves, state), records, str(arrays["plan"]))
        if pieces:
            raise ValueError(
                f"every piece in {self.folder} is damaged ({reasons[0]}); delete the folder to begin again"
            )
        return None

    def save(self, done: int, state: Any, records: dict[str, Any], plan: str) -> None:
        """Save the state after ``done`` events, then remove all but the last :data:`KEPT` pieces.

        Raises:
            OSError: if it cannot be written (disk full, no permission). No partial file is left; earlier pieces stay.
        """
        arrays = {f"leaf_{number}": plain(leaf) for number, leaf in enumerate(jax.tree.leaves(state))}
        arrays |= {f"log/{name}": np.asarray(value) for name, value in records.items()}
        about = {"identity": json.dumps(self._identity), "plan": plan, "done": done}
        with replacing(self.folder / f"after-{done:015d}.npz") as temporary, temporary.open("wb") as file:
            np.savez(file, **{name: np.asarray(value) for name, value in about.items()}, **arrays)  # type: ignore[arg-type]
        for old in self._pieces()[:-KEPT]:
            old.unlink(missing_ok=True)


class Follower(Checkpoint):
    """The folder of a run as processes other than the first see it: they read it, and write nothing."""

    def __enter__(self) -> Follower:
        """Open the folder, which process 0 holds."""
        return self

    def __exit__(self, *error: object) -> None:
        """Leave it."""

    def save(self, done: int, state: Any, records: dict[str, Any], plan: str) -> None:
        """Leave it to process 0."""


@contextlib.contextmanager
def open_checkpoint(folder: str | os.PathLike[str], identity: dict[str, Any]) -> Iterator[Checkpoint]:
    """Open the folder of a run, on each of the processes that do it together.

    Raises:
        ValueError: as :class:`Checkpoint` says, on process 0.
        RuntimeError: on the other processes, if process 0 cannot open it.
    """
    with contextlib.ExitStack() as stack:
        held = hosts.first_alone(lambda: stack.enter_context(Checkpoint(folder, identity)))
        yield Follower(folder, identity) if held is None else held


def read_piece(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Read all arrays of a piece; the file format holds checksums of them.

    Raises:
        ValueError: if the file is cut short, damaged, or not a piece.
    """
    try:
        with path.open("rb") as file:  # np.load(path) would leave the file open where it cannot be read
            archive = np.load(file, allow_pickle=False)
            arrays = {name: archive[name] for name in archive.files}
        json.loads(str(arrays["identity"])), str(arrays["plan"]), int(arrays["done"])
    except _DAMAGE as error:
        raise ValueError(f"{path} is cut short or damaged ({error})") from error
    return arrays


def with_piece(path: pathlib.Path, compare: Any) -> None:
    """Compare the identity of a piece with that of the run, if the piece can be read."""
    try:
        arrays = read_piece(path)
    except ValueError:
        return
    compare(json.loads(str(arrays["identity"])))
