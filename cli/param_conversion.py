"""Converts command-line arguments to numbers without pydantic, which newer versions of Typer load for it.

Importing pydantic takes longer than all else that ``jobdb publish`` does. Our parameters are text, integers, numbers
and flags, which need none of it. Called by ``commands``; every command is a ``PlainCommand``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from typer._click.core import Context, Parameter


class PlainCommand(TyperCommand):
    """A command whose parameters are converted without pydantic."""

    def get_params(self, ctx: Context) -> list[Parameter]:
        return use_plain_converters(super().get_params(ctx))

    def collect_usage_pieces(self, ctx: Context) -> list[str]:
        """Return ``JOB`` for a required argument, ``[JOB]`` for an optional one: versions of Typer differ in this."""
        arguments = [parameter for parameter in self.get_params(ctx) if parameter.param_type_name == "argument"]
        names = [(str(argument.metavar or argument.name).strip("[]"), argument.required) for argument in arguments]
        return ["[OPTIONS]", *(name if required else f"[{name}]" for name, required in names)]


def use_plain_converters(parameters: list[Parameter]) -> list[Parameter]:
    """Give parameters the converter below, where this version of Typer has a place for it; return them.

    The place is ``_runtime_param``, a private attribute that Typer fills when it first needs it. A version without the
    attribute converts by itself, with the same results; if it is renamed, a test notices that pydantic is imported.
    """
    for parameter in parameters:
        use_plain_converter(parameter)
    return parameters


def use_plain_converter(parameter: Any) -> None:
    """Give one parameter the plain converter. Typed as Any: what is set here differs between versions of Typer."""
    if getattr(parameter, "_runtime_param", ...) is None:
        kind = parameter.type_descriptor.annotation
        info = parameter.type_descriptor.parameter_info
        if kind in _TYPE_NAMES and info.parser is None:
            parameter._runtime_param = PlainConverter(kind, info.min, info.max)
    if parameter.param_type_name == "argument" and hasattr(parameter, "display_type_rich"):
        parameter.display_type_rich = _hide_type


def _hide_type(ctx: Context) -> None:
    """Return nothing to show behind an argument's name in the help: ``JOB`` is clearer than ``JOB <str>``."""


class PlainConverter:
    """Converts what was typed for one parameter; its one method is called by Typer."""

    __slots__ = ("_kind", "_maximum", "_minimum")

    def __init__(self, kind: Any, minimum: float | None = None, maximum: float | None = None) -> None:
        self._kind = kind
        self._minimum = minimum
        self._maximum = maximum

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the value in its type; when none was given, None, or an empty tuple for a repeatable parameter.

        Raises:
            typer.BadParameter: the value is not a number where one is expected, or out of range.
        """
        if param.multiple or param.nargs == -1:
            return [str(item) for item in value] if value is not None else ()
        if value is None or self._kind is bool:
            return value
        try:
            converted = self._kind(value)
        except ValueError:
            raise typer.BadParameter(f"{value!r} is not {_TYPE_NAMES[self._kind]}.", ctx=ctx, param=param) from None
        if self._minimum is not None and not converted >= self._minimum:
            raise typer.BadParameter(f"{value} is too small; the minimum is {self._minimum}.", ctx=ctx, param=param)
        if self._maximum is not None and not converted <= self._maximum:
            raise typer.BadParameter(f"{value} is too large; the maximum is {self._maximum}.", ctx=ctx, param=param)
        return converted


_TYPE_NAMES: dict[Any, str] = {str: "text", int: "an integer", float: "a number", bool: "a flag", list[str]: "text"}
