"""FastEmbed's classes for images: they list FastEmbed's models, and refuse to make one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, ClassVar

from fastrank.compat.descriptions import DenseModelDescription
from fastrank.errors import ModelNotFoundError
from fastrank.models.spec import ModelSource


class _Images:
    """A class of FastEmbed for images.

    Raises:
        ModelNotFoundError: always.
    """

    _models: ClassVar[Sequence[DenseModelDescription]]

    def __init__(self, model_name: str, *_arguments: Any, **_options: Any) -> None:
        raise ModelNotFoundError(
            f"{model_name} reads images, and fastrank reads text only. Use FastEmbed for it, in a process without "
            "fastrank.compat.fastembed and fastrank.integrations.qdrant."
        )

    @classmethod
    def list_supported_models(cls) -> list[dict[str, Any]]:
        """FastEmbed's models; qdrant-client looks here for names and vector lengths."""
        return [asdict(model) for model in cls._models]

    @classmethod
    def get_embedding_size(cls, model_name: str) -> int:
        """The length of a model's vectors.

        Raises:
            ModelNotFoundError: FastEmbed has no such model.
        """
        for model in cls._models:
            if model.model.casefold() == model_name.casefold() and model.dim:
                return model.dim
        raise ModelNotFoundError(f"Embedding size for model {model_name} was None: {cls.__name__} has no such model.")

    @classmethod
    def _list_supported_models(cls) -> list[DenseModelDescription]:
        return list(cls._models)


def _model(
    name: str,
    dim: int,
    size_in_gb: float,
    license: str,  # noqa: A002 - FastEmbed's name
    description: str,
    *,
    hf: str | None = None,
    model_file: str = "model.onnx",
    additional_files: Sequence[str] = (),
) -> DenseModelDescription:
    source = ModelSource(hf=hf or name)
    return DenseModelDescription(
        name, source, model_file, description, license, size_in_gb, list(additional_files), dim=dim
    )


class ImageEmbedding(_Images):
    """FastEmbed's image models, which fastrank does not run."""

    _models = (
        _model("Qdrant/clip-ViT-B-32-vision", 512, 0.34, "mit", "Image embeddings, Multimodal (text&image), 2021 year"),
        _model("Qdrant/resnet50-onnx", 2048, 0.1, "apache-2.0", "Image embeddings, Unimodal (image), 2016 year"),
        _model(
            "Qdrant/Unicom-ViT-B-16",
            768,
            0.82,
            "mit",
            "Image embeddings (more detailed than Unicom-ViT-B-32), Multimodal (text&image), 2023 year",
        ),
        _model("Qdrant/Unicom-ViT-B-32", 512, 0.48, "mit", "Image embeddings, Multimodal (text&image), 2023 year"),
        _model(
            "jinaai/jina-clip-v1",
            768,
            0.34,
            "apache-2.0",
            "Image embeddings, Multimodal (text&image), 2024 year",
            model_file="onnx/vision_model.onnx",
        ),
        _model(
            "nomic-ai/nomic-embed-vision-v1.5",
            768,
            0.37,
            "apache-2.0",
            "Image embeddings, Multimodal (text&image), 2024 year",
            model_file="onnx/model.onnx",
        ),
        _model(
            "nomic-ai/nomic-embed-vision-v1.5-Q",
            768,
            0.1,
            "apache-2.0",
            "Image embeddings, Multimodal (text&image), 2024 year",
            hf="nomic-ai/nomic-embed-vision-v1.5",
            model_file="onnx/model_quantized.onnx",
        ),
        _model(
            "google/siglip2-base-patch16-224",
            768,
            0.37,
            "apache-2.0",
            "Image embeddings, Multimodal (text&image), 2025 year",
            hf="onnx-community/siglip2-base-patch16-224-ONNX",
            model_file="onnx/vision_model.onnx",
        ),
    )


class LateInteractionMultimodalEmbedding(_Images):
    """FastEmbed's ColPali models, which fastrank does not run."""

    _models = (
        _model(
            "Qdrant/colpali-v1.3-fp16",
            128,
            6.5,
            "gemma",
            "Text embeddings, Multimodal (text&image), English, 50 tokens query length truncation, 2024.",
            additional_files=["model.onnx_data"],
        ),
        _model(
            "Qdrant/colmodernvbert",
            128,
            1.0,
            "mit",
            "The late-interaction version of ModernVBERT, CPU friendly, English, 2025.",
            model_file="model_v2.onnx",
            additional_files=["processor_config.json"],
        ),
    )
