"""Hostile input: made by the kind, read as a user would read it, in a process that is watched.

Each case is a function of a seed, its kind and its number (Philox), so a failure is found again by these three. A case
is refused when reading raises the project's own error in one line, accepted when nothing is raised, else it fails.
"""
