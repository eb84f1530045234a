"""The section SHARING: what nodes send, and with which weights they average."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from gossipjax.compress import top_k as top_k_of
from gossipjax.compress.codes import Wire, elias_gamma, int32_indices
from gossipjax.compress.transforms import identity, wavelet
from gossipjax.decentralizepy._ini import Kind, Section, flag, positive, share, shares, word
from gossipjax.sharing import choco, full, jwins, random_subset
from gossipjax.types import Sharing

FPZIP = (37, 40)
"""Size of float32 weights after fpzip, over their size before (:class:`gossipjax.compress.codes.Wire`)."""
WIRES = {
    "Elias": Wire(elias_gamma),
    "EliasFpzip": Wire(elias_gamma, value_ratio=FPZIP),
}
_DECODES_WRONG = "its quantisation decodes values to about a fifth of what they were, so that its runs mean nothing"
NO_WIRE = {
    "EliasFpzipLossy": "lossy fpzip is not modelled here",
    "EliasQuantization": _DECODES_WRONG,
    "Quantization": _DECODES_WRONG,
    "Lz4Wrapper": "the sizes of lz4 are not modelled here",
}
_SERVER = "needs a server, which a graph of equal nodes does not have"


class Sent(NamedTuple):
    """What a section SHARING says."""

    sharing: Sharing
    plain: bool
    """Whether neighbours and node have equal weights, instead of those of Metropolis."""
    notes: tuple[str, ...] = ()


_COMMON = {
    "sharing_package": word(),
    "sharing_class": word(),
    "compress": flag(False),
    "compression_package": word(),
    "compression_class": word(),
}
_CHANGES = {
    "metadata_cap": share(1.0),
    "accumulation": flag(False),
    "accumulate_averaging_changes": flag(False),
    "dict_ordered": flag(True),
    "save_shared": flag(False),
    "save_accumulated": word(),
}
_WAVELET = _CHANGES | {
    "wavelet": word("haar"),
    "level": Kind(int, "a whole number", 4),
    "change_based_selection": flag(True),
}


UNUSED = {
    "dict_ordered": "the parameters of a model have one order here",
    "save_shared": "nodes write no files here",
    "save_accumulated": "nodes write no files here",
}


def _wire(section: Section, given: dict[str, Any]) -> Wire:
    if not given["compress"]:
        return Wire(int32_indices)
    return WIRES[section.choose("compression_class", WIRES, NO_WIRE)]


def _notes(section: Section, given: dict[str, Any]) -> tuple[str, ...]:
    unused = section.unused(UNUSED)
    if given["compress"] and given["compression_class"] == "EliasFpzip":
        return (f"fpzip: values count {FPZIP[0]}/{FPZIP[1]} of their size, its mean on float32 weights", *unused)
    return unused


def _whole(section: Section) -> Sent:
    given = section.take(_COMMON)
    if given["compress"]:
        section.refuse("compress", "whole models are sent as they are here; use False")
    return Sent(full(), given["sharing_class"] == "PlainAverageSharing")


def _accumulate(given: dict[str, Any]) -> Literal["round", "training", "nothing"]:
    if not given["accumulation"]:
        return "nothing"
    return "round" if given["accumulate_averaging_changes"] else "training"


def _by_change(section: Section, more: dict[str, Kind], transform: Callable[[dict[str, Any]], Any]) -> Sent:
    """Map the classes that send the largest changes."""
    given = section.take(_COMMON | more)
    sharing = jwins(
        given["alpha_list"] if "alpha_list" in given else (given["alpha"],),
        cap=given["metadata_cap"],
        transform=transform(given),
        accumulate=_accumulate(given),
        rank_by="change" if given.get("change_based_selection", True) else "value",
        wire=_wire(section, given),
    )
    return Sent(sharing, False, _notes(section, given))


def _partial_model(section: Section) -> Sent:
    return _by_change(section, _CHANGES | {"alpha": share(1.0)}, lambda given: identity())


def _wavelets(given: dict[str, Any]) -> Any:
    return wavelet(given["wavelet"], levels=given["level"])


def _wavelet(section: Section) -> Sent:
    return _by_change(section, _WAVELET | {"alpha": share(1.0)}, _wavelets)


def _jwins(section: Section) -> Sent:
    return _by_change(section, _WAVELET | {"alpha_list": shares((0.1, 0.2, 0.3, 0.4, 1.0))}, _wavelets)


def _sub_sampling(section: Section) -> Sent:
    more = {
        "alpha": share(1.0),
        "metadata_cap": share(1.0),
        "layerwise": flag(False),
        "dict_ordered": flag(True),
        "save_shared": flag(False),
        "pickle": flag(True),
    }
    given = section.take(_COMMON | more)
    if given["layerwise"]:
        section.refuse("layerwise", "coordinates are drawn from the whole model here; use False")
    if given["compress"]:
        section.refuse("compress", "a random subset is sent as a seed and values here; use False")
    if not given["pickle"]:
        section.refuse("pickle", "other payloads have other sizes, which are not modelled here; use True")
    sharing = full() if given["alpha"] >= given["metadata_cap"] else random_subset(given["alpha"])
    return Sent(sharing, False, section.unused(UNUSED))


def _choco(section: Section) -> Sent:
    given = section.take(_COMMON | {"step_size": positive(), "alpha": share()})
    code = _wire(section, given).indices
    notes = () if given["compress"] else ("CHOCO: positions count 32 bits each; DecentralizePy sends 64",)
    return Sent(
        choco(top_k_of(share=given["alpha"], indices=code), given["step_size"]), False, notes + _notes(section, given)
    )


SHARINGS: dict[str, Callable[[Section], Sent]] = {
    "Sharing": _whole,
    "PlainAverageSharing": _whole,
    "PartialModel": _partial_model,
    "SubSampling": _sub_sampling,
    "JWINS": _jwins,
    "Wavelet": _wavelet,
    "Choco": _choco,
}
NO_SHARING = {
    "FFT": "it loses a coefficient of models with an odd number of parameters, so that its runs cannot be compared",
    "STC": _SERVER,
}


def sharing_of(section: Section) -> Sent:
    """Build what a section SHARING says.

    Raises:
        ValueError: a class, key or value that is not known, or has no counterpart here; the reason is named.
    """
    return SHARINGS[section.choose("sharing_class", SHARINGS, NO_SHARING)](section)
