"""`pcae doctor`: installed packages, devices that backends can use, and problems.

This package imports no framework. Versions come from the packages' metadata. Devices are tried in other processes,
which may crash or hang without harm.
"""
