"""The process and its surroundings: environment, interpreters, terminals, descriptors."""
