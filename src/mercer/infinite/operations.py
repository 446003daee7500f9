"""What layers do to covariances: the operations of which a `Network` is made."""

from .layout import mix as mix
from .layout import pick as pick
from .layout import same_positions as same_positions
from .operation import Operation as Operation
from .operation import Place as Place
from .operation import State as State
from .operations_activation import Pointwise as Pointwise
from .operations_attention import Attention as Attention
from .operations_channels import Affine as Affine
from .operations_channels import Concatenate as Concatenate
from .operations_channels import Product as Product
from .operations_channels import Sum as Sum
from .operations_input import Input as Input
from .operations_norm import Dropout as Dropout
from .operations_norm import Normalize as Normalize
from .operations_positions import Flatten as Flatten
from .operations_positions import Mix as Mix
from .operations_positions import Permute as Permute
from .operations_positions import Reshape as Reshape
from .operations_positions import Select as Select
from .operations_positions import Unshared as Unshared
from .operations_positions import Window as Window
