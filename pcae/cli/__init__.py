"""The command line `pcae`: one thin module a command."""
