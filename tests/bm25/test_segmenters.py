"""Words of languages without spaces: BM25's terms are the segmenter's own words."""

import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import mmh3
import pytest
from support.hosts import host

from fastrank import SparseTextEmbedding
from fastrank.bm25 import BM25, BM25Index
from fastrank.bm25.segmenters import SEGMENTERS

PAGE = Path(__file__).parents[2] / "docs" / "languages.md"
TEXTS = {
    "jieba": "中华人民共和国的首都是北京。ＡＢＣ公司在上海！",
    "fugashi": "東京都に住んでいます。ﾃﾞｰﾀベースの検索エンジン、ＡＢＣ。",
    "pythainlp": "กรุงเทพมหานครเป็นเมืองหลวงของประเทศไทย ABC ครับ",
    "kiwipiepy": "서울은 대한민국의 수도이다. 학교에서 배웠습니다! ABC",
}
FOUND = {  # a query, the document with it, and one whose pairs of characters it shares
    "jieba": ("华人", "海外华人在南洋", "精华人人爱"),
    "fugashi": ("京都", "京都の寺", "東京都の人口"),
    "pythainlp": ("ตา", "ตาของเขาสวย", "เขาตายเมื่อวาน"),
    "kiwipiepy": ("학교", "우리는 학교에서 배웠다", "대학 교수가 왔다"),
}


def words(name, text):
    """What the package itself says of a text, in NFKC and lower case, without punctuation."""
    text = unicodedata.normalize("NFKC", text)
    package = host(name)
    if name == "jieba":
        found = package.lcut_for_search(text)
    elif name == "fugashi":
        found = [word.surface for word in package.Tagger("-Owakati")(text)]
    elif name == "pythainlp":
        found = host("pythainlp.tokenize").word_tokenize(text)
    else:
        found = [token.form for token in package.Kiwi().tokenize(text)]
    return [word.strip().lower() for word in found if any(letter.isalnum() for letter in word)]


def ids_of(terms):
    return [abs(mmh3.hash(term)) for term in terms]


@pytest.mark.parametrize("name", SEGMENTERS)
def test_terms_are_the_segmenters_words(name):
    host(name)
    expected = words(name, TEXTS[name])
    assert len(expected) > 6
    assert BM25(None, analyzer=name).token_ids(TEXTS[name]) == ids_of(expected)
    assert BM25(None, analyzer=name).token_count([TEXTS[name]] * 2) == 2 * len(expected)
    vector = next(SparseTextEmbedding("Qdrant/bm25", analyzer=name).embed(TEXTS[name]))
    assert vector.indices.tolist() == ids_of(dict.fromkeys(expected))


@pytest.mark.parametrize("name", SEGMENTERS)
def test_a_word_is_not_found_inside_others(name):
    host(name)
    query, document, other = FOUND[name]
    index = BM25Index.build([other, document], analyzer=name)
    assert index.search(query)[0].tolist() == [1]
    pairs = BM25Index.build([other, document], analyzer="unigram+bigram")
    assert sorted(pairs.search(query)[0].tolist()) == [0, 1]


@pytest.mark.parametrize("name", SEGMENTERS)
def test_options_of_bm25_apply_to_the_words(name):
    host(name)
    first = words(name, TEXTS[name])[0]
    bm25 = BM25(analyzer=name, stopwords={first, "the"}, dimensions=1000)
    found = bm25.queries([f"{TEXTS[name]} The foxes"])[0][0].tolist()
    assert abs(mmh3.hash("fox")) % 1000 in found
    assert abs(mmh3.hash(first)) % 1000 not in found
    assert max(found) < 1000
    short = BM25(None, analyzer=name, token_max_length=1).queries([TEXTS[name]])[0][0].tolist()
    assert short == ids_of(dict.fromkeys(word for word in words(name, TEXTS[name]) if len(word) == 1))


@pytest.mark.parametrize("name", SEGMENTERS)
@pytest.mark.parametrize("text", ["", " \n\t ", "!?", "\0", "\ud800"])
def test_texts_without_words(name, text):
    host(name)
    assert BM25(analyzer=name).queries([text])[0][0].tolist() == []


@pytest.mark.parametrize("name", SEGMENTERS)
def test_what_is_no_letter_ends_a_word(name):
    host(name)
    assert set(BM25(None, analyzer=name).token_ids("cat\0dog\ud800cow")) == set(ids_of(["cat", "dog", "cow"]))


@pytest.mark.parametrize("name", SEGMENTERS)
def test_files_and_worker_processes_know_the_segmenter_by_name(name, tmp_path):
    host(name)
    index = BM25Index.build([TEXTS[name], "ABC"], analyzer=name)
    index.save(tmp_path / "index")
    query = FOUND[name][0]
    loaded = BM25Index.load(tmp_path / "index")
    assert loaded.bm25.analyzer == name
    assert loaded.search(query)[0].tolist() == index.search(query)[0].tolist()
    model = SparseTextEmbedding("Qdrant/bm25", analyzer=name)
    alone, beside = (list(model.embed([TEXTS[name]] * 300, parallel=workers)) for workers in (None, 2))
    assert [vector.as_dict() for vector in alone] == [vector.as_dict() for vector in beside]


@pytest.mark.parametrize("name", SEGMENTERS)
def test_the_command_line_has_them_and_says_nothing_else(name, tmp_path):
    host(name)
    query, document, other = FOUND[name]
    (tmp_path / "documents.txt").write_text(f"{other}\n{document}\n", encoding="utf-8")
    command = ["rerank", query, str(tmp_path / "documents.txt"), "--method", "bm25", "--analyzer", name, "--top-k", "1"]
    done = subprocess.run([sys.executable, "-m", "fastrank", *command], capture_output=True, check=True, timeout=120)
    assert document in done.stdout.decode()
    assert not done.stderr


@pytest.mark.parametrize("name", SEGMENTERS)
def test_a_package_that_is_missing_is_named(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, f"{name}.tokenize", None)
    from fastrank.bm25 import analysis, segmenters

    segmenters.segmenter.cache_clear()
    analysis.forget()
    with pytest.raises(ModuleNotFoundError, match=rf"pip install 'fastrank-onnx\[{name}\]'"):
        BM25(analyzer=name)
    segmenters.segmenter.cache_clear()


def test_a_dictionary_that_is_missing_is_named(monkeypatch):
    fugashi = host("fugashi")
    from fastrank.bm25 import analysis, segmenters
    from fastrank.errors import ModelLoadError

    def fail(_arguments):
        raise RuntimeError("Failed initializing MeCab.")

    monkeypatch.setattr(fugashi, "Tagger", fail)
    segmenters.segmenter.cache_clear()
    analysis.forget()
    with pytest.raises(ModelLoadError, match=r"(?s)finds no dictionary.*unidic-lite"):
        BM25(analyzer="fugashi", language=None)


@pytest.mark.skipif(not PAGE.exists(), reason="the tests of an installed package have no docs")
def test_the_blocks_of_the_page_run(capsys):
    for name in SEGMENTERS:
        host(name)
    names = {}
    for block in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), names)  # noqa: S102 - our own page
    assert str(mmh3.hash("华人")).lstrip("-") in capsys.readouterr().out
