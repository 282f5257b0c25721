"""The ``tt-conv`` command: one file per subcommand. None names a task: a checkpoint or recipe does."""
