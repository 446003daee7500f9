"""Make PEFT know a method that is not one of its own."""

from typing import Any

from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.utils import PeftType, register_peft_method

# PEFT looks a saved adapter's type up by this name, and where Mercer was not imported it raises a
# KeyError of nothing but the name. So the name says what to do.
PEFT_TYPE = "MERCER_SNNK__IMPORT_MERCER_CONVERT_PEFT_FIRST"
PREFIX = "mercer_snnk_"  # of the attributes that hold an adapter's tensors


def add_peft_type(name: str) -> PeftType:
    """Add a member to PEFT's enumeration of methods, or return the one that is there.

    ``register_peft_method`` takes only names that `peft.PeftType` has, and an enumeration in
    Python is closed once its class is made. This adds the member to the class in place, with
    name and value the same, so that it is found by attribute, by name, by value and by iteration
    as any other; PEFT's own members stay as they are.

    Parameters
    ----------
    name : str
        In upper case.

    Returns
    -------
    PeftType
        The member.
    """
    if name in PeftType.__members__:
        return PeftType[name]
    member = str.__new__(PeftType, name)
    member._name_ = member._value_ = name
    member._sort_order_ = len(PeftType)  # type: ignore[attr-defined]
    type.__setattr__(PeftType, name, member)
    PeftType._member_names_.append(name)
    PeftType._member_map_[name] = member
    PeftType._value2member_map_[name] = member
    return member


def register(config_class: Any, model_class: Any) -> None:
    """Register Mercer's method with PEFT, once in a process."""
    member = add_peft_type(PEFT_TYPE)
    if member not in PEFT_TYPE_TO_CONFIG_MAPPING:
        register_peft_method(
            name=PEFT_TYPE.lower(), config_cls=config_class, model_cls=model_class, prefix=PREFIX
        )
