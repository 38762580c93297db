"""`python -m pcae_core.cli`, for process launchers such as torchrun."""

from pcae_core.cli.main import main

if __name__ == "__main__":
    main()
