"""Pure rules: lifecycle, replay, arguments and the wire protocol. They touch no database, clock, file or network."""
