"""The mark on the engine's verbs, and the one way to wrap all of them.

A verb is one public operation of the engine, in one transaction. Retries and timing wrap the marked methods and nothing
else, so that a helper or ``close`` is never retried by mistake. Prior art: Oban also declares at the verb that it is
observed (``with_span``).

Called by the verb groups in ``sql/`` (:func:`verb`), and by what opens an engine (:func:`with_verbs`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Verb = Callable[..., Any]
_Function = TypeVar("_Function", bound=Verb)
_Engine = TypeVar("_Engine")

_MARK = "_jobdb_verb"


def verb(function: _Function) -> _Function:
    """Mark a method as a verb; return the method itself, so the mark adds no cost per call."""
    setattr(function, _MARK, True)
    return function


def verbs_of(engine: type) -> dict[str, Verb]:
    """Return the verbs of an engine class by name, in the order in which they are defined."""
    found: dict[str, Verb] = {}
    for base in reversed(engine.__mro__):
        found |= {name: value for name, value in vars(base).items() if getattr(value, _MARK, False)}
    return found


def with_verbs(engine: type[_Engine], wrap: Callable[[str, Verb], Verb]) -> type[_Engine]:
    """Return a subclass of an engine whose verbs are wrapped.

    Args:
        engine: the engine class.
        wrap: takes a verb's name and function, and returns the function that replaces it. The mark is copied.

    Example:
        >>> class Greeter:
        ...     @verb
        ...     def greet(self) -> str:
        ...         return "hello"
        >>> with_verbs(Greeter, lambda name, run: lambda self: run(self).upper())().greet()
        'HELLO'
    """
    wrapped = {name: verb(wrap(name, function)) for name, function in verbs_of(engine).items()}
    subclass = type(engine.__name__, (engine,), {"__module__": engine.__module__, "__doc__": engine.__doc__, **wrapped})
    assert issubclass(subclass, engine)
    return subclass
