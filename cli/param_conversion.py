"""Turning the words of the command line into numbers, without the machinery that newer Typers load for it.

Some versions of Typer turn every value into its type with pydantic, whose import alone takes longer than all else that
``jobdb publish`` does. Our parameters are text, whole numbers, numbers and flags, which need none of it. Called by
``commands``; every command is a ``PlainCommand``.
"""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand


class PlainCommand(TyperCommand):
    """A command whose parameters are converted plainly."""

    def get_params(self, ctx: Any) -> list[Any]:
        return use_plain_converters(super().get_params(ctx))

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """``JOB`` for what must be given, ``[JOB]`` for what may be left out: each Typer has another notation."""
        arguments = [one for one in self.get_params(ctx) if one.param_type_name == "argument"]
        names = [(str(one.metavar or one.name).strip("[]"), one.required) for one in arguments]
        return ["[OPTIONS]", *(name if required else f"[{name}]" for name, required in names)]


def use_plain_converters(parameters: list[Any]) -> list[Any]:
    """Gives parameters the plain conversion below, where this Typer has a place for it.

    The place is an attribute that Typer fills when it first needs it. A Typer without such an attribute converts by
    itself as ever; the results are the same.
    """
    for parameter in parameters:
        if getattr(parameter, "_runtime_param", ...) is None:
            kind = parameter.type_descriptor.annotation
            info = parameter.type_descriptor.parameter_info
            if kind in _TYPE_NAMES and info.parser is None:
                parameter._runtime_param = PlainConverter(kind, info.min, info.max)
        if parameter.param_type_name == "argument" and hasattr(parameter, "display_type_rich"):
            parameter.display_type_rich = _hide_type
    return parameters


def _hide_type(ctx: Any) -> None:
    """What follows an argument's name in the help: nothing. ``JOB`` says more than ``JOB <str>``."""


class PlainConverter:
    """Converts what was typed for one parameter. Its one method is called by Typer."""

    __slots__ = ("_kind", "_maximum", "_minimum")

    def __init__(self, kind: Any, minimum: float | None = None, maximum: float | None = None) -> None:
        self._kind = kind
        self._minimum = minimum
        self._maximum = maximum

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """The value in its type; None, or nothing at all for a repeatable parameter, when none was given.

        Raises:
            typer.BadParameter: it is no number where one is wanted, or out of its range.
        """
        if param.multiple or param.nargs == -1:
            return [str(one) for one in value] if value is not None else ()
        if value is None or self._kind is bool:
            return value
        try:
            converted = self._kind(value)
        except ValueError:
            raise typer.BadParameter(f"{value!r} is no {_TYPE_NAMES[self._kind]}.", ctx=ctx, param=param) from None
        if self._minimum is not None and not converted >= self._minimum:
            raise typer.BadParameter(f"{value} is too small; the least is {self._minimum}.", ctx=ctx, param=param)
        if self._maximum is not None and not converted <= self._maximum:
            raise typer.BadParameter(f"{value} is too large; the most is {self._maximum}.", ctx=ctx, param=param)
        return converted


_TYPE_NAMES: dict[Any, str] = {str: "text", int: "whole number", float: "number", bool: "switch", list[str]: "text"}
