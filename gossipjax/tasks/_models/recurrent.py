"""Recurrent networks over characters: the LSTM of the Shakespeare task.

Weights have the layout of PyTorch's ``nn.LSTM``, ``(4 hidden, inputs)`` with the gates in the order input, forget,
cell, output and two biases per gate, so parameter counts and initialization match the published experiments.
"""

from __future__ import annotations

from itertools import pairwise

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Int

from gossipjax._base.arguments import whole
from gossipjax._base.calls import recorded
from gossipjax.tasks._models.model import Model
from gossipjax.tasks._models.models import _Dense, _uniform, from_nnx


@recorded("hochreiter1997lstm")
def lstm(vocabulary: int = 92, embedding: int = 8, hidden: int = 256, layers: int = 2, context: int = 80) -> Model:
    """Build the LSTM that predicts the next character in JWINS's Shakespeare task (2,683,708 parameters).

    Characters are embedded; the stacked LSTM layers run over the context, each from a zero state; a ReLU is applied to
    the outputs of the last layer at all positions, flattened; an affine layer maps them to the symbols.

    Initialization follows PyTorch: LSTM weights and biases are uniform on ±1/√hidden, the embedding is standard normal,
    and the affine layer is uniform on ±1/√(context hidden).

    Args:
        vocabulary: number of symbols.
        embedding: dimension of the embedding.
        hidden: width of the LSTM layers.
        layers: number of LSTM layers.
        context: number of characters that a prediction is based on.

    Returns:
        A model of inputs ``(batch, context)``, integers in 0 … vocabulary − 1, and logits ``(batch, vocabulary)``.

    Raises:
        ValueError: if a size is below 1.

    Reference:
        Hochreiter and Schmidhuber, "Long Short-Term Memory", Neural Computation 9(8), 1997; with forget gates, Gers,
        Schmidhuber and Cummins, Neural Computation 12(10), 2000. The task: Caldas et al., "LEAF", arXiv:1812.01097.
    """
    named = {"vocabulary": vocabulary, "embedding": embedding, "hidden": hidden, "layers": layers, "context": context}
    return from_nnx(_CharacterLSTM, *(whole(name, size, least=1, most=2**31 - 1) for name, size in named.items()))


class _LSTM(nnx.Module):
    """One LSTM layer over a sequence.

    (i, f, g, o) = W x_t + b + U h_{t−1} + b'; c_t = σ(f) c_{t−1} + σ(i) tanh(g); h_t = σ(o) tanh(c_t).
    """

    def __init__(self, inputs: int, hidden: int, *, rngs: nnx.Rngs):
        shapes = (4 * hidden, inputs), (4 * hidden, hidden), (4 * hidden,), (4 * hidden,)
        self.w, self.u, self.b_w, self.b_u = _uniform(rngs, hidden, *shapes)

    def __call__(self, x: Float[Array, "time batch inputs"]) -> Float[Array, "time batch hidden"]:
        w, u, bias = self.w[...], self.u[...], self.b_w[...] + self.b_u[...]
        # All positions at once; only the product with h depends on the previous position.
        drive = x @ w.T + bias[None, None]

        def step(carry: tuple[Array, Array], drive: Array) -> tuple[tuple[Array, Array], Array]:
            h, c = carry
            i, f, g, o = jnp.split(drive + h @ u.T, 4, axis=1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        start = jnp.zeros((x.shape[1], u.shape[1]), drive.dtype)
        return lax.scan(step, (start, start), drive)[1]


class _CharacterLSTM(nnx.Module):
    def __init__(self, vocabulary: int, embedding: int, hidden: int, layers: int, context: int, *, rngs: nnx.Rngs):
        self.embedding = nnx.Param(jax.random.normal(rngs.params(), (vocabulary, embedding), jnp.float32))
        widths = (embedding, *(hidden,) * layers)
        self.lstm = nnx.List([_LSTM(a, b, rngs=rngs) for a, b in pairwise(widths)])
        self.dense = _Dense(context * hidden, vocabulary, rngs=rngs)

    def __call__(self, x: Int[Array, "batch context"]) -> Float[Array, "batch vocabulary"]:
        y = self.embedding[...][x.T]
        for layer in self.lstm:
            y = layer(y)
        return self.dense(nnx.relu(y.transpose(1, 0, 2)).reshape(x.shape[0], -1))
