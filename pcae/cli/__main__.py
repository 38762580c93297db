"""`python -m pcae.cli`, for process launchers such as torchrun."""

from pcae.cli.main import main

if __name__ == "__main__":
    main()
