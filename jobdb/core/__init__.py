"""Pure rules: lifecycle, replay, arguments and the wire protocol. They use no database, clock, file or network."""
