"""What the speed benchmarks rest on: texts of the lengths they promise, and comparisons that do fail."""

from __future__ import annotations

import importlib
import json
import re
import sys
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from support import tiny_models

SVG = "{http://www.w3.org/2000/svg}"
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def bench():
    """The modules of the benchmarks folder, which is no package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        before = set(sys.modules)
        names = ("embed", "common.engines", "gpu", "precision", "report", "decoders", "common.texts", "common.charts")
        yield SimpleNamespace(**{name.rpartition(".")[2]: importlib.import_module(name) for name in names})
    for name in set(sys.modules) - before:
        if (BENCHMARKS / f"{name.replace('.', '/')}.py").is_file():
            del sys.modules[name]


def test_lengths_of_generated_texts(bench):
    dice = bench.texts.Dice(0)
    lengths = sorted(bench.texts.mixed(dice) for _ in range(4001))
    assert 74 <= lengths[2000] <= 82
    assert lengths[0] >= 3
    assert lengths[3960] == lengths[-1] == bench.texts.LONGEST
    assert {88, 108} <= {bench.texts.even(dice) for _ in range(1000)} <= set(range(88, 109))


def test_generated_texts_are_the_same_every_time(bench, tmp_path):
    folder = tiny_models.write_model(tmp_path)
    made = [list(islice(bench.texts.generated(folder / "tokenizer.json", lambda _: 5), 3)) for _ in range(2)]
    assert made[0] == made[1]
    assert [len(text.split()) for text in made[0]] == [5, 5, 5]
    assert len(set(made[0])) == 3


def test_a_difference_is_no_figure(bench):
    ours = np.eye(3, dtype=np.float32)
    assert bench.embed.compare("FastEmbed", ours, ours + np.float32(5e-5))["difference"] == pytest.approx(
        5e-5, rel=0.01
    )
    with pytest.raises(bench.embed.DifferenceError, match="FastEmbed differs"):
        bench.embed.compare("FastEmbed", ours, ours + np.float32(2e-4))
    with pytest.raises(bench.embed.DifferenceError):
        bench.embed.compare("FastEmbed", ours, ours * np.float32("nan"))
    near = ours * np.float32(0.99)
    assert bench.embed.compare("fastrank int8", ours, near)["cosine min"] == pytest.approx(0.99)
    with pytest.raises(bench.embed.DifferenceError):
        bench.embed.compare("fastrank int8", ours, ours * np.float32(0.9))


def test_overlap_of_neighbours(bench):
    vectors = np.random.default_rng(0).normal(size=(30, 8)).astype(np.float32)
    nearest = bench.precision.neighbours(vectors)
    assert nearest.shape == (30, 10)
    assert not (nearest == np.arange(30)[:, None]).any()
    assert bench.precision.overlap(nearest, nearest) == 1
    assert bench.precision.overlap(nearest[:, :10], np.roll(nearest, 1, axis=0)) < 1


def test_a_process_says_when_it_is_there_and_what_it_holds(bench, tmp_path):
    setup = bench.engines.Setup(tmp_path, 1, 16)
    (mark,) = bench.engines.alone("import numpy, onnxruntime, tokenizers", setup)
    assert mark.documents == 0
    assert 0 < mark.seconds < 600
    assert mark.peak > 5 or sys.platform == "win32"
    with pytest.raises(bench.engines.NotHereError, match="FastEmbed: "):  # its files are not there
        bench.engines.alone("FastEmbed", setup)


def test_without_cuda_nothing_is_measured(bench, monkeypatch, capsys):
    monkeypatch.setattr(bench.gpu, "runtime", lambda: ("1.99", ["CPUExecutionProvider"]))
    with pytest.raises(SystemExit) as ended:
        bench.gpu.main([])
    assert ended.value.code == 2
    assert "onnxruntime 1.99 has no CUDA, only CPUExecutionProvider: nothing was measured" in capsys.readouterr().err


def test_engines_of_a_gpu_are_not_compared_on_a_cpu(bench):
    assert set(bench.engines.ON_GPU) | set(bench.engines.ON_CPU) == set(bench.engines.ENGINES)
    assert "fastrank fp16" not in bench.engines.ON_CPU
    assert bench.embed.parser("", bench.engines.ON_CPU).parse_args([]).only == bench.engines.ON_CPU


def test_a_report_of_results_of_ones_own(bench, tmp_path, capsys):
    machine = {"cpu": "A & B", "cores": 2, "system": "S", "python": "3", "torch": "not installed", "numpy": "2.4"}
    marks = {"fastrank fp32": [{"seconds": 0.2, "peak": 100.0}] * 3, "FastEmbed": [{"seconds": 0.5, "peak": 220.0}] * 3}
    result = {"machine": machine, "model": "m", "threads": 2, "marks": marks}
    (tmp_path / "cold_start.json").write_text(json.dumps(result), encoding="utf-8")
    assert bench.report.main([str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "| fastrank fp32 | 200 | 100 MB | 2.50x |\n| FastEmbed | 500 | 220 MB | 1.00x |" in text
    assert "2 cores of A & B (instruction set not recorded), S, Python 3, numpy 2.4." in text
    with pytest.raises(SystemExit):
        bench.report.main([str(tmp_path.parent)])
    assert "has no results" in capsys.readouterr().err


def test_a_chart_sorts_its_bars_and_says_which_end_is_better(bench):
    bars = {"FastEmbed": 500.0, "fastrank fp32": 200.0}
    picture = ET.fromstring(bench.charts.chart([bench.charts.Panel("a & b, ms", bars, more=False)], ["2 cores"]))  # noqa: S314
    texts = ["".join(each.itertext()) for each in picture.iter(f"{SVG}text")]
    assert texts == ["a & b, ms less is better", "fastrank fp32", "200", "FastEmbed", "500", "2 cores"]
    ground, *drawn = picture.iter(f"{SVG}rect")
    assert ground.get("class") == "ground"
    assert float(drawn[0].get("width")) / float(drawn[1].get("width")) == pytest.approx(0.4)
    with pytest.raises(ValueError, match="9 bars are more than a reader compares"):
        bench.charts.chart([bench.charts.Panel("many", dict.fromkeys("abcdefghi", 1.0), more=True)])


def test_the_documentation_has_the_figures_of_the_results(bench):
    assert bench.report.main(["--check"]) == 0, "run python benchmarks/report.py"
    with pytest.raises(ValueError, match="the page has no <!-- figures"):
        bench.report.inserted("nothing here", "readme", "")


def test_the_prose_has_no_figures_of_speed_of_its_own(bench):
    """Seconds, ratios and rates are filled in: none stands in the template as it is."""
    prose = bench.report.TEMPLATE.read_text(encoding="utf-8")
    assert not re.findall(r"\b\d[\d.,]*(?:x| ms| MB| GFLOP/s| a second)(?![\w}])", prose)


@pytest.mark.parametrize("shape", ["Qwen3-0.6B", "EmbeddingGemma-300m"])
def test_decoders_of_random_weights_are_ones_that_run(bench, shape, tmp_path):
    """With the real names and fields, but few of everything."""
    few = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "head_dim": 16, "vocab_size": 30_000}
    bench.decoders.prepare(tmp_path, bench.decoders.SHAPES[shape] | few)
    values = dict(bench.decoders.read_tensors(tmp_path / "model.safetensors"))
    assert {name: list(each.shape) for name, each in values.items()} == bench.decoders.tensors(
        json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    )
    assert values["model.embed_tokens.weight"].std() == pytest.approx(0.02, rel=0.02)
    ids = bench.decoders.texts(1, 3, 9)
    exact, found = (bench.decoders.fastrank(tmp_path, 1, kind)(ids) for kind in ("fp32", "int4"))
    cosines = (exact * found).sum(axis=1)
    assert exact.shape == (3, 64)
    assert 0.8 < cosines.min() < cosines.max() < 0.9999
