"""The paper's two prompts, shared by training and drawing."""

from bob.core.types import Context

__all__ = ["class_prompt", "context_prompt"]


def class_prompt(descriptor: str, class_name: str) -> str:
    """DataDream's template, which BOB extends; the article is always `a`, as in the paper."""
    return f"a {descriptor} photo of a {class_name}"


def context_prompt(descriptor: str, class_name: str, context: Context) -> str:
    """BOB's caption template (paper sec. 3.1): class, background and pose."""
    return (
        f"{class_prompt(descriptor, class_name)} in the {context.background} background with the {context.pose} pose."
    )
