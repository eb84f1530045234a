"""What nodes do when they meet: builders of :class:`gossipjax.Protocol`."""

from gossipjax.protocol._ad_psgd import ad_psgd as ad_psgd
from gossipjax.protocol._admm import admm as admm
from gossipjax.protocol._admm import lt_admm as lt_admm
from gossipjax.protocol._allreduce import allreduce_sgd as allreduce_sgd
from gossipjax.protocol._beer import beer as beer
from gossipjax.protocol._clique_averaging import clique_averaging as clique_averaging
from gossipjax.protocol._d2 import d2 as d2
from gossipjax.protocol._d2 import exact_diffusion as exact_diffusion
from gossipjax.protocol._d2 import led as led
from gossipjax.protocol._dinno import dinno as dinno
from gossipjax.protocol._dlm import dlm as dlm
from gossipjax.protocol._dpsgd import dpsgd as dpsgd
from gossipjax.protocol._extra import extra as extra
from gossipjax.protocol._fedavg import fedavg as fedavg
from gossipjax.protocol._fedavg import local_sgd as local_sgd
from gossipjax.protocol._fedbuff import fedbuff as fedbuff
from gossipjax.protocol._feddyn import feddyn as feddyn
from gossipjax.protocol._fednova import fednova as fednova
from gossipjax.protocol._fedopt import fedadagrad as fedadagrad
from gossipjax.protocol._fedopt import fedadam as fedadam
from gossipjax.protocol._fedopt import fedopt as fedopt
from gossipjax.protocol._fedopt import fedyogi as fedyogi
from gossipjax.protocol._fedprox import fedprox as fedprox
from gossipjax.protocol._gossip import gossip_averaging as gossip_averaging
from gossipjax.protocol._gossip_learning import gossip_learning as gossip_learning
from gossipjax.protocol._gradient_tracking import gradient_tracking as gradient_tracking
from gossipjax.protocol._gt_saga import gt_saga as gt_saga
from gossipjax.protocol._gt_sarah import gt_sarah as gt_sarah
from gossipjax.protocol._gt_svrg import gt_svrg as gt_svrg
from gossipjax.protocol._hadfl import hadfl as hadfl
from gossipjax.protocol._k_gt import k_gt as k_gt
from gossipjax.protocol._lead import lead as lead
from gossipjax.protocol._local import node_gradients as node_gradients
from gossipjax.protocol._nids import nids as nids
from gossipjax.protocol._prox_skip import prox_skip as prox_skip
from gossipjax.protocol._push_sum import push_sum as push_sum
from gossipjax.protocol._push_sum import sgp as sgp
from gossipjax.protocol._quasi_global import quasi_global_momentum as quasi_global_momentum
from gossipjax.protocol._random_walk import random_walk as random_walk
from gossipjax.protocol._relay import relay_averaging as relay_averaging
from gossipjax.protocol._relay import relay_sgd as relay_sgd
from gossipjax.protocol._restarted import restarted as restarted
from gossipjax.protocol._scaffold import scaffold as scaffold
from gossipjax.protocol._swift import swift as swift

# No __all__: gossipjax re-exports every public name of this room, and type checkers follow that only without one.
