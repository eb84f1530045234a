"""Compression operators for messages: builders of :class:`~gossipjax.compress.Compressor`.

A compressor acts on one flat vector per node, the concatenated leaves of its model. Bits are counted without entropy
coding: a value takes the width at which it is stored (32 bits in float32), an index 32 bits, a seed 64 bits. The
indices of top-k can be coded (:mod:`gossipjax.compress.codes`).
"""

from gossipjax.compress import codes, transforms
from gossipjax.compress._compressor import Compressor, compress_rows, contractive
from gossipjax.compress._quantize import identity, qsgd, random_gossip, scaled_sign
from gossipjax.compress._selection import largest
from gossipjax.compress._sparsify import random_k, sign_top_k, top_k

__all__ = [
    "Compressor",
    "codes",
    "compress_rows",
    "contractive",
    "identity",
    "largest",
    "qsgd",
    "random_gossip",
    "random_k",
    "scaled_sign",
    "sign_top_k",
    "top_k",
    "transforms",
]
