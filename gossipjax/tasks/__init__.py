"""Learning problems on real and synthetic data, one shard per node."""

from gossipjax.tasks.classification import classification as classification
from gossipjax.tasks.datasets import Dataset as Dataset
from gossipjax.tasks.datasets import Examples as Examples
from gossipjax.tasks.datasets import cifar10 as cifar10
from gossipjax.tasks.datasets import digits as digits
from gossipjax.tasks.datasets import fashion_mnist as fashion_mnist
from gossipjax.tasks.datasets import load as load
from gossipjax.tasks.datasets import mnist as mnist
from gossipjax.tasks.datasets import mnist_by_writer as mnist_by_writer
from gossipjax.tasks.files import DataUnavailable as DataUnavailable
from gossipjax.tasks.models import Model as Model
from gossipjax.tasks.models import femnist_cnn as femnist_cnn
from gossipjax.tasks.models import from_nnx as from_nnx
from gossipjax.tasks.models import gn_lenet as gn_lenet
from gossipjax.tasks.models import gn_lenet_plexus as gn_lenet_plexus
from gossipjax.tasks.models import mlp as mlp
from gossipjax.tasks.models import softmax_regression as softmax_regression
from gossipjax.tasks.partition import Partition as Partition
from gossipjax.tasks.partition import by_shards as by_shards
from gossipjax.tasks.partition import dirichlet as dirichlet
from gossipjax.tasks.partition import iid as iid
from gossipjax.tasks.partition import label_skew as label_skew
from gossipjax.tasks.partition import natural as natural
from gossipjax.tasks.quadratic import quadratic as quadratic
from gossipjax.tasks.regression import linear_regression as linear_regression
from gossipjax.tasks.regression import logistic_regression as logistic_regression
