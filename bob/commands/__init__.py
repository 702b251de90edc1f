"""The commands of `bob`, a file each: a dataclass of its flags, and `main`, what it does."""
