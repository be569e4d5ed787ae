"""The page a researcher reads first after a run: what was trained, how good it is, what it sees, how to go on."""
