"""Commands of `bob`, one module each: a dataclass of its flags with a method `main` that runs it."""
