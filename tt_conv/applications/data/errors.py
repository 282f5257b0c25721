"""What is wrong with a file."""


class UnusableFile(ValueError):
    """A file that cannot be used: its name, what is wrong with it, and what to do about it."""

    def __init__(self, name: object, problem: str, remedy: str) -> None:
        super().__init__(f"{name}: {problem}: {remedy}")
        self.name = str(name)
        self.problem = problem
        self.remedy = remedy

    def __reduce__(self) -> tuple:
        return type(self), (self.name, self.problem, self.remedy)
