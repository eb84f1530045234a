"""Learning problems on real and synthetic data, with one shard per node."""

from gossipjax.tasks._data.arrays import from_arrays
from gossipjax.tasks._data.files import DataUnavailable
from gossipjax.tasks._data.images import Dataset, Examples, cifar10, digits, fashion_mnist, load, mnist, mnist_by_writer
from gossipjax.tasks._data.ratings import Ratings, RatingsDataset, movielens, ratings_by_user, synthetic_ratings
from gossipjax.tasks._data.text import (
    TextDataset,
    WindowRule,
    Windows,
    shakespeare,
    synthetic_text,
    text_by_role,
    tiny_shakespeare,
)
from gossipjax.tasks._groups import by_user, natural
from gossipjax.tasks._models.models import (
    Model,
    celeba_cnn,
    femnist_cnn,
    from_nnx,
    gn_lenet,
    gn_lenet_plexus,
    mlp,
    softmax_regression,
)
from gossipjax.tasks._models.recurrent import lstm
from gossipjax.tasks._partition import Partition
from gossipjax.tasks._problems.classification import classification
from gossipjax.tasks._problems.factorization import matrix_factorization
from gossipjax.tasks._problems.next_character import next_character
from gossipjax.tasks._problems.quadratic import quadratic
from gossipjax.tasks._problems.regression import linear_regression, logistic_regression
from gossipjax.tasks._splits import by_shards, by_stretches, dirichlet, iid, label_skew

__all__ = [
    "DataUnavailable",
    "Dataset",
    "Examples",
    "Model",
    "Partition",
    "Ratings",
    "RatingsDataset",
    "TextDataset",
    "WindowRule",
    "Windows",
    "by_shards",
    "by_stretches",
    "by_user",
    "celeba_cnn",
    "cifar10",
    "classification",
    "digits",
    "dirichlet",
    "fashion_mnist",
    "femnist_cnn",
    "from_arrays",
    "from_nnx",
    "gn_lenet",
    "gn_lenet_plexus",
    "iid",
    "label_skew",
    "linear_regression",
    "load",
    "logistic_regression",
    "lstm",
    "matrix_factorization",
    "mlp",
    "mnist",
    "mnist_by_writer",
    "movielens",
    "natural",
    "next_character",
    "quadratic",
    "ratings_by_user",
    "shakespeare",
    "softmax_regression",
    "synthetic_ratings",
    "synthetic_text",
    "text_by_role",
    "tiny_shakespeare",
]
