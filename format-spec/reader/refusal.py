"""Refused: the one error of this reader. It carries the failure class of the specification."""


class Refused(Exception):
    def __init__(self, failure, message):
        super().__init__(f"{message} [{failure}]")
        self.failure = failure
