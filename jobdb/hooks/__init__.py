"""Connect coding agents: answer their hooks by policy or by a person, and write their configuration.

Used by ``jobdb hook`` and ``jobdb setup``. Parsing, policies, questions and answers are pure (``payload``, ``policy``,
``question``, ``answers``); ``run`` acts on the registry, ``setup`` on the agent's files.
"""
