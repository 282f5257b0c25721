"""``python -m tt_conv`` is the ``tt-conv`` command."""

from tt_conv.applications.commands.main import main

if __name__ == "__main__":
    main()
