"""What official clients sent, and that our answers have all that these clients need of one.

Recorded with the clients themselves; `response` is the smallest answer that each still accepts.
"""

import json
from pathlib import Path

import pytest

orjson = pytest.importorskip("orjson")

from server import toy  # noqa: E402
from server.covers import covers  # noqa: E402

from fastrank.server.wire import dialects, routes  # noqa: E402
from fastrank.server.wire.errors import ApiError, Kind  # noqa: E402
from fastrank.server.wire.fields import Request  # noqa: E402

FILES = sorted(Path(__file__).with_name("contracts").glob("*.json"))
SENDS_IDS = "langchain_openai_openaiembeddings_as_it_comes_sends_token_ids"
# The recorder answered these with one number for all texts.
SHAPE_ONLY = {"tei_predict_pairs_shape", "vllm_score_shape", SENDS_IDS}


def read(recorded, **options):
    path = dialects.fold(recorded["path"].split("?")[0])
    return routes.reader(path)(Request(path, recorded["body"], recorded["headers"].get("User-Agent", ""), **options))


def answer(recorded, **options):
    exchange = read(recorded, **options)
    pad = 512 if recorded["body"].get("model") == "voyage-3-lite" else None
    result = None if exchange.call is None else toy.run(exchange.call, pad)
    return orjson.loads(orjson.dumps(exchange.answer(result), option=orjson.OPT_SERIALIZE_NUMPY))


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def contract(request):
    return request.param.stem, json.loads(request.param.read_text(encoding="utf-8"))


def test_there_are_all_121():
    assert len(FILES) == 121


def test_the_answer_has_what_the_client_needs(contract):
    name, told = contract
    posts = [each for each in told["requests"] if each["method"] == "POST"]
    options = {"decode": "tokens {}".format} if name == SENDS_IDS else {}
    answers = [answer(each, **options) for each in posts]
    for each in answers:
        covers(each, told["response"], values=False)
    if posts and name not in SHAPE_ONLY:
        assert any(_equal(each, told["response"]) for each in answers), covers(answers[-1], told["response"])


def test_token_ids_are_refused_where_they_cannot_be_decoded():
    told = json.loads(Path(__file__).with_name("contracts").joinpath(f"{SENDS_IDS}.json").read_text(encoding="utf-8"))
    with pytest.raises(ApiError, match="check_embedding_ctx_length=False") as raised:
        read(told["requests"][0])
    assert raised.value.kind is Kind.INVALID


def _equal(ours, wanted):
    try:
        return covers(ours, wanted)
    except AssertionError:
        return False
