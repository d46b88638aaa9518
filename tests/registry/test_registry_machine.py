"""Test all verbs against a plain model, on two connections in turn. The long version is in tests/torture."""

from hypothesis import HealthCheck, settings

from tests.support.crash.registry_machine import RegistryMachine

TestRegistryMachine = RegistryMachine.TestCase
TestRegistryMachine.settings = settings(
    max_examples=30,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
