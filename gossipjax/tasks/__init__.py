"""Learning problems on real and synthetic data, with one shard per node."""

from typing import TYPE_CHECKING as _CHECKING

from gossipjax._base.lazy import names_on_demand as _names_on_demand
from gossipjax.tasks._data.arrays import from_arrays as from_arrays
from gossipjax.tasks._data.files import DataUnavailable as DataUnavailable
from gossipjax.tasks._data.images import Dataset as Dataset
from gossipjax.tasks._data.images import Examples as Examples
from gossipjax.tasks._data.images import cifar10 as cifar10
from gossipjax.tasks._data.images import digits as digits
from gossipjax.tasks._data.images import fashion_mnist as fashion_mnist
from gossipjax.tasks._data.images import load as load
from gossipjax.tasks._data.images import mnist as mnist
from gossipjax.tasks._data.images import mnist_by_writer as mnist_by_writer
from gossipjax.tasks._data.ratings import Ratings as Ratings
from gossipjax.tasks._data.ratings import RatingsDataset as RatingsDataset
from gossipjax.tasks._data.ratings import movielens as movielens
from gossipjax.tasks._data.ratings import ratings_by_user as ratings_by_user
from gossipjax.tasks._data.ratings import synthetic_ratings as synthetic_ratings
from gossipjax.tasks._data.text import TextDataset as TextDataset
from gossipjax.tasks._data.text import WindowRule as WindowRule
from gossipjax.tasks._data.text import Windows as Windows
from gossipjax.tasks._data.text import shakespeare as shakespeare
from gossipjax.tasks._data.text import synthetic_text as synthetic_text
from gossipjax.tasks._data.text import text_by_role as text_by_role
from gossipjax.tasks._data.text import tiny_shakespeare as tiny_shakespeare
from gossipjax.tasks._finite_sum import FiniteSum as FiniteSum
from gossipjax.tasks._finite_sum import finite_sum as finite_sum
from gossipjax.tasks._groups import by_user as by_user
from gossipjax.tasks._groups import natural as natural
from gossipjax.tasks._models.model import Model as Model
from gossipjax.tasks._partition import Partition as Partition
from gossipjax.tasks._problems.classification import classification as classification
from gossipjax.tasks._problems.factorization import matrix_factorization as matrix_factorization
from gossipjax.tasks._problems.next_character import next_character as next_character
from gossipjax.tasks._problems.quadratic import quadratic as quadratic
from gossipjax.tasks._problems.regression import linear_regression as linear_regression
from gossipjax.tasks._problems.regression import logistic_regression as logistic_regression
from gossipjax.tasks._splits import by_shards as by_shards
from gossipjax.tasks._splits import by_shares as by_shares
from gossipjax.tasks._splits import by_stretches as by_stretches
from gossipjax.tasks._splits import dirichlet as dirichlet
from gossipjax.tasks._splits import iid as iid
from gossipjax.tasks._splits import label_quantity as label_quantity
from gossipjax.tasks._splits import label_skew as label_skew
from gossipjax.tasks._splits import quantity_skew as quantity_skew

# The models are flax modules, and flax is slow to import.
_MODELS = {
    "gossipjax.tasks._models.deep": ("resnet18", "vgg16"),
    "gossipjax.tasks._models.models": (
        "celeba_cnn",
        "femnist_cnn",
        "from_nnx",
        "gn_lenet",
        "gn_lenet_plexus",
        "mlp",
        "softmax_regression",
    ),
    "gossipjax.tasks._models.recurrent": ("lstm",),
}
if _CHECKING:
    from gossipjax.tasks._models.deep import resnet18 as resnet18
    from gossipjax.tasks._models.deep import vgg16 as vgg16
    from gossipjax.tasks._models.models import celeba_cnn as celeba_cnn
    from gossipjax.tasks._models.models import femnist_cnn as femnist_cnn
    from gossipjax.tasks._models.models import from_nnx as from_nnx
    from gossipjax.tasks._models.models import gn_lenet as gn_lenet
    from gossipjax.tasks._models.models import gn_lenet_plexus as gn_lenet_plexus
    from gossipjax.tasks._models.models import mlp as mlp
    from gossipjax.tasks._models.models import softmax_regression as softmax_regression
    from gossipjax.tasks._models.recurrent import lstm as lstm
else:
    __getattr__ = _names_on_demand(__name__, _MODELS)

__all__ = sorted({name for name in dir() if not name.startswith("_")}.union(*_MODELS.values()))


def __dir__() -> list[str]:
    return __all__
