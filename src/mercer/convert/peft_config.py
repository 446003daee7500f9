"""What a PEFT adapter made of scalable neural network kernels is built from."""

from dataclasses import dataclass
from typing import Any, final

from peft import PeftConfig

from .._core.activation import resolve_activation
from .._core.checks import check_choice, check_int
from .._core.counter import CounterGenerator
from ..features.draws import PROJECTION_KINDS
from .options import FEATURES
from .peft_registration import PEFT_TYPE, add_peft_type

PLACEMENTS = ("adapter", "replacement")


@final
@dataclass
class SNNKConfig(PeftConfig):
    r"""Settings of an SNNK adapter for PEFT.

    =============== ============================================== =============================
    placement       targeted module, base(x), becomes              mergeable
    =============== ============================================== =============================
    ``adapter``     :math:`h + U W' \phi(N(h))`, h = base(x)       no
    ``replacement`` :math:`W x + b + B A x + U W' \phi(N(x))`      B A, of rank ``rank``, into W
    =============== ============================================== =============================

    Both compute what the base model computes until they are trained. The features
    :math:`\phi` are frozen; see `mercer.nn.SNNKAdapter` for how the branch ends and what trains.

    Parameters
    ----------
    num_features : int, default 64
        Number m of features.
    activation : str, default "gelu"
        The function in the features, by name.
    bottleneck : int, optional, default 8
        Rank of what is learned on the features, before the up-projection U; None for one matrix.
    features : {"neuron", "universal", "arc_cosine"}, default "neuron"
        The frozen map.
    projection : str, default "orthogonal"
        How its directions are drawn; see `mercer.features.make_projection`.
    norm_before : bool, default True
        Whether the branch normalises its input (layer norm without trained numbers).
    up : bool, default True
        Whether an up-projection ends the branch; otherwise a learned gate, without bottleneck.
    branch_bias : bool, default True
        Whether the branch has a bias.
    placement : {"adapter", "replacement"}, default "adapter"
        After a module (a layer or a whole block), or beside a linear layer.
    rank : int, default 0
        Rank of the linear part that ``"replacement"`` has beside the branch; 0 for none.
    width : int, optional
        Length of the targeted modules' output vectors; read off the module where it is None.
    target_modules : list of str or str, optional
        Names of modules, or a regular expression, or ``"all-linear"``. None takes what is usual
        for the model's type: what ends attention and feed-forward blocks for ``"adapter"``,
        queries and values for ``"replacement"``.
    exclude_modules : list of str or str, optional
        Names not to target.
    layers_to_transform : list of int or int, optional
        Only blocks of these indices.
    layers_pattern : list of str or str, optional
        Name of the list of blocks that those indices mean.
    modules_to_save : list of str, optional
        Modules that are trained and saved as a whole, such as a classification head.
    save_projection : bool, default True
        Whether files hold the frozen features. If not, they are drawn again from ``seed``.
    seed : int, default 0
        Seed of all draws; every module has a stream of its own, found from its name.
    algorithm_version : int
        Version of the draws; written to files.
    drawn_for : list of str, optional
        The modules whose features a file leaves out; written to files, and checked on loading.
    task_type : str, optional
        PEFT's name of the task, such as ``"SEQ_CLS"``, which brings the head of the model into
        ``modules_to_save``.
    inference_mode : bool, default False
        Whether the adapter is frozen too.
    peft_type, peft_version, base_model_name_or_path, revision, auto_mapping : optional
        What PEFT notes in files.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind or unknown, two do not go together, or the version of
        the draws is one that this Mercer does not know.

    Examples
    --------
    A longer one, with saving and loading, is in `mercer.convert.peft`.

    >>> import torch
    >>> from peft import get_peft_model
    >>> from mercer.convert import SNNKConfig
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.GELU(), torch.nn.Linear(8, 3))
    >>> x = torch.ones(2, 4)
    >>> before = model(x)
    >>> config = SNNKConfig(num_features=16, bottleneck=2, target_modules=["0"])
    >>> model = get_peft_model(model, config)
    >>> bool((model(x) == before).all())
    True
    >>> model.print_trainable_parameters()
    trainable params: 56 || all params: 123 || trainable%: 45.5285
    """

    num_features: int = 64
    activation: str = "gelu"
    bottleneck: int | None = 8
    features: str = "neuron"
    projection: str = "orthogonal"
    norm_before: bool = True
    up: bool = True
    branch_bias: bool = True
    placement: str = "adapter"
    rank: int = 0
    width: int | None = None
    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None
    modules_to_save: list[str] | None = None
    save_projection: bool = True
    seed: int = 0
    algorithm_version: int = CounterGenerator.algorithm_version
    drawn_for: list[str] | None = None

    def __post_init__(self) -> None:
        """Check the values, and give them the types that PEFT works on."""
        super().__post_init__()
        self.peft_type = add_peft_type(PEFT_TYPE)
        self._drawn: list[str] = []  # in the model at hand; a config may serve several in turn
        for name in ("target_modules", "exclude_modules"):
            if isinstance(getattr(self, name), list):
                setattr(self, name, set(getattr(self, name)))
        check_int("num_features", self.num_features)
        for name in ("bottleneck", "width"):
            if getattr(self, name) is not None:
                check_int(name, getattr(self, name))
        if not isinstance(self.activation, str):
            raise TypeError(
                f"activation: a saved adapter keeps its name; expected a string, "
                f"got {type(self.activation).__name__}"
            )
        resolve_activation(self.activation)
        check_choice("features", self.features, FEATURES)
        check_choice("projection", self.projection, PROJECTION_KINDS)
        check_choice("placement", self.placement, PLACEMENTS)
        check_int("rank", self.rank, least=0)
        if self.rank and self.placement != "replacement":
            raise ValueError(
                f"rank: the linear part belongs to placement='replacement', got rank={self.rank} "
                f"with placement={self.placement!r}"
            )
        if self.bottleneck is not None and not self.up:
            raise ValueError(
                "bottleneck: without an up-projection the branch has none; "
                f"got bottleneck={self.bottleneck} with up=False, expected bottleneck=None"
            )
        if self.layers_pattern and self.layers_to_transform is None:
            raise ValueError(
                f"layers_pattern: expected layers_to_transform with it, got {self.layers_pattern!r}"
            )
        CounterGenerator(self.seed)  # checks it
        known = CounterGenerator.algorithm_version
        if check_int("algorithm_version", self.algorithm_version) > known:
            raise ValueError(
                f"algorithm_version: the adapter was made by a newer Mercer, with draws of version "
                f"{self.algorithm_version}; this one knows up to {known}. Update Mercer"
            )

    def forget_draws(self) -> None:
        """Start with another model."""
        self._drawn.clear()

    def note_draw(self, name: str) -> None:
        """Note a module whose features are drawn.

        Raises
        ------
        ValueError
            If the config is from a file that leaves features out, and that were drawn for modules
            of other names: these would be others, and the answers wrong without an error.
        """
        if not self.save_projection and self.drawn_for is not None and name not in self.drawn_for:
            raise ValueError(
                f"save_projection: the file holds no features, they are drawn from the names of "
                f"modules, such as {min(self.drawn_for, default='none')!r}; this model has "
                f"{name!r}. Expected the model that was trained, in a version with the same names"
            )
        self._drawn.append(name)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as a dictionary, for a file."""
        values = super().to_dict()
        if not self.save_projection and self._drawn:
            values["drawn_for"] = sorted(set(self._drawn))
        return values
