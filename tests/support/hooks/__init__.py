"""Agents' hooks for the tests: payloads, what an agent does with an answer, and kills between question and answer."""
