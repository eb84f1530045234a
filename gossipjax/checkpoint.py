"""Keeping a run's state on disk, so that an interrupted run resumes where it stopped."""

from __future__ import annotations

import hashlib
import json
import logging
import pathlib
import re
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.tree_util import Partial

from gossipjax import spread
from gossipjax.engine import first_event, with_slots
from gossipjax.types import Protocol, Timeline

logging.getLogger("absl").setLevel(logging.WARNING)


def fingerprint(protocol: Protocol, timeline: Timeline, start: Any, observers: Any, pieces: Any) -> str:
    """Hash what a run computes: the program of one event and all arrays that go into it (data, start, plan).

    Numbers that are compiled in, such as the learning rate of ``optax.sgd(0.1)``, are part of the program's text.
    """

    def one_event(protocol: Protocol, timeline: Timeline, start: Any) -> Any:
        key = jax.random.key(0)
        x0 = with_slots(start(key) if isinstance(start, Partial) else start, timeline.properties)
        return protocol.step(key, protocol.init(key, x0), first_event(key, timeline))

    with spread.using("vmap"):  # the same run on another number of devices is the same run
        program = jax.make_jaxpr(one_event)(protocol, timeline, start)
    digest = hashlib.sha256(re.sub("0x[0-9a-f]+", "", f"{program} {pieces}").encode())
    for leaf in jax.tree.leaves((protocol, timeline.xs, timeline.static, start, observers, program.consts)):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


class Checkpoint:
    """The last finished piece of one run: protocol state and records, written by Orbax (atomically)."""

    def __init__(self, folder: pathlib.Path, identity: dict[str, Any]):
        """Open a folder for one run, whose ``identity`` (key and configuration) a resumed run must share.

        Raises:
            ValueError: the folder holds another run, or its parent does not exist.
        """
        folder = folder.absolute()
        if not folder.parent.is_dir():
            raise ValueError(f"no folder {folder.parent} to make the checkpoint {folder.name} in; make it first")
        folder.mkdir(exist_ok=True)
        self._identity = json.loads(json.dumps(identity))
        self._note = folder / "run.json"
        if self._note.is_file():
            found = json.loads(self._note.read_text())
            if found != self._identity:
                changed = sorted(
                    k for k in found.keys() | self._identity.keys() if found.get(k) != self._identity.get(k)
                )
                raise ValueError(
                    f"{folder} holds another run (it differs in {', '.join(changed)}); pass another folder"
                )
        else:
            self._note.write_text(json.dumps(self._identity))
        options = ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(folder / "pieces", options=options)

    def restore(self, state: Any) -> tuple[int, Any, dict[str, Any]] | None:
        """Return the number of pieces done, the state (in the given one's form) and the records; None: a new run."""
        latest = self._manager.latest_step()
        if latest is None:
            return None
        leaves, structure = jax.tree.flatten(state)
        form = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding) for leaf in leaves]
        saved = self._manager.restore(
            latest, args=ocp.args.Composite(state=ocp.args.StandardRestore(form), log=ocp.args.StandardRestore())
        )
        return latest, jax.tree.unflatten(structure, saved["state"]), saved["log"]

    def save(self, done: int, state: Any, log: dict[str, Any]) -> None:
        """Keep the state after ``done`` pieces; earlier ones are removed once it is safe on disk."""
        arrays = jax.tree.map(np.atleast_1d, log)
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(jax.tree.leaves(state)), log=ocp.args.StandardSave(arrays)
        )
        self._manager.save(done, args=args)
