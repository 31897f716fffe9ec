import pytest

from fastrank.integrations import _host


def test_a_missing_host_is_an_error_that_names_the_extra():
    match = r"no_such_host is not installed.*'fastrank-onnx\[lancedb\]'"
    with pytest.raises(ModuleNotFoundError, match=match) as error, _host.required("lancedb"):
        import no_such_host.models  # noqa: F401
    assert error.value.name == "no_such_host"


def test_other_errors_pass_through():
    with pytest.raises(ZeroDivisionError), _host.required("lancedb"):
        raise ZeroDivisionError
