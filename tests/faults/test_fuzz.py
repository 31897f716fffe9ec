"""Row H12: what is read of a model, changed at random. CI runs the program for a minute, a person for hours."""

import re
from pathlib import Path

import pytest
from support.processes import run_python

PROGRAM = Path(__file__).with_name("fuzz.py")


@pytest.mark.parametrize("target", ["safetensors", "json", "tokenizer", "onnx"])
def test_h12_files_changed_at_random_are_refused_or_answer(target):
    done = run_python(PROGRAM, "--seconds", 4, "--target", target)
    assert done.returncode == 0, done.stdout
    assert int(re.search(rf"{target}: (\d+) cases", done.stdout)[1]) > 3
    assert "ModelLoadError" in done.stdout


def test_h12_a_case_is_the_same_every_time(tmp_path):
    cases = [run_python(PROGRAM, "--target", "onnx", "--seed", 3, "--case", 5).stdout.splitlines() for _ in range(2)]
    first, second = (sorted(Path(folder).rglob("*.onnx")) for _, folder in cases)
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second] != []
    assert cases[0][0] == cases[1][0]


def test_h12_findings_are_told_and_kept(tmp_path):
    """A target whose check fails by a seeded fault: the program must find it, keep its files and say so."""
    broken = tmp_path / "faults" / "fuzz.py"
    broken.parent.mkdir()
    source = PROGRAM.read_text(encoding="utf-8").replace(
        '        ask(folder, "TextEmbedding")\n\n\ndef ask', "        raise IndexError(3)\n\n\ndef ask"
    )
    broken.write_text(source, encoding="utf-8")
    (tmp_path / "support").symlink_to(PROGRAM.parent.parent / "support", target_is_directory=True)
    done = run_python(broken, "--seconds", 6, "--target", "onnx", "--keep", tmp_path / "kept")
    assert done.returncode == 1, done.stdout
    assert "! IndexError" in done.stdout
    assert list((tmp_path / "kept" / "onnx-0-0").rglob("*.onnx"))
