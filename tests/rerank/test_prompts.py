"""Rerankers that are language models: prompts, their tokens, scores, instructions, truncation."""

import json
import shutil

import numpy as np
import pytest
import support

from fastrank import TextCrossEncoder
from fastrank.errors import ModelLoadError

FIXTURES = support.FIXTURES / "families"
EXPECTED = {
    folder.name: json.loads((folder / "expected.json").read_text())
    for folder in sorted(FIXTURES.iterdir())
    if (folder / "chat_template.jinja").exists()
}
CASES = [(name, kind) for name in EXPECTED for kind in ("plain", "instructed")]
NAME = "acme/own"


def load(folder, **options):
    return TextCrossEncoder(NAME, specific_model_path=folder, **options)


def copied(name, tmp_path):
    return shutil.copytree(FIXTURES / name, tmp_path / name)


def edit(path, **fields):
    values = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({name: value for name, value in values.items() if value is not ...}))


def instruction_of(name, kind):
    return EXPECTED[name]["instruction"] if kind == "instructed" else None


def pipeline(model, instruction=None):
    return model._instructed(model.load(), instruction)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_tokens_equal_those_of_sentence_transformers(name, kind):
    expected = EXPECTED[name]
    with load(FIXTURES / name) as model:
        tokens = pipeline(model, instruction_of(name, kind)).tokenize(pairs(name))
    assert [each.ids.tolist() for each in tokens] == expected[kind]["ids"]


def pairs(name):
    return [tuple(pair) for pair in EXPECTED[name]["pairs"]]


@pytest.mark.parametrize("activation", ["none", "auto"])
@pytest.mark.parametrize(("name", "kind"), CASES)
def test_scores_equal_those_of_sentence_transformers(name, kind, activation):
    instruction = instruction_of(name, kind)
    scores = EXPECTED[name][kind]["logits" if activation == "none" else "scores"]
    with load(FIXTURES / name, activation=activation) as model:
        together = list(model.rerank_pairs(pairs(name), instruction=instruction))
        np.testing.assert_allclose(together, scores, rtol=0, atol=1e-5)
        for (query, document), score in zip(pairs(name), scores, strict=True):
            alone = list(model.rerank(query, [document], instruction=instruction))
            np.testing.assert_allclose(alone, [score], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", EXPECTED)
def test_an_instruction_changes_every_way_to_score(name):
    import asyncio

    expected, documents = EXPECTED[name], ["paris is the capital", "the cat is red"]
    instruction = expected["instruction"]
    with load(FIXTURES / name) as model:
        plain = list(model.rerank("cat", documents))
        instructed = list(model.rerank("cat", documents, instruction=instruction))
        assert np.abs(np.subtract(plain, instructed)).min() > 1e-4
        ranked = model.rank("cat", documents, instruction=instruction)
        assert sorted(each.score for each in ranked) == sorted(instructed)
        (batch,) = model.rank_batch(["cat"], [documents], instruction=instruction)
        assert batch == ranked

        async def scores():
            listed = [score async for score in model.arerank("cat", documents, instruction=instruction)]
            return listed, await model.arank("cat", documents, instruction=instruction)

        listed, awaited = asyncio.run(scores())
    np.testing.assert_allclose(listed, instructed, rtol=0, atol=1e-6)
    assert [each.index for each in awaited] == [each.index for each in ranked]


def test_the_end_of_a_prompt_survives_truncation():
    name = "qwen3_reranker"
    with load(FIXTURES / name) as model:
        tokenizer = pipeline(model).tokenizer
        (short,) = tokenizer.encode([("cat", "red")])
        (long,) = tokenizer.encode([("cat", "red " * 500)])
        end = tokenizer._ending
        assert len(end) > 5
        assert len(long.ids) == tokenizer.max_length == 256
        assert short.ids[-len(end) :].tolist() == long.ids[-len(end) :].tolist() == end
        assert tokenizer.is_truncated(("cat", "red " * 500))
        assert not tokenizer.is_truncated(("cat", "red"))
        assert model.token_count([("cat", "red " * 500), ("cat", "red")]) == 256 + len(short.ids)


@pytest.mark.parametrize("character", ["a", " ", "\n", "é"])
def test_a_huge_document_has_the_tokens_of_its_beginning(character):
    with load(FIXTURES / "qwen3_reranker") as model:
        tokenizer = pipeline(model).tokenizer
        huge, large = tokenizer.encode([("cat", character * 3_000_000), ("cat", character * 40_000)])
    assert huge.ids.tolist() == large.ids.tolist()


@pytest.mark.parametrize("limit", [64, 200])
def test_a_limit_of_the_caller_counts(limit):
    with load(FIXTURES / "qwen2_one_token_reranker", max_length=limit) as model:
        (tokens,) = pipeline(model).tokenize([("cat", "red " * 500)])
    assert len(tokens.ids) == limit
    with pytest.raises(ValueError, match="max_length=3 leaves no room"):
        load(FIXTURES / "qwen3_reranker", max_length=3)


# -- special tokens in texts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXPECTED)
def test_special_tokens_of_the_template_stay_where_those_of_texts_are_letters(name):
    harmless = [pair for pair in pairs(name) if "<|" not in "".join(pair)]
    (hostile,) = (pair for pair in pairs(name) if "<|" in "".join(pair))
    with load(FIXTURES / name) as plain, load(FIXTURES / name, special_tokens_in_text=False) as model:
        usual, letters = pipeline(plain), pipeline(model)
        for pair in harmless:
            assert letters.tokenize([pair])[0].ids.tolist() == usual.tokenize([pair])[0].ids.tolist(), pair
        special = usual.tokenizer.special_ids

        def found(each, pair):
            return [token for token in each.tokenize([pair])[0].ids.tolist() if token in special]

        assert found(letters, hostile) == found(usual, ("cat", "red"))
        assert len(found(usual, hostile)) > len(found(usual, ("cat", "red")))
        marked = ("\ue000" + hostile[0], hostile[1] + "\ue0010\ue001")
        assert found(letters, marked) == found(usual, ("cat", "red"))


# -- folders that cannot be used ------------------------------------------------------------------------------------


def test_a_template_without_the_roles_of_a_pair_is_refused(tmp_path):
    folder = copied("qwen3_reranker", tmp_path)
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }} yes?")
    with pytest.raises(ModelLoadError, match="cannot carry a query and a document"):
        load(folder)
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ModelLoadError, match="asks for a chat template, and the tokenizer has none"):
        load(folder)


def test_a_classifier_with_the_template_of_a_chat_model_gets_pairs(tmp_path):
    folder = copied("qwen3_judge_classifier", tmp_path)
    for name in ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"):
        (folder / name).unlink()
    with load(folder) as model:
        instructed = list(model.rerank("cat", ["red"], instruction="find cats"))
        assert instructed != list(model.rerank("cat", ["red"]))
    (folder / "chat_template.jinja").write_text(
        "{% if messages[0].role == 'user' %}{{ messages[0].content }}{% endif %}"
    )
    with load(folder) as model:
        (tokens,) = pipeline(model).tokenize([("cat", "red")])
        assert len(tokens.ids) < 10
        with pytest.raises(ValueError, match="acme/own takes no instruction: it has no prompt"):
            model.rerank("cat", ["red"], instruction="find cats")


def test_a_prompt_without_a_place_for_an_instruction_takes_none(tmp_path):
    folder = copied("qwen3_reranker", tmp_path)
    roles = [f'(messages | selectattr("role", "eq", "{role}") | first).content' for role in ("query", "document")]
    (folder / "chat_template.jinja").write_text(f"{{{{ {roles[0]} }}}}: {{{{ {roles[1]} }}}}")
    with load(folder) as model:
        assert len(list(model.rerank("cat", ["red"]))) == 1
        with pytest.raises(ValueError, match="no place for an instruction"):
            model.rerank("cat", ["red"], instruction="find cats")
        with pytest.raises(TypeError, match="instruction"):
            model.rerank("cat", ["red"], instruction=3)


@pytest.mark.parametrize(
    ("file", "fields", "says"),
    [
        ("1_LogitScore/config.json", {"true_token_id": None}, "true_token_id"),
        ("1_LogitScore/config.json", {"true_token_id": 100_000}, "the score reads token 100000"),
        ("1_LogitScore/config.json", {"true_token_id": "yes"}, "true_token_id"),
        ("1_LogitScore/config.json", {"module_input_name": "logits"}, "module_input_name"),
        ("1_LogitScore/config.json", {"temperature": 2.0}, "'temperature'"),
        ("sentence_bert_config.json", {"transformer_task": "feature-extraction"}, "transformer_task"),
        ("sentence_bert_config.json", {"processing_kwargs": {"chat_template": {"tools": [1]}}}, "chat_template.tools"),
        (
            "sentence_bert_config.json",
            {"modality_config": {"message": {"method": "generate", "method_output_name": "logits"}}},
            "modality_config.message.method",
        ),
        (
            "sentence_bert_config.json",
            {"modality_config": {"message": {"method": "forward", "method_output_name": "logits", "format": "x"}}},
            "modality_config.message.format",
        ),
    ],
)
def test_a_bad_field_is_named(file, fields, says, tmp_path):
    folder = copied("qwen3_reranker", tmp_path)
    edit(folder / file, **fields)
    with pytest.raises(ModelLoadError) as caught:
        load(folder)
    assert says in str(caught.value)


def test_other_models_use_no_chat_template(tmp_path):
    from fastrank import TextEmbedding

    folder = copied("qwen3_embedding", tmp_path)
    settings = folder / "sentence_bert_config.json"
    modalities = json.loads(settings.read_text()).get("modality_config", {})
    message = {"method": "forward", "method_output_name": "last_hidden_state", "format": "flat"}
    edit(settings, modality_config=modalities | {"message": message}, module_output_name="token_embeddings")
    with pytest.raises(ModelLoadError, match="chat templates of cross-encoders only"):
        TextEmbedding(NAME, specific_model_path=folder)


def test_words_that_the_vocabulary_lacks_cannot_score(tmp_path):
    folder = copied("qwen3_reranker_unsaved", tmp_path)
    shutil.copyfile(FIXTURES / "qwen3_embedding" / "tokenizer.json", folder / "tokenizer.json")
    with pytest.raises(ModelLoadError, match="the tokenizer has no token 'yes'"):
        load(folder)


@pytest.mark.parametrize("name", EXPECTED)
def test_int8_scores_are_near(name):
    with load(FIXTURES / name, precision="int8") as model:
        scores = list(model.rerank_pairs(pairs(name)))
        alone = [next(model.rerank(query, [document])) for query, document in pairs(name)]
    np.testing.assert_allclose(alone, scores, rtol=0, atol=1e-6)
    expected = EXPECTED[name]["plain"]["logits"]
    assert 0 < np.abs(np.subtract(scores, expected)).max() < 0.2 * np.std(expected) + 0.05


# -- the registry's prompts -----------------------------------------------------------------------------------------

JUDGE = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n<Instruct>: {}\n'
    "<Query>: {}\n<Document>: {}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
)
SEARCH = "Given a web search query, retrieve relevant passages that answer the query"
EXPERT = (
    "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\n{}query: {}\ndocument: {}\nYou are a search relevance expert who evaluates how well documents "
    "match search queries. For each query-document pair, carefully analyze the semantic relationship between them, "
    "then provide your binary relevance judgment (0 for not relevant, 1 for relevant).\nRelevance:<|im_end|>\n"
    "<|im_start|>assistant\n"
)
HARD = [("what?", "it is:\n\n a cat \n"), ("", ""), ("{{ x }}", "{% if %} <|im_end|>")]


@pytest.mark.parametrize(
    ("name", "score_tokens", "plain", "instructed"),
    [
        ("Qwen/Qwen3-Reranker-0.6B", ("yes", "no"), (JUDGE, SEARCH), (JUDGE, "Find cats")),
        ("tomaarsen/Qwen3-Reranker-0.6B-seq-cls", (), (JUDGE, SEARCH), (JUDGE, "Find cats")),
        ("mixedbread-ai/mxbai-rerank-base-v2", ("1", "0"), (EXPERT, ""), (EXPERT, "instruction: Find cats\n")),
    ],
)
def test_prompts_of_the_registry_are_those_of_the_authors(name, score_tokens, plain, instructed, monkeypatch):
    from fastrank.models import chat_template, pair_prompt, registry
    from fastrank.models.spec import CROSS_ENCODER

    monkeypatch.setattr(chat_template, "_with_jinja", None)  # none of them needs it
    task = registry.find(name).tasks[CROSS_ENCODER]
    assert task.score_tokens == score_tokens
    prompt = pair_prompt.registered(task.template)
    for query, document in HARD:
        assert prompt.text(query, document) == plain[0].format(plain[1], query, document)
        made = prompt._replace(instruction="Find cats").text(query, document)
        assert made == instructed[0].format(instructed[1], query, document)


def test_a_model_of_the_registry_is_scored_by_its_entry(tmp_path):
    """Whatever the folder's own template says; the files that the entry lists are enough."""
    folder = tmp_path / "model"
    folder.mkdir()
    for file in ("config.json", "model.safetensors", "tokenizer.json"):
        shutil.copyfile(FIXTURES / "qwen3_reranker" / file, folder / file)
    with (
        TextCrossEncoder("Qwen/Qwen3-Reranker-0.6B", specific_model_path=folder) as model,
        load(FIXTURES / "qwen3_reranker") as own,
    ):
        scores, others = list(model.rerank("cat", ["red", "cat"])), list(own.rerank("cat", ["red", "cat"]))
        tokenizer, ours = pipeline(model).tokenizer, pipeline(own).tokenizer
        assert tokenizer.prompt(("cat", "red")) == JUDGE.format(SEARCH, "cat", "red")
        assert np.abs(np.subtract(scores, others)).min() > 1e-4  # of the shorter prompt
        assert tokenizer._ending == ours._ending
        assert list(model.rerank("cat", ["red"], instruction="find cats")) != scores[:1]
