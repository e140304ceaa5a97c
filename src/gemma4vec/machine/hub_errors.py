"""Hub errors in plain words."""


def explain_hub_error(error: Exception, what: str) -> str:
    """Explain in one line why the hub refused; `what` names the thing, such as `model`."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(error, GatedRepoError):
        return "access is restricted; accept its terms on its page and log in with `hf auth login`"
    if isinstance(error, RepositoryNotFoundError):
        return f"there is no such {what}, or it is private; check the spelling or log in with `hf auth login`"
    if isinstance(error, RevisionNotFoundError):
        return "it has no such revision"
    return " ".join(str(error).split())[:300]
