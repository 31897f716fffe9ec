"""Chat templates: the same texts as jinja2's, and what is refused."""

import random

import pytest

from fastrank.errors import ModelLoadError
from fastrank.models import chat_template

PAIR = [{"role": "query", "content": "  a cat\n"}, {"role": "document", "content": "\n{{ 7 }} é"}]
SYSTEM = [{"role": "system", "content": "Find cats"}, *PAIR]
CONTENT = 'messages | selectattr("role", "eq", "{}") | map(attribute="content") | first'
TEMPLATES = [
    f'{{%- set x = {CONTENT.format("system")} | default("Judge") -%}}\n<s>{{{{ x }}}}\n',
    f"{{{{ {CONTENT.format('query')} }}}}\n\n\n",
    '{{ (messages | selectattr("role", "equalto", "document") | first).content }}\r\n\r\n<end>\r\n',
    "  {%- if messages[0]['role'] == 'system' -%}  {{ messages[0]['content'] }}  {%- else -%} none {%- endif %}  \n x",
    "{% if messages[0].role != 'system' %}\n A\n  {% elif add_generation_prompt %}\nB\n{% else %}\nC\n{% endif %}\n",
    "a {% set x = 'a\\nb\\u00e9' ~ \"c\" %}\n  {# a comment #}\n {{ x + 'd' }}{{ nothing }} {{ none }} {{ true }}",
    "{%+ if x is not defined and not y %}k{% endif %}{{ 'p' if x is none or eos_token else 'q' }}{{ 'r' if x }}",
    "{{ (messages | last).content | upper }} {{ messages | map(attribute='role') | list | last }}",
    "{% set x = messages | map(attribute='role') %}{{ x | first }} {{ x | first }} {{ x | first }} {{ 'a' if x }}",
    "{{ eos_token or 'none' }}{{ nothing | default('d') }}{{ '' | default('e', true) }}{{ not not eos_token }}",
]
OTHERS = [
    "{% for each in messages %}{{ each.role }}{{ loop.index }}{% if loop.last %}.{% endif %}{% endfor %}",
    "{{ messages[-1].content.strip() }} {{ messages | tojson }} {{ 'a'.upper() }}",
    "{%- macro show(text) -%}[{{ text }}]{%- endmacro -%}{{ show(messages[0].content) }}",
    "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
    "{{ messages[:1] }} {{ 2 * 3 }} {{ 'a' in 'cat' }} {{ messages | map('upper') | list }}",
]
VARIABLES = [{"messages": PAIR}, {"messages": SYSTEM, "add_generation_prompt": True, "eos_token": "</s>"}]


def by_jinja(source, variables):
    jinja2 = pytest.importorskip("jinja2")
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = chat_template._to_json
    return environment.from_string(source).render(**variables)


@pytest.mark.parametrize("variables", VARIABLES, ids=["pair", "system"])
@pytest.mark.parametrize("source", TEMPLATES)
def test_templates_of_pairs_need_no_jinja(source, variables, monkeypatch):
    expected = by_jinja(source, variables)
    monkeypatch.setattr(chat_template, "_with_jinja", None)
    assert chat_template.compiled(source, "here")(variables) == expected


@pytest.mark.parametrize("variables", VARIABLES, ids=["pair", "system"])
@pytest.mark.parametrize("source", OTHERS)
def test_other_templates_run_in_its_sandbox(source, variables):
    assert chat_template.compiled(source, "here")(variables) == by_jinja(source, variables)


@pytest.mark.parametrize("source", OTHERS)
def test_other_templates_name_the_extra_where_it_is_not(source, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "jinja2", None)
    with pytest.raises(ModelLoadError, match=r"here: the chat template has .*fastrank-onnx\[templates\]"):
        chat_template.compiled(source, "here")


def random_template(random_, depth=0):
    pieces = ["a", " ", "\n", "\n\n", "  \n", "b  ", "\t", "<x>"]
    return "".join(
        random_.choice(pieces) if random_.random() < 0.7 or depth > 2 else random_tag(random_, depth)
        for _ in range(random_.randint(0, 6))
    )


def random_tag(random_, depth):
    left, right, kind = random_.choice(["", "-", "+"]), random_.choice(["", "-", "+"]), random_.random()
    if kind < 0.4:
        return f"{{{{{left.replace('+', '')} x {right.replace('+', '')}}}}}"
    if kind < 0.6:
        return f"{{#{left} c {right}#}}"
    if kind < 0.8:
        return f"{{%{left} set y = 'v' {right}%}}"
    return f"{{%{left} if y {right}%}}{random_template(random_, depth + 1)}{{%{left} endif {right}%}}"


def test_white_space_is_as_jinja_leaves_it():
    for seed in range(500):
        source = random_template(random.Random(seed))
        assert chat_template.compiled(source, "here")({"x": "X"}) == by_jinja(source, {"x": "X"}), source


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.__class__.__mro__ }}",
        "{{ ''.__class__ }}",
        "{{ messages[0]['__class__'].__base__ }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ messages.append(1) }}",
        "{{ messages | attr('__class__') | attr('__mro__') }}",
        "{{ messages[0].content.format.__globals__ }}",
    ],
)
def test_a_hostile_template_reaches_nothing(source):
    pytest.importorskip("jinja2")
    try:
        text = chat_template.compiled(source, "here")({"messages": PAIR})
    except ModelLoadError:
        return
    assert text == ""  # undefined


@pytest.mark.parametrize(
    "source",
    [
        "{{ x",
        "{% if x %}",
        "{% endif %}",
        "{{ x + }}",
        "{# no end",
        "{{ (x }}",
        "{% set = 3 %}",
        "{{ nothing.field }}",
        "{{ nothing + 'a' }}",
        "{{ 1 + 'a' }}",
        "{% for x in 3 %}{% endfor %}",
        "{{ " + "(" * 3000 + "x" + ")" * 3000 + " }}",
        "{% if x %}" * 500,
        "{% else %}",
    ],
)
def test_a_damaged_template_is_an_error_of_the_model(source):
    pytest.importorskip("jinja2")
    with pytest.raises(ModelLoadError, match=r"^here: the chat template cannot be"):
        chat_template.compiled(source, "here")({"messages": PAIR})


def test_a_template_is_found_where_transformers_keeps_it(tmp_path):
    assert chat_template.read(tmp_path) is None
    config = tmp_path / "tokenizer_config.json"
    config.write_text('{"chat_template": "one"}')
    assert chat_template.read(tmp_path) == "one"
    config.write_text('{"chat_template": [{"name": "tool", "template": "a"}, {"name": "default", "template": "two"}]}')
    assert chat_template.read(tmp_path) == "two"
    (tmp_path / "chat_template.jinja").write_text("three é\n", encoding="utf-8")
    assert chat_template.read(tmp_path) == "three é\n"
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(ModelLoadError, match=r"chat_template\.jinja: cannot be read"):
        chat_template.read(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    config.write_text('{"chat_template": 3}')
    with pytest.raises(ModelLoadError, match="'chat_template' is 3; expected a string"):
        chat_template.read(tmp_path)
