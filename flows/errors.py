"""The one exception that means: the user can put this right."""


class UserError(Exception):
    """A mistake in input, configuration or run folder; its text is one line: what, which value, what to do."""


class AnotherFailed(UserError):
    """Another process of this command has failed and says why: there is nothing to add."""
