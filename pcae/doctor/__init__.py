"""What is installed here, what it can use, and what stands in its way: `pcae doctor`.

Nothing here imports a framework into this process: versions are read from the packages' metadata, and devices are tried
in processes of their own, which may crash or hang without harm.
"""
