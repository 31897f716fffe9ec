"""LangChain's standard tests for embeddings, on ours. Run by tests/integrations/test_langchain.py."""

import pytest
from langchain_tests.integration_tests import EmbeddingsIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests
from support import tiny_models

from fastrank import ModelSource, PoolingType, TextEmbedding
from fastrank.integrations.langchain import FastrankEmbeddings

TINY = "acme/tiny"


@pytest.fixture(scope="session", autouse=True)
def folder(tmp_path_factory):
    TextEmbedding.add_custom_model(TINY, PoolingType.MEAN, True, ModelSource(hf=TINY), dim=tiny_models.DIM)
    return tiny_models.write_model(tmp_path_factory.mktemp("tiny"), tiny_models.tiny_encoder())


class _OfATinyModel:
    embeddings_class = FastrankEmbeddings

    @pytest.fixture(autouse=True)
    def _params(self, folder):
        type(self).embedding_model_params = {
            "model_name": TINY,
            "model_kwargs": {"specific_model_path": str(folder)},
        }


class TestUnit(_OfATinyModel, EmbeddingsUnitTests):
    pass


class TestIntegration(_OfATinyModel, EmbeddingsIntegrationTests):
    @pytest.fixture
    def model(self, _params):
        return FastrankEmbeddings(**self.embedding_model_params)
