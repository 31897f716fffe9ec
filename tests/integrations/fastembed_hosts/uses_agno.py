"""agno's FastEmbedEmbedder."""

import asyncio

from _models import DENSE, QUERY, show
from agno.knowledge.embedder.fastembed import FastEmbedEmbedder

embedder = FastEmbedEmbedder(id=DENSE)
show(one=embedder.get_embedding(QUERY), later=asyncio.run(embedder.async_get_embedding(QUERY)))
