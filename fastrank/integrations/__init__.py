"""fastrank inside other libraries: one module per host, which imports its host when it is used.

In: a host's documents, nodes or columns. Out: the host's own classes, computed by fastrank's models.
"""

from __future__ import annotations


def redirect(url: str) -> None:
    """Point the clients of hosted APIs in this process at a server, such as `fastrank serve`.

    Cohere's, Jina's, Voyage's and OpenAI's clients are, and with them LanceDB's, PyMilvus', LangChain's, LlamaIndex's,
    Haystack's and Chroma's classes that use them: also those that take no address as an argument. Call it before
    clients are made. Hosts that are installed are imported; what is not installed is left alone.

    Args:
        url: of the server, without /v1.

    Raises:
        ValueError: it is no http or https URL.
    """
    from fastrank.integrations._redirect import point_at

    point_at(url)
