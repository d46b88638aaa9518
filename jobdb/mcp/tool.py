"""One tool: its name, what it takes and returns, and the function that runs it.

Used by the table of tools and by the server; calls no database. Arguments are checked here as far as their names and
types go; the registry checks their values.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInput

if TYPE_CHECKING:
    from .schemas import Schema
    from .session import Session

_TYPES: Mapping[str, tuple[tuple[type, ...], str]] = {
    "string": ((str,), "a text"),
    "integer": ((int,), "an integer"),
    "number": ((int, float), "a number"),
    "boolean": ((bool,), "true or false"),
    "object": ((dict,), "an object"),
    "array": ((list,), "a list of texts"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """One tool.

    Attributes:
        name: its name.
        description: what it is for; the model reads it.
        arguments: the schema of each argument.
        required: the names of those that must be given.
        result: the schema of what it returns.
        run: called with the session and the arguments.
        is_read_only: True if it changes nothing.
        fixed: arguments that the server sets and nobody else can.
    """

    name: str
    description: str
    arguments: Mapping[str, Schema]
    required: tuple[str, ...] = ()
    result: Schema
    run: Callable[..., Awaitable[dict[str, Any]]]
    is_read_only: bool = False
    fixed: Mapping[str, Any] = field(default_factory=dict)

    def with_fixed(self, **fixed: Any) -> Tool:
        """Return the tool with some arguments set by the server, so that it is not offered to choose them."""
        return replace(
            self,
            arguments={name: schema for name, schema in self.arguments.items() if name not in fixed},
            required=tuple(name for name in self.required if name not in fixed),
            fixed=fixed,
        )

    @property
    def input_schema(self) -> Schema:
        return {
            "type": "object",
            "properties": dict(self.arguments),
            "required": list(self.required),
            "additionalProperties": False,
        }

    async def __call__(self, session: Session, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Check the arguments, and run the tool.

        Raises:
            InvalidInput: an argument is unknown, missing or of another type.
            JobdbError: whatever the registry raises.
        """
        return await self.run(session, **self._checked(arguments), **self.fixed)

    def _checked(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        # Models give null for what they leave out.
        given = {name: value for name, value in arguments.items() if value is not None}
        unknown = [name for name in arguments if name not in self.arguments]
        if unknown:
            known = ", ".join(self.arguments) or "none"
            raise InvalidInput(f"{self.name} has no argument {unknown[0]!r:.80}", advice=f"its arguments: {known}")
        missing = [name for name in self.required if name not in given]
        if missing:
            raise InvalidInput(f"{self.name} needs {' and '.join(missing)}")
        return {name: self._checked_value(name, value) for name, value in given.items()}

    def _checked_value(self, name: str, value: Any) -> Any:
        schema = self.arguments[name]
        types, wanted = _TYPES[schema["type"]]
        if schema["type"] == "integer" and type(value) is float and value.is_integer():
            value = int(value)  # JSON does not tell 5.0 from 5
        is_other_flag = isinstance(value, bool) and bool not in types
        if is_other_flag or not isinstance(value, types):
            raise InvalidInput(f"{name} of {self.name} must be {wanted}, not {type(value).__name__}")
        if isinstance(value, list) and not all(isinstance(item, str) for item in value):
            raise InvalidInput(f"{name} of {self.name} must be {wanted}")
        if "enum" in schema and value not in schema["enum"]:
            raise InvalidInput(
                f"{name} of {self.name} is {value!r:.80}", advice=f"it is one of: {', '.join(schema['enum'])}"
            )
        return value
