"""Operations on a whole registry: back up, restore, copy, count, and take a snapshot for display.

Called by the command line, applications and the doctor; calls an open registry and the engines.
"""
