"""Compression operators for messages: builders of :class:`~gossipjax.compress.Compressor`.

A compressor acts on one flat vector per node, the concatenated leaves of its model. Bits are counted without entropy
coding: a value takes the width at which it is stored (32 bits in float32), an index 32 bits, a seed 64 bits. The
indices of top-k can be coded (:mod:`gossipjax.compress.codes`).
"""

from gossipjax.compress import codes as codes
from gossipjax.compress import transforms as transforms
from gossipjax.compress._compressor import Compressor as Compressor
from gossipjax.compress._compressor import compress_rows as compress_rows
from gossipjax.compress._compressor import contractive as contractive
from gossipjax.compress._natural import natural as natural
from gossipjax.compress._quantize import identity as identity
from gossipjax.compress._quantize import qsgd as qsgd
from gossipjax.compress._quantize import random_gossip as random_gossip
from gossipjax.compress._quantize import scaled_sign as scaled_sign
from gossipjax.compress._selection import largest as largest
from gossipjax.compress._sparsify import random_k as random_k
from gossipjax.compress._sparsify import sign_top_k as sign_top_k
from gossipjax.compress._sparsify import top_k as top_k
from gossipjax.compress._stc import stc as stc

__all__ = [name for name in dir() if not name.startswith("_")]
