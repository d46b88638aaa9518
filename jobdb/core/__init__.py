"""Pure rules: lifecycle, replay, arguments and the wire protocol. They use no database, clock, file or network.

Called by the engines, the registry and every package above; imports only ``errors`` and ``model``.
"""
